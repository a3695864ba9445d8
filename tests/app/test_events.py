"""The event stream of a real server: pages, streams that wake, go on where they stopped, and leave nothing open."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fairlead.core.errors import FairleadError, InvalidInput, PermissionDenied
from fairlead.registry.audit import Sealer, record
from fairlead.registry.identity import Reach
from fairlead.sdk.records import AuditEvent
from tests.records import migrated_database
from tests.running_server import RunningServer, running_server

STREAM = {"accept": "text/event-stream"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("events")
    with migrated_database(request, folder) as url, running_server(folder, url, event_streams=4) as running:
        yield running


def note(server: RunningServer, action: str, subject: str = "churn/1", **facts: Any) -> None:
    """Let something happen."""
    with server.service.database.write() as session:
        record(session, server.owner, server.service.clock, action=action, subject=subject, facts=facts)


def head(server: RunningServer) -> int:
    """The newest event's sequence, once all that happened is sealed."""
    Sealer(server.service.database, server.service.clock).seal_once()
    return server.service.streams._log.head(server.owner.workspace_id)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (what the streams see)


def take(events: Iterator[AuditEvent], count: int) -> list[tuple[int | None, str]]:
    return [(event.sequence, event.action) for event in itertools.islice(events, count)]


def test_pages_hold_sealed_events_in_order_and_a_filter_narrows_them(server: RunningServer) -> None:
    start = head(server)
    note(server, "version.ready", "churn/1")
    note(server, "model.promote", "churn/1", environment="production")
    note(server, "model.promote", "fraud/2", alias="staging")
    note(server, "token.create", "some-id")
    end = head(server)
    with server.connect() as client:
        found = [event for event in client.events.list(after=start) if event.sequence and event.sequence <= end]
        assert [event.sequence for event in found] == list(range(start + 1, end + 1))
        assert [event.action for event in found][:2] == ["version.ready", "model.promote"]

        def subjects(**wanted: Any) -> list[str]:
            return [event.subject for event in client.events.list(after=start, **wanted)]

        assert subjects(actions=["model.*"]) == ["churn/1", "fraud/2"]
        assert subjects(actions=["version.ready", "token.*"]) == ["churn/1", "some-id"]
        assert subjects(model="churn") == ["churn/1", "churn/1"]
        assert subjects(model="f*", environment="stag*") == ["fraud/2"]
        assert subjects(environment="production") == ["churn/1"]
        with pytest.raises(InvalidInput):
            subjects(actions=[""])


