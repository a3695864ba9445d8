"""MLflow's REST API, with its field names, codes and statuses, over the record's own use cases."""

from __future__ import annotations

import base64
import json

from fairlead.registry.audit import Sealer
from tests.registry.mlflow.conftest import ARTIFACTS, MLFLOW, Dialect, code_of

FILES = {"MLmodel": b"flavors: {}\n", "data/model.skops": b"weights" * 1000}
NOBODY = (404, "RESOURCE_DOES_NOT_EXIST")
INVALID = (400, "INVALID_PARAMETER_VALUE")


def test_a_model_is_registered_shown_changed_tagged_and_deleted(dialect: Dialect) -> None:
    made = dialect.post("registered-models/create", name="iris", tags=[{"key": "a", "value": "1"}])
    assert made["registered_model"] == {
        "name": "iris",
        "creation_timestamp": made["registered_model"]["creation_timestamp"],
        "last_updated_timestamp": made["registered_model"]["creation_timestamp"],
        "user_id": "owner",
        "description": "",
        "latest_versions": [],
        "tags": [{"key": "a", "value": "1"}],
        "aliases": [],
    }
    assert dialect.refused("POST", "registered-models/create", name="iris") == (400, "RESOURCE_ALREADY_EXISTS")
    dialect.send("PATCH", "registered-models/update", name="iris", description="petals")
    dialect.post("registered-models/set-tag", name="iris", key="b", value="2")
    dialect.send("DELETE", "registered-models/delete-tag", name="iris", key="a")
    found = dialect.get("registered-models/get", name="iris")["registered_model"]
    assert (found["description"], found["tags"]) == ("petals", [{"key": "b", "value": "2"}])
    assert dialect.refused("POST", "registered-models/rename", name="iris", new_name="lily") == INVALID
    dialect.send("DELETE", "registered-models/delete", name="iris")
    assert dialect.refused("GET", "registered-models/get", name="iris") == NOBODY
    again = dialect.post("registered-models/create", name="iris")["registered_model"]
    assert (again["tags"], again["description"]) == ([], "")


def test_who_answers_for_a_model_is_its_caller_unless_tags_say_otherwise(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="plain")
    tags = {"fairlead.team": "risk", "fairlead.cost_centre": "cc-1", "fairlead.residency": "EU"}
    dialect.post(
        "registered-models/create", name="strict", tags=[{"key": key, "value": value} for key, value in tags.items()]
    )
    plain, strict = (dialect.http.get(f"/api/v1/models/{name}").json() for name in ("plain", "strict"))
    assert plain["labels"] == {"owner": "owner", "team": "unassigned", "cost_centre": "unassigned"}
    assert (strict["labels"]["team"], strict["labels"]["cost_centre"], strict["residency"]) == ("risk", "cc-1", "eu")


def test_an_uploaded_folder_becomes_a_version_that_is_ready_once_it_was_read_back(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="iris")
    source = dialect.upload("runs/1/model", FILES)
    made = dialect.post("model-versions/create", name="iris", source=source, run_id="abc", description="one")
    assert made["model_version"]["status"] == "PENDING_REGISTRATION"
    dialect.work()
    found = dialect.get("model-versions/get", name="iris", version="1")["model_version"]
    assert (found["status"], found["source"], found["run_id"]) == ("READY", source, "abc")
    uri = dialect.get("model-versions/get-download-uri", name="iris", version="1")["artifact_uri"]
    assert uri == f"http://127.0.0.1:8000{ARTIFACTS}/models/iris/1"
    listed = dialect.http.get(ARTIFACTS, params={"path": "models/iris/1"}).json()
    assert listed == {
        "files": [{"path": "MLmodel", "is_dir": False, "file_size": 12}, {"path": "data", "is_dir": True}]
    }
    got = dialect.http.get(f"{ARTIFACTS}/models/iris/1/data/model.skops")
    assert got.content == FILES["data/model.skops"]
    assert (got.headers["content-type"], got.headers["x-content-type-options"]) == (
        "application/octet-stream",
        "nosniff",
    )
    assert code_of(dialect.http.put(f"{ARTIFACTS}/models/iris/1/MLmodel", content=b"x")) == (409, "RESOURCE_CONFLICT")
    assert code_of(dialect.http.delete(f"{ARTIFACTS}/models/iris/1/MLmodel")) == (409, "RESOURCE_CONFLICT")


