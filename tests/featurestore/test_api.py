"""The routes of features, over HTTP."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fairlead.app.problem_handlers import install_problem_handlers
from fairlead.core.errors import Unauthenticated
from fairlead.registry.access import install_access, undeclared_routes
from fairlead.registry.identity import Caller
from tests.featurestore.feature_fleet import FeatureFleet, day, entity_rows, open_feature_fleet
from tests.fleet import ADMIN, REGIONS
from tests.records import WORKSPACE

arrow: Any = pa
parquet: Any = pq
EU = REGIONS["eemshaven"]
API = "/api/v1/features"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FeatureFleet]:
    with open_feature_fleet(tmp_path) as fleet:
        fleet.cells([(1, 0, 1.0), (2, 2, 2.5)])
        fleet.genes([(1, 1, "a")])
        yield fleet


def make_app(world: FeatureFleet) -> FastAPI:
    callers = {
        "admin": ADMIN,
        "reader": Caller(workspace_id=WORKSPACE, principal="rex", scopes=frozenset({"read"})),
        "stranger": Caller(workspace_id="other", principal="eve", scopes=frozenset({"admin"})),
    }

    def authenticate(secret: str) -> Caller:
        if secret not in callers:
            raise Unauthenticated("The token is not known here.")
        return callers[secret]

    app = FastAPI()
    install_access(app, authenticate)
    install_problem_handlers(app)
    for router in world.store.routers():
        app.include_router(router, prefix="/api/v1")
    return app


@pytest.fixture
def http(world: FeatureFleet) -> Iterator[TestClient]:
    with TestClient(make_app(world), headers={"authorization": "Bearer admin"}) as client:
        yield client


def apply_all(world: FeatureFleet, http: TestClient, **extra: Any) -> Any:
    objects = [{"kind": each.kind, "spec": dict(each.spec)} for each in world.definitions()]
    return http.post(f"{API}/apply", json={"objects": objects, **extra}).json()


def ipc(table: Any) -> bytes:
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_the_whole_path_over_http(world: FeatureFleet, http: TestClient) -> None:
    assert apply_all(world, http, dry_run=True)["applied"] is False
    assert http.get(f"{API}/services").json()["items"] == []
    changes = apply_all(world, http)["changes"]
    assert [(each["name"], each["change"], each["version"]) for each in changes] == [
        ("patient", "added", 1),
        ("cells", "added", 1),
        ("genes", "added", 1),
        ("diagnosis", "added", 1),
    ]
    assert [each["residency"] for each in http.get(f"{API}/views").json()["items"]] == ["unrestricted", "eu"]

    once = {"Idempotency-Key": "first"}
    taken = http.post(f"{API}/services/diagnosis/snapshots", json={"as_of": day(5).isoformat()}, headers=once)
    again = http.post(f"{API}/services/diagnosis/snapshots", json={"as_of": day(5).isoformat()}, headers=once)
    assert (taken.status_code, taken.json()["state"], again.json()) == (202, "PENDING", taken.json())
    world.run()
    snapshot = http.get(f"{API}/snapshots/{taken.json()['id']}").json()
    assert (snapshot["state"], snapshot["error"]) == ("READY", None)
    assert http.get(f"{API}/snapshots", params={"service": "diagnosis"}).json()["items"] == [snapshot]

    answer = http.post(
        f"{API}/historical",
        params={"snapshot": snapshot["digest"], "service": "diagnosis", "region": EU},
        content=ipc(entity_rows([(1, 4), (2, 1)])),
    )
    assert answer.headers["x-fairlead-snapshot"] == snapshot["digest"]
    assert arrow.ipc.open_stream(answer.content).read_all().column("radius").to_pylist() == [1.0, None]

    states = http.post(f"{API}/services/diagnosis/materialize", json={})
    assert (states.status_code, {each["state"] for each in states.json()["items"]}) == (202, {"PENDING"})
    world.run()
    online = http.get(f"{API}/services/diagnosis/online").json()["items"]
    assert {(each["state"], each["snapshot"]) for each in online} == {("READY", snapshot["digest"])}
    assert all(Path(each["path"]).is_file() for each in online)
    as_reader = http.get(f"{API}/services/diagnosis/online", headers={"authorization": "Bearer reader"}).json()
    assert {each["path"] for each in as_reader["items"]} == {None}

    asked = {"service": "diagnosis", "region": EU, "entities": {"patient_id": [2]}}
    read = http.post(f"{API}/online", json=asked).json()
    assert (read["region"], read["snapshot"]) == (EU, snapshot["digest"])
    assert read["rows"] == [
        {"patient_id": 2, "_status": {"cells": "present", "genes": "not_found"}, "radius": 2.5, "marker": None}
    ]


def test_what_is_wrong_with_a_request_is_said_as_a_problem(world: FeatureFleet, http: TestClient) -> None:
    apply_all(world, http)
    cases: list[tuple[Any, int, str]] = [
        (
            http.post(f"{API}/apply", json={"objects": [{"kind": "Model", "spec": {}}]}),
            400,
            "feature-definition-invalid",
        ),
        (http.get(f"{API}/services/nothing"), 404, "feature-service-not-found"),
        (http.post(f"{API}/services/nothing/snapshots", json={}), 404, "feature-service-not-found"),
        (http.get(f"{API}/snapshots/sha256:12"), 400, "invalid-digest"),
        (http.post(f"{API}/historical", params={"service": "diagnosis"}, content=b"no arrow"), 400, "invalid-input"),
        (http.post(f"{API}/historical", content=ipc(entity_rows([(1, 4)]))), 400, "invalid-input"),
        (
            http.post(f"{API}/historical", params={"service": "diagnosis"}, content=ipc(entity_rows([(1, 4)]))),
            409,
            "not-ready",
        ),
        (http.post(f"{API}/online", json={"service": "nothing", "entities": {}}), 404, "feature-service-not-found"),
        (http.post(f"{API}/online", json={"service": "diagnosis", "entities": {}}), 409, "not-ready"),
        (
            http.post(f"{API}/online", json={"service": "diagnosis", "region": "aws:moon", "entities": {}}),
            400,
            "unknown-region",
        ),
    ]
    for answer, status, code in cases:
        assert (answer.status_code, answer.json()["type"]) == (status, f"urn:fairlead:error:{code}"), answer.text
        assert answer.json()["detail"]


def test_every_route_says_who_may_call_it(world: FeatureFleet, http: TestClient) -> None:
    assert undeclared_routes(make_app(world)) == []
    body: dict[str, Any] = {"objects": []}
    assert http.post(f"{API}/apply", json=body, headers={"authorization": "Bearer reader"}).status_code == 403
    assert http.post(f"{API}/apply", json=body, headers={"authorization": "Bearer nobody"}).status_code == 401


def test_another_workspace_sees_nothing(world: FeatureFleet, http: TestClient) -> None:
    apply_all(world, http)
    stranger = {"authorization": "Bearer stranger"}
    assert http.get(f"{API}/views", headers=stranger).json()["items"] == []
    assert http.get(f"{API}/services/diagnosis", headers=stranger).status_code == 404


def test_a_view_of_a_snapshot_is_restored_as_parquet_where_it_may_be(world: FeatureFleet, http: TestClient) -> None:
    apply_all(world, http)
    snapshot = world.snapshot()
    shown = http.get(f"{API}/snapshots/{snapshot.digest}").json()
    assert [(each["region"], each["view"]) for each in shown["lacks"]] == [(REGIONS["virginia"], "genes")]
    assert http.get(f"{API}/snapshots", params={"until": "2026-02-19T00:00:00Z"}).json()["items"] == []
    path = f"{API}/snapshots/{snapshot.digest}/views"
    answer = http.get(f"{path}/genes/rows", params={"region": EU})
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    assert answer.headers["x-fairlead-snapshot"] == snapshot.digest
    (row,) = parquet.read_table(io.BytesIO(answer.content)).to_pylist()
    assert row == {"patient_id": 1, "marker": "a", "event_timestamp": day(1)}
    assert http.get(f"{path}/genes/rows").json()["type"].endswith("residency-violation")
    assert http.get(f"{path}/nothing/rows").status_code == 404
    stranger = {"authorization": "Bearer stranger"}
    assert http.get(f"{path}/cells/rows", headers=stranger).status_code == 404