def test_a_page_says_where_the_next_one_begins_though_nothing_of_it_was_wanted(server: RunningServer) -> None:
    start = head(server)
    for _ in range(3):
        note(server, "noise.made")
    end = head(server)
    with server.connect() as client:
        answer = client._transport.get("/api/v1/events", after=start, action="nothing", limit=1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (the page itself)
        assert answer == {"items": [], "next_after": end, "is_last": True}
        answer = client._transport.get("/api/v1/events", after=start, action="noise.made", limit=2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (the page itself)
        assert (len(answer["items"]), answer["next_after"], answer["is_last"]) == (2, end - 1, False)  # pyright: ignore[reportArgumentType]  (JSON)


def test_a_stream_tells_what_happens_within_a_second_of_its_being_sealed(server: RunningServer) -> None:
    head(server)
    with server.connect() as client:
        stream = client.events.follow(actions=["wake.*"])
        threading.Timer(0.3, lambda: note(server, "wake.up")).start()
        began = time.monotonic()
        assert next(stream).action == "wake.up"
        assert time.monotonic() - began < 3


def test_a_stream_goes_on_where_it_stopped_and_tells_nothing_twice(server: RunningServer) -> None:
    start = head(server)
    for number in range(5):
        note(server, f"step.{number}")
    head(server)
    with server.connect() as client:
        first = take(client.events.follow(after=start), 2)
        rest = take(client.events.follow(after=first[-1][0]), 3)
    assert [action for _, action in first + rest] == [f"step.{number}" for number in range(5)]
    with httpx2.Client(base_url=server.url, headers={"authorization": f"Bearer {server.token}", **STREAM}) as http:
        # What the reader saw last goes before where it once began.
        with http.stream(
            "GET", "/api/v1/events", params={"after": start}, headers={"last-event-id": str(first[-1][0])}
        ) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.iter_lines()
            told = list(itertools.islice(lines, 6))
        assert told[:3] == ["retry: 2000", f"id: {first[-1][0]}", ""]
        assert told[3:5] == [f"id: {start + 3}", "event: step.2"]
        assert json.loads(told[5].removeprefix("data: "))["action"] == "step.2"
        assert http.get("/api/v1/events", headers={"last-event-id": "later"}).status_code == 400


def test_a_follower_connects_again_when_the_server_ends_its_stream(server: RunningServer) -> None:
    head(server)
    with server.connect() as client:
        stream = client.events.follow(actions=["again.*"])
        threading.Timer(0.2, lambda: note(server, "again.1")).start()
        assert next(stream).action == "again.1"
        server.service.streams.close()
        server.service.streams.is_closed = False
        note(server, "again.2")
        assert next(stream).action == "again.2"


def test_only_so_many_streams_are_open_and_those_that_are_left_count_no_more(server: RunningServer) -> None:
    with httpx2.Client(base_url=server.url, headers={"authorization": f"Bearer {server.token}", **STREAM}) as http:
        answers = [http.send(http.build_request("GET", "/api/v1/events"), stream=True) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [503]
        assert threading.active_count() < 60  # none of them holds a thread
        for answer in answers:
            answer.close()
        # A server finds out that a reader has left when it next tells it something.
        note(server, "any.thing")
        head(server)
        server.service.streams.wake()
        deadline = time.monotonic() + 5
        while (again := http.send(http.build_request("GET", "/api/v1/events"), stream=True)).status_code == 503:
            again.close()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        again.close()


def test_whoever_may_not_read_sees_no_events(server: RunningServer) -> None:
    token = server.service.tokens.create(server.owner, name="w", principal="w", scopes=["write"]).secret
    with server.connect(token) as client:
        with pytest.raises(PermissionDenied):
            list(client.events.list())
        with pytest.raises(PermissionDenied):
            next(client.events.follow())


def test_a_stream_ends_when_its_token_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.registry.api_events.HEARTBEAT_SECONDS", 0.1)
    with running_server(tmp_path, f"sqlite:///{tmp_path / 'fairlead.db'}") as server:
        issued = server.service.tokens.create(server.owner, name="r", principal="r", scopes=["read"])
        with server.connect(issued.secret) as client:
            stream = client.events.follow(actions=["never"])
            threading.Timer(0.3, lambda: server.service.tokens.revoke(server.owner, issued.token.id)).start()
            with pytest.raises(FairleadError) as caught:
                next(stream)
            assert caught.value.code == "unauthenticated"


def test_a_stream_that_is_never_idle_ends_with_its_token_and_goes_on_for_some_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.registry.api_events.HEARTBEAT_SECONDS", 0.2)
    with running_server(tmp_path, f"sqlite:///{tmp_path / 'fairlead.db'}") as server:
        reach = Reach(scopes=["read"], models=["churn"])
        issued = server.service.tokens.create(server.owner, name="r", principal="r", reach=reach)
        headers = {"authorization": f"Bearer {issued.secret}", **STREAM}
        with (
            httpx2.Client(base_url=server.url, headers=headers) as http,
            http.stream("GET", "/api/v1/events") as answer,
        ):
            lines = answer.iter_lines()
            for number in range(20):
                if number == 10:
                    server.service.tokens.revoke(server.owner, issued.token.id)
                note(server, "version.ready", f"churn/{number}")
                head(server)
                time.sleep(0.05)
            told = [line for line in lines if line.startswith("data: ")]
    assert 10 <= len(told) < 20  # it outlived a look at the token, and ended by itself before the last event
