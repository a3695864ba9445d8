"""Calls are repeated where that is harmless and only there, and errors arrive as what they were."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import stamina

from fairlead.core.errors import (
    CorruptPack,
    FairleadError,
    InvalidInput,
    ModelNotFound,
    ServerUnavailable,
    StaleRevision,
    Unavailable,
)
from fairlead.core.problems import MEDIA_TYPE, to_problem
from fairlead.sdk.transport import Transport
from tests.sdk.scripted_server import Answer, ScriptedServer, scripted_server

DONE = Answer(body={"done": True})
HANG_UP = Answer(status=0)


def problem(error: FairleadError) -> Answer:
    return Answer(status=error.status, body=to_problem(error), content_type=MEDIA_TYPE)


OVERLOADED = problem(Unavailable("The database does not answer."))


@pytest.fixture(autouse=True)
def _no_pauses() -> Iterator[None]:
    """Tries follow at once, and as many as the transport makes."""
    with stamina.set_testing(True, attempts=4, cap=True):
        yield


@contextlib.contextmanager
def talking(*answers: Answer, token: str | None = "secret") -> Generator[tuple[Transport, ScriptedServer]]:
    with scripted_server(answers) as server:
        transport = Transport(server.url, token, timeout_seconds=5)
        try:
            yield transport, server
        finally:
            transport.close()


@pytest.mark.parametrize("trouble", [OVERLOADED, HANG_UP, Answer(status=502, body=b"<h1>Bad gateway</h1>")])
def test_a_creating_call_is_repeated_under_the_same_idempotency_key(trouble: Answer) -> None:
    with talking(trouble, trouble, DONE) as (transport, server):
        assert transport.post("/things", {"name": "x"}) == {"done": True}
    assert len(server.asked) == 3
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1
    assert {asked.body for asked in server.asked} == {b'{"name": "x"}'}


def test_two_creating_calls_have_two_idempotency_keys() -> None:
    with talking(DONE) as (transport, server):
        transport.post("/things")
        transport.post("/things")
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 2


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("trouble", [OVERLOADED, HANG_UP])
def test_reading_replacing_and_deleting_are_repeated(method: str, trouble: Answer) -> None:
    with talking(trouble, DONE) as (transport, server):
        assert transport.request(method, "/things/x") == {"done": True}
    assert len(server.asked) == 2


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("trouble", [OVERLOADED, HANG_UP])
def test_a_move_is_not_repeated_after_it_may_have_reached_the_server(method: str, trouble: Answer) -> None:
    with talking(trouble, DONE) as (transport, server), pytest.raises(Unavailable):
        transport.request(method, "/moves", body={}, if_match=3)
    assert [asked.headers["if-match"] for asked in server.asked] == ['"3"']


def test_after_a_lost_answer_to_a_move_the_hint_is_to_look_first() -> None:
    with talking(HANG_UP) as (transport, _), pytest.raises(ServerUnavailable) as lost:
        transport.post("/moves", if_match=3)
    assert "may have been done" in str(lost.value.hint)


def test_a_decision_is_not_repeated_after_it_may_have_reached_the_server() -> None:
    with talking(HANG_UP, DONE) as (transport, server), pytest.raises(ServerUnavailable):
        transport.post("/promotions/1/approve", {}, is_repeatable=False)
    assert len(server.asked) == 1


@pytest.mark.parametrize("error", [ModelNotFound("There is no 'x'.", hint="Run: y", name="x"), CorruptPack("Torn.")])
def test_a_problem_becomes_the_error_that_it_was_and_is_not_repeated(error: FairleadError) -> None:
    with talking(problem(error), DONE) as (transport, server), pytest.raises(type(error)) as raised:
        transport.get("/things/x")
    assert (raised.value.detail, raised.value.hint, raised.value.attributes) == (
        *(error.detail, error.hint),
        error.attributes,
    )
    assert len(server.asked) == 1


def test_a_stale_revision_says_what_was_expected_and_what_is() -> None:
    stale = StaleRevision("Someone moved it first.", expected=1, actual=2)
    with talking(problem(stale)) as (transport, _), pytest.raises(StaleRevision) as raised:
        transport.post("/moves", if_match=1)
    assert raised.value.attributes == {"expected": 1, "actual": 2}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=404, body=b"<html>nothing here</html>", content_type="text/html"),
        Answer(status=500, body=b"", content_type="text/plain"),
        Answer(status=200, body=b"<html>welcome</html>", content_type="text/html"),
        Answer(status=200, body=["a", "list"]),
        Answer(status=307, body=b"moved", headers={"location": "http://127.0.0.1:1/"}),
        Answer(status=200, body=b"not gzip", headers={"content-encoding": "gzip"}),
    ],
)
def test_what_is_no_fairlead_server_is_named_as_such(answer: Answer) -> None:
    with talking(answer) as (transport, server), pytest.raises(ServerUnavailable) as raised:
        transport.get("/things")
    assert raised.value.hint
    assert len(server.asked) == 1


def test_a_server_that_is_gone_is_tried_again_and_then_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        transport = Transport(url, None, timeout_seconds=5)
        with pytest.raises(ServerUnavailable) as raised:
            transport.post("/moves", if_match=1)
        transport.close()
    assert url in raised.value.detail
    assert "FAIRLEAD_URL" in str(raised.value.hint)


def test_a_list_is_read_page_by_page_with_the_same_question() -> None:
    pages = [
        Answer(body={"items": [{"n": 1}, {"n": 2}], "next_page_token": "t/2"}),
        Answer(body={"items": [{"n": 3}], "next_page_token": None}),
    ]
    with talking(*pages) as (transport, server):
        assert [item["n"] for item in transport.items("/things", prefix="a b", is_new=True, limit=None)] == [1, 2, 3]
    assert [asked.path for asked in server.asked] == [
        "/things?prefix=a+b&is_new=true",
        "/things?prefix=a+b&is_new=true&page_token=t%2F2",
    ]


def test_an_etag_becomes_the_revision_where_the_answer_has_none() -> None:
    tagged = {"etag": '"7"'}
    answers = [Answer(headers=tagged), Answer(body={"revision": 3}, headers=tagged), Answer(headers={"etag": '"abc"'})]
    with talking(*answers) as (transport, _):
        assert [transport.get("/x").get("revision") for _ in answers] == [7, 3, None]


def test_an_empty_answer_is_an_empty_object() -> None:
    with talking(Answer(status=200, body=b"")) as (transport, _):
        assert transport.request("DELETE", "/x") == {}


def test_the_token_is_sent_to_the_server() -> None:
    with talking(DONE) as (transport, server):
        transport.get("/x")
    assert server.asked[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, "\ud800"])
def test_what_has_no_json_form_is_refused_before_anything_is_sent(value: Any) -> None:
    with talking(DONE) as (transport, server), pytest.raises(InvalidInput):
        transport.post("/x", {"value": value})
    assert server.asked == []
