"""How many statements the calls that everybody makes cost: what is asked of the database, and no clock, is counted."""

from __future__ import annotations

import pytest

from fairlead.registry.identity import Reach
from tests.registry.mlflow.conftest import MLFLOW, Dialect
from tests.statements import statements

NAME = "churn"
BY_ALIAS = {"name": NAME, "alias": "champion"}


@pytest.fixture
def registered(dialect: Dialect) -> Dialect:
    """A model with one READY version, tagged and named by an alias."""
    dialect.post("registered-models/create", name=NAME)
    dialect.register(
        NAME, {"model.bin": b"weights"}, tags=[{"key": "team", "value": "risk"}, {"key": "a", "value": ""}]
    )
    dialect.post("registered-models/alias", name=NAME, alias="champion", version="1")
    return dialect


def test_getting_a_version_by_its_alias_opens_no_session_and_answers_as_the_route_does(registered: Dialect) -> None:
    with statements(registered.service.database) as asked:
        found = registered.get("registered-models/alias", **BY_ALIAS)["model_version"]
        resolved = registered.http.get("/api/v1/resolve", params={"reference": f"{NAME}@champion"}).json()
    assert asked == []
    assert (found["version"], found["aliases"]) == ("1", ["champion"])
    assert found["tags"] == [{"key": "a", "value": ""}, {"key": "team", "value": "risk"}]
    assert (resolved["version"], resolved["resolved_revision"], resolved["tags"]) == (1, 1, {"a": "", "team": "risk"})
    # Such a token is for the route itself, which gives the same answer.
    limited = registered.service.tokens.create(
        registered.owner, name="ci", principal="ci", reach=Reach(scopes=["read"], models=["ch*"])
    )
    for path, query in (
        (f"{MLFLOW}/registered-models/alias", BY_ALIAS),
        ("/api/v1/resolve", {"reference": f"{NAME}@champion"}),
    ):
        quick = registered.http.get(path, params=query)
        with statements(registered.service.database) as asked:
            usual = registered.http.get(path, params=query, headers={"authorization": f"Bearer {limited.secret}"})
        assert asked
        assert quick.json() == usual.json()


def test_a_token_that_ended_or_may_not_read_gets_no_quick_answer(registered: Dialect) -> None:
    issued = registered.service.tokens.create(registered.owner, name="app", principal="app", scopes=["read"])
    headers = {"authorization": f"Bearer {issued.secret}"}
    path = f"{MLFLOW}/registered-models/alias"
    assert registered.http.get(path, params=BY_ALIAS, headers=headers).status_code == 200
    registered.service.tokens.revoke(registered.owner, issued.token.id)
    assert registered.http.get(path, params=BY_ALIAS, headers=headers).status_code == 401
    headers = {"authorization": f"Bearer {registered.token('robot', 'deploy')}"}
    for path, query in (
        (f"{MLFLOW}/registered-models/alias", BY_ALIAS),
        ("/api/v1/resolve", {"reference": f"{NAME}@champion"}),
    ):
        assert registered.http.get(path, params=query, headers=headers).status_code == 403


def test_searching_registering_and_moving_take_few_statements(registered: Dialect) -> None:
    with statements(registered.service.database) as asked:
        found = registered.get("model-versions/search", filter="tags.team = 'risk'")
    assert [each["version"] for each in found["model_versions"]] == ["1"]
    assert len(asked) == 2, asked

    with statements(registered.service.database) as asked:
        registered.post(
            "model-versions/create",
            name=NAME,
            source=f"mlflow-artifacts:/models/{NAME}/1",
            tags=[{"key": "team", "value": "risk"}],
        )
    assert len(asked) <= 10, asked
    with statements(registered.service.database) as asked:
        registered.post("registered-models/alias", name=NAME, alias="champion", version="2")
    assert len(asked) <= 10, asked
