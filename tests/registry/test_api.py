"""The record over HTTP: what clients send, what they are answered, and that nothing they send ends in a 500."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from fairlead.core.db import Database
from fairlead.core.problems import MEDIA_TYPE, from_problem
from fairlead.registry.audit import Sealer
from fairlead.registry.policy import Policy
from tests.record_world import World, make_app, make_world, unknown_id

LABELS = {"owner": "ana", "team": "churn", "cost_centre": "cc-7"}
MODEL = {"name": "churn", "labels": LABELS}


@pytest.fixture(scope="module")
def app_over() -> Callable[[Database], FastAPI]:
    """The application over a database, made once: it knows callers by their tokens, and its clock stands still."""

    @cache
    def app(database: Database) -> FastAPI:
        return make_app(make_world(database))

    return app


@pytest.fixture
def client(world: World, app_over: Callable[[Database], FastAPI]) -> Iterator[TestClient]:
    owner = {"authorization": f"Bearer {world.owner_secret}"}
    with TestClient(app_over(world.database), headers=owner) as opened:
        yield opened


@pytest.fixture
def churn(world: World) -> World:
    """A world with the model `churn` and two READY versions."""
    world.model()
    world.version(metrics={"auc": 0.9})
    world.version(metrics={"auc": 0.7})
    return world


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    members = answer.json()
    assert members["type"] == f"urn:fairlead:error:{code}"
    assert members["status"] == status
    assert members["title"]
    assert members["detail"]
    assert from_problem(members, status=status).code == code
    return members


def test_a_model_is_made_shown_changed_and_listed(client: TestClient) -> None:
    made = client.post("/api/v1/models", json=MODEL | {"tags": {"a": "1"}})
    assert made.status_code == 201
    assert made.json()["created_at"] == "2026-03-01T12:00:00.000000Z"
    changed = client.patch("/api/v1/models/churn", json={"labels": {"team": "growth"}, "tags": {"a": None}}).json()
    assert (changed["labels"]["team"], changed["labels"]["owner"], changed["tags"]) == ("growth", "ana", {})
    assert client.get("/api/v1/models/churn").json() == changed
    assert client.get("/api/v1/models?name_prefix=ch").json() == {"items": [changed], "next_page_token": None}


def test_a_version_is_registered_shown_changed_and_resolved(client: TestClient, world: World) -> None:
    world.model()
    body: dict[str, object] = {
        "upload_id": world.upload(),
        "metrics": {"auc": 1},
        "signature": {"inputs": []},
        "tags": {"a": "1"},
    }
    made = client.post("/api/v1/models/churn/versions", json=body)
    assert (made.status_code, made.json()["reference"], made.json()["state"]) == (201, "churn/1", "PENDING")
    assert made.json()["metrics"] == {"auc": 1.0}
    changed = client.patch("/api/v1/models/churn/versions/1", json={"description": "new"}).json()
    assert client.get("/api/v1/models/churn/versions/1").json() == changed
    assert client.get("/api/v1/models/churn/versions").json()["items"] == [changed]
    resolved = client.get("/api/v1/resolve", params={"reference": "churn/1"}).json()
    assert resolved == changed | {"resolved_revision": None}


def test_an_alias_moves_under_its_etag(client: TestClient, churn: World) -> None:
    path = "/api/v1/models/churn/aliases/champion"
    problem(client.put(path, json={"version": 1}), 428, "revision-required")
    moved = client.put(path, json={"version": 1}, headers={"If-Match": '"0"'})
    assert (moved.status_code, moved.headers["etag"], moved.json()["to_version"]) == (200, '"1"', 1)
    stale = problem(client.put(path, json={"version": 2}, headers={"If-Match": '"0"'}), 412, "stale-revision")
    assert (stale["expected"], stale["actual"]) == (0, 1)
    shown = client.get(path)
    assert (shown.headers["etag"], shown.json()["version"]) == ('"1"', 1)
    resolved = client.get("/api/v1/resolve", params={"reference": "churn@champion"}).json()
    assert (resolved["version"], resolved["resolved_revision"]) == (1, 1)
    deleted = client.request("DELETE", path, headers={"If-Match": shown.headers["etag"]})
    assert (deleted.status_code, deleted.headers["etag"]) == (200, '"2"')
    problem(client.get("/api/v1/resolve", params={"reference": "churn@champion"}), 404, "alias-not-found")
    history = client.get("/api/v1/models/churn/history/champion").json()["items"]
    assert [move["kind"] for move in history] == ["delete", "set"]
    assert churn.aliases.get(churn.owner, "churn", "champion").revision == 2


@pytest.mark.parametrize("if_match", ["1", '"x"', '"01"', '"-1"', 'W/"1"', "*", '"' + 30 * "9" + '"', ""])
def test_an_if_match_that_is_no_revision_is_refused(client: TestClient, churn: World, if_match: str) -> None:
    del churn
    answer = client.put("/api/v1/models/churn/aliases/champion", json={"version": 1}, headers={"If-Match": if_match})
    problem(answer, 400, "invalid-input")


def test_a_promotion_goes_from_plan_to_approval_to_roll_back(client: TestClient, churn: World) -> None:
    policy = {"gates": [{"metric": "auc", "comparison": ">=", "limit": 0.8}], "approvals": 1}
    environment = client.get("/api/v1/environments/production")
    put = client.put(
        "/api/v1/environments/production",
        json={"rank": 30, "policy": policy},
        headers={"If-Match": environment.headers["etag"]},
    )
    assert (put.status_code, put.headers["etag"]) == (200, '"2"')
    asked = {"version": 1, "environment": "production", "reason": "It is better."}
    path = "/api/v1/models/churn/promotions"
    plan = client.post(path, json=asked | {"dry_run": True})
    assert (plan.status_code, plan.json()["state"], plan.json()["id"]) == (200, "PLANNED", None)
    assert [gate["verdict"] for gate in plan.json()["plan"]["gates"]] == ["passed", "pending"]
    assert plan.json()["plan"]["moves"] == {"from": None, "to": 1}
    problem(client.post(path, json=asked), 428, "revision-required")
    refused = client.post(path, json=asked | {"version": 2}, headers={"If-Match": '"0"'})
    assert problem(refused, 422, "gate-refused")["plan"]["gates"][0]["verdict"] == "failed"
    waiting = client.post(path, json=asked, headers={"If-Match": '"0"'})
    assert (waiting.status_code, waiting.json()["state"]) == (202, "AWAITING_APPROVAL")
    approve = f"/api/v1/promotions/{waiting.json()['id']}/approve"
    problem(client.post(approve, json={}), 403, "self-approval")
    with churn.http(churn.secret("ben", "approve")) as ben:
        done = ben.post(approve, json={"comment": "fine"})
        assert (done.status_code, done.json()["state"], done.json()["revision"]) == (200, "APPLIED", 1)
        problem(ben.get("/api/v1/promotions"), 403, "permission-denied")
    assert client.get("/api/v1/promotions", params={"state": "APPLIED"}).json()["items"] == [done.json()]
    churn.policy("production", Policy())
    client.post(path, json=asked | {"version": 2}, headers={"If-Match": '"1"'})
    back = client.post(
        "/api/v1/models/churn/environments/production/rollback",
        json={"reason": "It is wrong."},
        headers={"If-Match": '"2"'},
    )
    assert (back.status_code, back.json()["to_version"], back.headers["etag"]) == (200, 1, '"3"')
    assert back.json()["not_rechecked"] == []


def test_a_token_is_issued_listed_without_its_secret_and_revoked(client: TestClient, world: World) -> None:
    body = {"name": "ci", "principal": "ci", "scopes": ["read"], "expires_in_seconds": 60}
    made = client.post("/api/v1/tokens", json=body)
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert made.json()["expires_at"] == "2026-03-01T12:01:00.000000Z"
    assert secret not in client.get("/api/v1/tokens").text
    with world.http(secret) as reader:
        assert reader.get("/api/v1/models").status_code == 200
        problem(reader.post("/api/v1/models", json=MODEL), 403, "permission-denied")
        assert client.delete(f"/api/v1/tokens/{made.json()['id']}").status_code == 200
        problem(reader.get("/api/v1/models"), 401, "unauthenticated")


def test_a_repeated_call_gets_the_same_answer_and_another_one_with_its_key_is_refused(client: TestClient) -> None:
    key = {"Idempotency-Key": "k 1"}
    first = client.post("/api/v1/models", json=MODEL, headers=key)
    again = client.post("/api/v1/models", json=MODEL, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    other = client.post("/api/v1/models", json=MODEL | {"name": "fraud"}, headers=key)
    problem(other, 422, "idempotency-key-reused")
    problem(client.post("/api/v1/models", json=MODEL, headers={"Idempotency-Key": 256 * "k"}), 400, "invalid-input")


def test_the_audit_log_is_read_and_verified(client: TestClient, world: World) -> None:
    world.model()
    Sealer(world.database, world.clock).seal_once()
    events = client.get("/api/v1/audit", params={"page_size": 500}).json()["items"]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    verified = client.get("/api/v1/audit/verification").json()
    assert (verified["is_intact"], verified["sealed"], verified["unsealed"]) == (True, len(events), 0)
    assert verified["anchor"] == f"{len(events)}:{events[-1]['event_hash']}"
    held = client.get("/api/v1/audit/verification", params={"anchor": verified["anchor"]}).json()
    assert held["is_intact"]
    cut = client.get("/api/v1/audit/verification", params={"anchor": f"9:{64 * '0'}"}).json()
    assert (cut["is_intact"], cut["problem"], cut["sequence"]) == (False, "cut", 9)


def test_an_empty_ledger_sums_to_nothing(client: TestClient) -> None:
    assert client.get("/api/v1/ledger").json() == {"items": [], "next_page_token": None}
    assert client.get("/api/v1/ledger/summary", params={"by": "team"}).json()["items"] == []


def test_an_invalid_request_says_what_is_wrong_where(client: TestClient) -> None:
    body = {"name": 7, "labels": {"owner": "ana", "team": "x", "extra/~": "y"}, "nonsense": 1}
    members = problem(client.post("/api/v1/models", json=body), 400, "invalid-input")
    pointers = {(error["in"], error["pointer"]) for error in members["errors"]}
    assert pointers == {
        ("body", "#/name"),
        ("body", "#/labels/cost_centre"),
        ("body", "#/labels/extra~1~0"),
        ("body", "#/nonsense"),
    }
    members = problem(client.get("/api/v1/models?page_size=0"), 400, "invalid-input")
    assert [(error["in"], error["pointer"]) for error in members["errors"]] == [("query", "#/page_size")]


DEEP = "[" * 100_000 + "]" * 100_000
UPLOAD = '{"upload_id": "00000000-0000-7000-8000-000000000000", '
BODIES: dict[str, bytes | str] = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "not UTF-8": b'{"name": "\xff"}',
    "NaN": UPLOAD + '"metrics": {"auc": NaN}}',
    "Infinity": UPLOAD + '"metrics": {"auc": -Infinity}}',
    "a number beyond every float": UPLOAD + '"metrics": {"auc": 1e999}}',
    "an integer of 5000 digits": UPLOAD + '"metrics": {"auc": ' + 5000 * "9" + "}}",
    "deep nesting": UPLOAD + '"params": {"a": ' + DEEP + "}}",
    "deep nesting in a shallow place": DEEP,
    "a NUL": UPLOAD + '"description": "\\u0000"}',
    "half a surrogate pair": UPLOAD + '"params": {"\\ud800": "\\ud800"}}',
    "a large integer": UPLOAD + '"params": {"a": 9223372036854775808}}',
    "a version beyond every integer": UPLOAD + '"parent_version": 9223372036854775808}',
    "a number as text": UPLOAD + '"metrics": {"auc": "0.5"}}',
    "a truth as a number": UPLOAD + '"parent_version": true}',
}


@pytest.mark.parametrize("body", list(BODIES))
def test_a_body_that_nobody_should_send_is_answered_with_4xx(client: TestClient, churn: World, body: str) -> None:
    for path in ("/api/v1/models/churn/versions", "/api/v1/models", "/api/v1/models/churn/promotions"):
        answer = client.post(path, content=BODIES[body], headers={"Content-Type": "application/json"})
        problem(answer, 400, answer.json()["type"].removeprefix("urn:fairlead:error:"))
    assert churn.models.get(churn.owner, "churn").last_version == 2


def test_a_body_of_ten_megabytes_is_refused(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(10):
            yield b" " * 2**20

    for body in (b" " * 10 * 2**20, chunks()):
        answer = client.post("/api/v1/models", content=body, headers={"Content-Type": "application/json"})
        assert problem(answer, 413, "body-too-large")["max_bytes"] == 8 * 2**20


PATHS = [
    "/api/v1/models/{}",
    "/api/v1/models/{}/versions",
    "/api/v1/models/churn/versions/{}",
    "/api/v1/models/churn/aliases/{}",
    "/api/v1/models/churn/history/{}",
    "/api/v1/environments/{}",
    "/api/v1/promotions/{}",
    "/api/v1/resolve?reference={}",
    "/api/v1/models?page_token={}",
    "/api/v1/models?page_size={}",
    "/api/v1/models?name_prefix={}",
    "/api/v1/promotions?state={}",
    "/api/v1/promotions?model={}",
    "/api/v1/audit?subject={}",
    "/api/v1/audit?action={}",
    "/api/v1/audit/verification?anchor={}",
    "/api/v1/ledger?kind={}",
    "/api/v1/ledger/summary?by={}",
]
ODD = ["%00", "%2F..%2F..%2Fetc", "..", "a%0Ab", "%ED%A0%80", "%FF", "9223372036854775808", "-1", "x" * 3000, "%25"]


@pytest.mark.parametrize("path", PATHS)
def test_an_odd_name_in_an_address_is_never_a_server_error(client: TestClient, churn: World, path: str) -> None:
    del churn
    for odd in ODD:
        answer = client.get(path.format(odd))
        assert answer.status_code < 500, (path, odd, answer.text)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == MEDIA_TYPE


def test_any_body_at_all_is_never_a_server_error(client: TestClient, churn: World) -> None:
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(unknown_id()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    )
    shapes = {
        "/models": ("name", "labels", "residency", "regions", "description", "tags"),
        "/models/churn/versions": ("upload_id", "metrics", "params", "signature", "tags", "parent_version", "flavor"),
        "/models/churn/promotions": ("version", "environment", "reason", "dry_run"),
        "/models/churn/environments/dev/rollback": ("to_version", "reason"),
        "/tokens": ("name", "principal", "scopes", "expires_in_seconds"),
    }

    @given(st.sampled_from(sorted(shapes)), st.data())
    def is_answered(path: str, data: st.DataObject) -> None:
        body = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(shapes[path], values)))
        headers = {"Content-Type": "application/json", "If-Match": '"0"'}
        answer = client.post(f"/api/v1{path}", content=json.dumps(body), headers=headers)
        assert answer.status_code < 500, answer.text

    is_answered()
    assert churn.models.get(churn.owner, "churn").last_version == 2


def test_openapi_documents_problems_for_every_route_and_nothing_that_is_not_answered(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert len(document["paths"]) > 20
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answers = operation["responses"]
            assert "422" not in answers, (path, method)
            for family in ("4XX", "5XX"):
                assert answers[family]["content"] == {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
            assert operation["security"] == [{"token": []}], (path, method)
