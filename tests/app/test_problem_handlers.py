from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from fairlead.app.problem_handlers import install_problem_handlers
from fairlead.core.errors import NotReady, PartialFailure, error_classes
from fairlead.core.problems import MEDIA_TYPE


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI()
    install_problem_handlers(made, max_body_bytes=20 * 2**20)

    @made.get("/broken")
    def break_() -> None:
        raise RuntimeError("SELECT secret FROM /var/lib/fairlead")

    @made.get("/refused")
    def refuse() -> None:
        raise NotReady("churn/1 is PENDING.", hint="Wait for it.", state="PENDING", status="not ours to say")

    @made.get("/errors/{code}")
    def fail(code: str) -> None:
        raise error_classes()[code]("What happened.", hint="What to do.")

    @made.post("/bytes")
    async def count(request: Request) -> int:
        return len(await request.body())

    return made


def test_an_error_of_ours_carries_its_attributes_and_they_shadow_nothing(app: FastAPI) -> None:
    answer = TestClient(app).get("/refused")
    assert answer.status_code == 409
    assert answer.json() == {
        "type": "urn:fairlead:error:not-ready",
        "title": NotReady.title,
        "status": 409,
        "detail": "churn/1 is PENDING.",
        "hint": "Wait for it.",
        "state": "PENDING",
    }


@pytest.mark.parametrize("code", sorted(error_classes().keys() - {PartialFailure.code}))
def test_every_error_of_the_tree_has_its_status(app: FastAPI, code: str) -> None:
    answer = TestClient(app, raise_server_exceptions=False).get(f"/errors/{code}")
    assert answer.status_code == error_classes()[code].status
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.json()["type"] == f"urn:fairlead:error:{code}"


def test_an_error_that_nobody_expected_leaks_nothing_and_is_logged_under_its_incident(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = TestClient(app, raise_server_exceptions=False).get("/broken")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.json()["type"] == "urn:fairlead:error:internal"
    assert "SELECT" not in answer.text
    assert "/var" not in answer.text
    assert answer.json()["incident"] in caplog.text
    assert "SELECT secret" in caplog.text


def test_an_unknown_path_or_method_is_a_problem_too(app: FastAPI) -> None:
    client = TestClient(app)
    unknown, method = client.get("/nowhere"), client.post("/refused")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:fairlead:error:not-found")
    assert (method.status_code, method.json()["type"]) == (405, "urn:fairlead:error:method-not-allowed")
    assert method.headers["allow"] == "GET"


def test_a_binary_body_may_be_larger_than_json_and_has_a_limit_too(app: FastAPI) -> None:
    client = TestClient(app)
    body = bytes(9 * 2**20)
    arrow = {"content-type": "application/vnd.apache.arrow.stream"}
    assert client.post("/bytes", content=body, headers=arrow).json() == len(body)
    assert client.post("/bytes", content=body).status_code == 413
    too_large = client.post("/bytes", content=bytes(21 * 2**20), headers=arrow)
    assert (too_large.status_code, too_large.json()["max_bytes"]) == (413, 20 * 2**20)


def test_a_body_that_hides_its_size_is_counted_as_it_comes(app: FastAPI) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(21):
            yield bytes(2**20)

    client = TestClient(app)
    arrow = {"content-type": "application/vnd.apache.arrow.stream"}
    answer = client.post("/bytes", content=parts(), headers=arrow)
    assert (answer.status_code, answer.json()["max_bytes"]) == (413, 20 * 2**20)
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert client.post("/bytes", content=parts()).status_code == 413
