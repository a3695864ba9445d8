from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fairlead.app.problem_handlers import install_problem_handlers
from fairlead.registry.access import install_access, undeclared_routes
from fairlead.registry.identity import Caller
from fairlead.serving.api import serving_routers
from fairlead.serving.api_bundles import bundles_router
from fairlead.serving.bundle_tests import BundleTests
from tests.fleet import ADMIN, open_fleet
from tests.serving.models import model_files
from tests.serving.platform import EU_WEST, US, Platform

READER = Caller(workspace_id=ADMIN.workspace_id, principal="eve", scopes=frozenset({"read"}))
BODY = {"model": "churn", "version": 1, "regions": [US, EU_WEST]}


@pytest.fixture
def app_and_platform(tmp_path: Path) -> Iterator[tuple[FastAPI, Platform]]:
    with open_fleet(tmp_path) as fleet:
        platform = Platform(fleet=fleet)
        platform.create_model("churn")
        platform.register("churn", model_files(1.0, 1.0, 1.0))
        app = FastAPI()
        install_problem_handlers(app)
        install_access(app, lambda secret: ADMIN if secret == "admin" else READER)
        bundles = bundles_router(platform.bundles, BundleTests(fleet.database, fleet.clock))
        routers = serving_routers(platform.placements, platform.deployments, platform.drifts, platform.replanning)
        for router in (*routers, bundles):
            app.include_router(router, prefix="/api/v1")
        yield app, platform


def client_of(app: FastAPI, token: str = "admin") -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1", headers={"authorization": f"Bearer {token}"})


def test_every_route_says_who_may_call_it(app_and_platform: tuple[FastAPI, Platform]) -> None:
    assert undeclared_routes(app_and_platform[0]) == []


def test_a_deployment_is_planned_applied_shown_and_deleted(app_and_platform: tuple[FastAPI, Platform]) -> None:
    app, platform = app_and_platform
    client = client_of(app)
    plan = client.post("/api/v1/deployments", json=BODY | {"dry_run": True})
    assert plan.status_code == 200
    assert [step["action"] for step in plan.json()["steps"]] == ["start", "start"]
    assert client.get("/api/v1/deployments/churn").status_code == 404

    headers = {"idempotency-key": "once"}
    applied = client.post("/api/v1/deployments", json=BODY, headers=headers)
    assert applied.status_code == 202
    assert client.post("/api/v1/deployments", json=BODY, headers=headers).json() == applied.json()
    platform.settle()
    shown = client.get("/api/v1/deployments/churn").json()
    assert [region["state"] for region in shown["regions"]] == ["RUNNING", "RUNNING"]
    assert shown["regions"][0]["updated_at"].endswith("Z")
    assert client.get("/api/v1/deployments").json() == {"items": [shown], "next_page_token": None}

    assert client.delete("/api/v1/deployments/churn").json()["state"] == "DELETING"
    platform.settle()
    assert client.get("/api/v1/deployments/churn").status_code == 404


def test_a_bundle_is_asked_for_and_shown(app_and_platform: tuple[FastAPI, Platform]) -> None:
    app, platform = app_and_platform
    client = client_of(app)
    asked = client.post("/api/v1/bundles", json={"reference": "churn/1"})
    assert asked.status_code == 202
    platform.settle()
    shown = client.get(f"/api/v1/bundles/{asked.json()['id']}").json()
    assert shown["state"] == "READY"
    assert client.get("/api/v1/bundles", params={"reference": "churn/1"}).json()["items"] == [shown]


def test_a_placement_is_solved_kept_and_shown(app_and_platform: tuple[FastAPI, Platform]) -> None:
    client = client_of(app_and_platform[0])
    request = {
        "reference": "churn/1",
        "demand": [{"area": "paris", "requests_per_second": 5, "latency_limit_ms": 60}],
        "resources": {"vcpus": 1, "memory_gib": 2, "requests_per_second_per_replica": 50},
    }
    solved = client.post("/api/v1/placements", json=request)
    assert solved.status_code == 201, solved.text
    assert client.get(f"/api/v1/placements/{solved.json()['id']}").json() == solved.json()
    assert client.post("/api/v1/placements", json=request | {"demand": []}).json()["pointer"] == "/demand"
    assert client.get("/api/v1/placements/nothing").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/v1/deployments", BODY),
        ("DELETE", "/api/v1/deployments/churn", None),
        ("POST", "/api/v1/bundles", {"reference": "churn/1"}),
    ],
)
def test_a_reader_changes_nothing(
    app_and_platform: tuple[FastAPI, Platform], method: str, path: str, body: dict[str, Any] | None
) -> None:
    answer = client_of(app_and_platform[0], "reader").request(method, path, json=body)
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:fairlead:error:permission-denied"
