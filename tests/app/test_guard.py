"""Which requests reach the application at all, and how the server knows that nobody calls."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from fairlead.app.guard import Activity, ActivityMiddleware, HostGuard


def client(trusted: Sequence[str] = (), activity: Activity | None = None) -> TestClient:
    known = activity or Activity()

    def answer(_: Request) -> Response:
        return JSONResponse({"idle": known.idle_seconds})

    app = Starlette(routes=[Route("/things", answer, methods=["GET", "POST"]), Route("/healthz", answer)])
    app.add_middleware(ActivityMiddleware, activity=known)
    app.add_middleware(HostGuard, trusted_hosts=trusted)
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8470", "127.8.8.8", "localhost", "LocalHost:80", "[::1]", "[::1]:8470"]
)
def test_names_of_this_machine_pass(host: str) -> None:
    assert client().get("/things", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:80", "10.0.0.1",
        "0.0.0.0", "[::]", "[::ffff:10.0.0.1]", "127.0.0.1@evil.example", "evil.example#127.0.0.1", "[", "127.1",
        "localhost, evil.example",
    ],
)  # fmt: skip
def test_other_names_are_refused_whatever_they_look_like(host: str) -> None:
    answer = client().post("/things", headers={"host": host})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:fairlead:error:permission-denied"
    assert "FAIRLEAD_TRUSTED_HOSTS" in answer.json()["hint"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "file://", "http://localhost.evil.example"])
def test_pages_of_other_hosts_are_refused_also_at_our_address(origin: str) -> None:
    assert client().post("/things", headers={"origin": origin}).status_code == 403


def test_configured_names_pass_in_any_case_and_only_they() -> None:
    trusted = client(["Fairlead.Example"])
    for headers in ({"host": "fairlead.example:443"}, {"host": "FAIRLEAD.example"}):
        assert trusted.get("/things", headers=headers).status_code == 200
    assert trusted.get("/things", headers={"origin": "https://fairlead.example"}).status_code == 200
    assert trusted.get("/things", headers={"host": "sub.fairlead.example"}).status_code == 403


def test_idleness_ends_with_every_call_but_a_health_check() -> None:
    activity = Activity()
    began = activity.idle_seconds
    calls = client(activity=activity)
    assert calls.get("/things").json()["idle"] == 0.0, "while it is answered, nobody is idle"
    after = activity.idle_seconds
    assert calls.get("/healthz").json()["idle"] > after >= 0
    assert began >= 0