def test_a_flipped_byte_is_never_returned(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="iris")
    dialect.register("iris", FILES)
    packs = list(dialect.location.rglob("*.pack"))
    assert packs
    for pack in packs:
        data = bytearray(pack.read_bytes())
        data[len(data) // 3] ^= 1
        pack.write_bytes(data)
    for path, whole in FILES.items():
        got = dialect.http.get(f"{ARTIFACTS}/models/iris/1/{path}")
        assert got.content == whole or got.status_code >= 400, got.status_code


def test_aliases_move_freely_but_environments_do_not(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="iris")
    dialect.register("iris", FILES)
    dialect.register("iris", {"MLmodel": b"two"}, folder="other")
    dialect.post("registered-models/alias", name="iris", alias="champion", version="1")
    dialect.post("registered-models/alias", name="iris", alias="champion", version="2")
    by_alias = dialect.get("registered-models/alias", name="iris", alias="champion")["model_version"]
    assert (by_alias["version"], by_alias["aliases"]) == ("2", ["champion"])
    assert dialect.get("registered-models/alias", name="iris", alias="latest")["model_version"]["version"] == "2"
    assert dialect.refused("GET", "registered-models/alias", name="iris", alias="nobody") == INVALID
    for name in ("latest", "v3", "a/b"):
        assert dialect.refused("POST", "registered-models/alias", name="iris", alias=name, version="1") == INVALID
    assert dialect.refused("POST", "registered-models/alias", name="iris", alias="production", version="1") == (
        409,
        "RESOURCE_CONFLICT",
    )
    dialect.send("DELETE", "registered-models/alias", name="iris", alias="champion")
    assert dialect.refused("GET", "registered-models/alias", name="iris", alias="champion") == INVALID


def test_stages_label_versions_and_archive_others(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="iris")
    for number in range(3):
        dialect.register("iris", {"MLmodel": bytes([number])}, folder=f"f{number}")
    for version in ("1", "2"):
        moved = dialect.post(
            "model-versions/transition-stage",
            name="iris",
            version=version,
            stage="production",
            archive_existing_versions=True,
        )
        assert moved["model_version"]["current_stage"] == "Production"
    latest = dialect.post("registered-models/get-latest-versions", name="iris")["model_versions"]
    assert {(each["current_stage"], each["version"]) for each in latest} == {
        ("Archived", "1"),
        ("Production", "2"),
        ("None", "3"),
    }
    found = dialect.get("registered-models/get-latest-versions", name="iris", stages=["Production"])
    assert [each["version"] for each in found["model_versions"]] == ["2"]
    assert dialect.refused("POST", "model-versions/transition-stage", name="iris", version="1", stage="x") == INVALID


def test_a_deleted_version_is_gone_and_its_number_is_not_used_again(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="iris")
    dialect.register("iris", FILES)
    dialect.post("registered-models/alias", name="iris", alias="champion", version="1")
    dialect.send("DELETE", "model-versions/delete", name="iris", version="1")
    assert dialect.refused("GET", "model-versions/get", name="iris", version="1") == NOBODY
    assert dialect.http.get("/api/v1/models/iris/versions/1").status_code == 404
    assert dialect.get("registered-models/get", name="iris")["registered_model"]["aliases"] == []
    assert dialect.register("iris", FILES) == "2"
    Sealer(dialect.service.database, dialect.service.clock).seal_once()
    actions = {event["action"] for event in dialect.http.get("/api/v1/audit").json()["items"]}
    assert {"version.register", "version.delete", "alias.delete"} <= actions


def test_searches_filter_order_and_page(dialect: Dialect) -> None:
    for number in range(5):
        team = [{"key": "team", "value": f"Risk {number % 2}"}]
        dialect.post("registered-models/create", name=f"m{number}", tags=team)
    names = found_models(dialect, filter="name LIKE 'm%' AND tags.team = 'Risk 1'", order_by=["name DESC"])
    assert names == ["m3", "m1"]
    assert found_models(dialect, filter="name LIKE 'M%'") == []
    assert found_models(dialect, filter="name ILIKE 'M%' AND tags.`team` ILIKE 'risk 0'") == ["m0", "m2", "m4"]
    assert found_models(dialect, filter="name IN ('m1', 'm2') and name != 'm2'") == ["m1"]
    page = dialect.get("registered-models/search", max_results=2, order_by=["name ASC"])
    rest = dialect.get(
        "registered-models/search", max_results=3, order_by=["name ASC"], page_token=page["next_page_token"]
    )
    assert [each["name"] for each in rest["registered_models"]] == ["m2", "m3", "m4"]
    assert "next_page_token" not in rest
    for wrong in ("name", "name = m1", "name ~ 'a'", "size > 3", "name = 'a' OR name = 'b'", "name = 'a' AND", "'"):
        assert dialect.refused("GET", "registered-models/search", filter=wrong) == INVALID, wrong
    other = {"max_results": 2, "order_by": ["name DESC"], "page_token": page["next_page_token"]}
    assert dialect.refused("GET", "registered-models/search", **other) == INVALID
    assert dialect.refused("GET", "registered-models/search", max_results=100_000) == INVALID


def test_versions_are_searched_by_number_run_source_and_tag(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="iris")
    for number in range(1, 4):
        dialect.register(
            "iris",
            {"MLmodel": bytes([number])},
            folder=f"f{number}",
            run_id=f"run{number}",
            tags=[{"key": "k", "value": str(number)}],
        )
    cases = {
        "name = 'iris'": ["3", "2", "1"],
        "version_number > 1 and version_number <= 2": ["2"],
        "run_id IN ('run1', 'run3')": ["3", "1"],
        "run_id = 'run2'": ["2"],
        "source_path LIKE '%f1'": ["1"],
        "tags.k = '3'": ["3"],
        "tags.k != '3'": ["2", "1"],
        "name = 'lily'": [],
    }
    for text, versions in cases.items():
        found = dialect.get("model-versions/search", filter=text, order_by=["version_number DESC"])["model_versions"]
        assert [each["version"] for each in found] == versions, text
    first = dialect.get("model-versions/search", filter="name = 'iris'", max_results=2)
    rest = dialect.get(
        "model-versions/search", filter="name = 'iris'", max_results=2, page_token=first["next_page_token"]
    )
    assert len(first["model_versions"]) == 2
    assert len(rest["model_versions"]) == 1


def test_prompts_have_no_files_and_are_found_only_by_who_looks_for_them(dialect: Dialect) -> None:
    tag = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    dialect.post("registered-models/create", name="greet", tags=[tag])
    text = {"key": "mlflow.prompt.text", "value": "Hello {{name}}" * 1000}
    made = dialect.post("model-versions/create", name="greet", source="prompt-template", tags=[tag, text])
    assert made["model_version"]["status"] == "READY"
    assert found_models(dialect) == []
    assert found_models(dialect, filter="tags.`mlflow.prompt.is_prompt` = 'true'") == ["greet"]
    dialect.post("registered-models/alias", name="greet", alias="live", version="1")
    assert dialect.get("registered-models/alias", name="greet", alias="live")["model_version"]["version"] == "1"


def test_a_version_is_copied_without_its_bytes_moving(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="iris")
    dialect.post("registered-models/create", name="lily")
    dialect.register("iris", FILES)
    copied = dialect.post("model-versions/create", name="lily", source="models:/iris/1")["model_version"]
    assert copied["status"] == "READY"
    assert dialect.http.get(f"{ARTIFACTS}/models/lily/1/MLmodel").content == FILES["MLmodel"]


def test_a_source_that_nobody_can_give_is_refused_at_once(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="iris")
    secret = dialect.service.home / "refs.key"
    sources = [
        str(secret),
        secret.as_uri(),
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "models:/m-0123456789abcdef",
        "runs:/abc/model",
        "s3://bucket/model",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:1/api/2.0/mlflow-artifacts/artifacts/x",
        "mlflow-artifacts:/../../home",
        "mlflow-artifacts:/a/%2e%2e/b",
        "mlflow-artifacts:/a#/../../b",
        "mlflow-artifacts://127.0.0.1:8000/nothing",
        "mlflow-artifacts:/a\\..\\b",
        "models:/iris/1/../../x",
        "models:/iris/99999999999999999999",
        "dbfs:/x?y",
        "x" * 10_000,
        "\0",
    ]
    for source in sources:
        assert dialect.refused("POST", "model-versions/create", name="iris", source=source) == INVALID, source
    message = dialect.http.post(f"{MLFLOW}/model-versions/create", json={"name": "iris", "source": "runs:/abc/model"})
    assert "fairlead tracking-server add" in message.json()["message"]
    assert dialect.refused("POST", "model-versions/create", name="iris", source="models:/iris/7") == NOBODY


PATHS = (
    "../secret",
    "a/../../secret",
    "a/%2e%2e/%2e%2e/secret",
    "a/%252e%252e/secret",
    "a%5c..%5csecret",
    "a/%00",
    "/etc/passwd",
    "a//b",
    "%23",
    "x" * 5000,
)


def test_no_path_leads_out_of_where_it_belongs(dialect: Dialect) -> None:
    before = {file for file in dialect.service.home.parent.rglob("*") if "mlflow" not in str(file)}
    for path in PATHS:
        for method in ("GET", "PUT", "DELETE"):
            response = dialect.http.request(method, f"{ARTIFACTS}/{path}", content=b"x" if method == "PUT" else None)
            assert 400 <= response.status_code < 500, (method, path, response.text)
    assert code_of(dialect.http.get(ARTIFACTS, params={"path": "a/../../.."})) == INVALID
    assert {file for file in dialect.service.home.parent.rglob("*") if "mlflow" not in str(file)} == before


def test_hostile_values_are_refused_in_mlflows_shape_and_never_as_a_failure(dialect: Dialect) -> None:
    dialect.post("registered-models/create", name="iris")
    assert dialect.refused("GET", "model-versions/get", name="iris", version=str(2**63)) == NOBODY
    assert dialect.refused("GET", "model-versions/get", name="iris", version="one") == INVALID
    assert dialect.refused("GET", "model-versions/get", name="iris") == INVALID
    for name in ("", "a/b", "a:b", "a\0b", "a\nb", "\ud800", "x" * 300):
        body = json.dumps({"name": name}).encode()
        got = dialect.http.post(f"{MLFLOW}/registered-models/create", content=body)
        assert code_of(got) == INVALID, repr(name)
        assert code_of(dialect.http.request("DELETE", f"{MLFLOW}/registered-models/delete", content=body))[0] < 500
    huge = dialect.http.post(f"{MLFLOW}/registered-models/create", json={"name": "x" * 10_000_000})
    assert code_of(huge) == (413, "INVALID_PARAMETER_VALUE")
    for body in (b"[" * 100_000, b"{", b"[]", b'"x"', b'{"name": {"a": 1}}', b"\xff", b'{"name": 1e999}'):
        assert code_of(dialect.http.post(f"{MLFLOW}/registered-models/create", content=body)) == INVALID, body[:20]
    assert code_of(dialect.http.get(f"{MLFLOW}/nothing/here")) == (404, "ENDPOINT_NOT_FOUND")
    for token in ("x", "é", base64.b64encode(b"[" * 1000).decode(), "A" * 10_000):
        assert dialect.refused("GET", "model-versions/search", page_token=token) == INVALID
    assert dialect.refused("GET", "registered-models/search", filter="name = '" + "x" * 20_000 + "'") == INVALID
    assert found_models(dialect, filter="name LIKE '\\' AND name ILIKE '%\\'") == []
    foreign = dialect.http.get(f"{MLFLOW}/registered-models/search", headers={"origin": "http://evil.example"})
    assert code_of(foreign) == (403, "PERMISSION_DENIED")


def test_tokens_come_as_bearer_or_as_the_password_of_basic_and_need_a_permission(dialect: Dialect) -> None:
    address = f"{MLFLOW}/registered-models/search"
    dialect.http.headers.pop("authorization")
    assert code_of(dialect.http.get(address)) == (401, "UNAUTHENTICATED")
    assert code_of(dialect.http.get(address, auth=("ana", "wrong"))) == (401, "UNAUTHENTICATED")
    assert dialect.http.get(address, auth=("ana", dialect.secret)).status_code == 200
    reader = dialect.token("bea", "read")
    assert dialect.http.get(address, auth=("bea", reader)).status_code == 200
    refused = dialect.http.post(f"{MLFLOW}/registered-models/create", json={"name": "x"}, auth=("bea", reader))
    assert code_of(refused) == (403, "PERMISSION_DENIED")
    assert code_of(dialect.http.put(f"{ARTIFACTS}/a/b", content=b"x", auth=("bea", reader)))[0] == 403


def test_files_come_in_parts_and_are_put_together(dialect: Dialect) -> None:
    parts = [b"a" * 1000, b"b" * 1000, b"c"]
    place = "/api/2.0/mlflow-artifacts/mpu"
    asked = {"path": "/home/ana/weights.bin", "num_parts": len(parts)}
    begun = dialect.http.post(f"{place}/create/runs/1", json=asked).json()
    for credential, data in zip(begun["credentials"], parts, strict=True):
        answer = dialect.http.put(credential["url"], content=data, headers=credential["headers"])
        assert answer.headers["etag"]
    dialect.answered(dialect.http.post(f"{place}/complete/runs/1", json={**asked, "upload_id": begun["upload_id"]}))
    assert dialect.http.get(f"{ARTIFACTS}/runs/1/weights.bin").content == b"".join(parts)
    again = dialect.http.post(f"{place}/create/runs/1", json=asked).json()["upload_id"]
    missing = dialect.http.post(f"{place}/complete/runs/1", json={**asked, "upload_id": again})
    assert code_of(missing) == INVALID
    dialect.answered(dialect.http.post(f"{place}/abort/runs/1", json={**asked, "upload_id": again}))


def found_models(dialect: Dialect, **query: object) -> list[str]:
    return [each["name"] for each in dialect.get("registered-models/search", **query)["registered_models"]]
