from __future__ import annotations

from typing import Any

from tests.registry.mlflow.conftest import MLFLOW, Dialect


def test_a_creating_call_may_be_repeated_under_its_key(dialect: Dialect) -> None:
    def create(kind: str, key: str, **body: Any) -> Any:
        return dialect.http.post(f"{MLFLOW}/{kind}/create", json=body, headers={"idempotency-key": key})

    first, again = (create("registered-models", "a", name="iris") for _ in range(2))
    assert (first.status_code, first.json()) == (200, again.json())
    assert create("registered-models", "b", name="iris").json()["error_code"] == "RESOURCE_ALREADY_EXISTS"
    source = dialect.upload("staged", {"MLmodel": b"flavors: {}\n"})
    made = [
        create("model-versions", key, name="iris", source=source).json()["model_version"] for key in ("c", "c", "d")
    ]
    assert [each["version"] for each in made] == ["1", "1", "2"]
