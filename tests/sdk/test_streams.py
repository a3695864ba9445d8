"""Consumers of streams: brokers keep their promises, and every event is taken once."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
import redis

from fairlead.core.errors import (
    CodeRefused,
    FeatureRowsInvalid,
    InvalidInput,
    ServerUnavailable,
    StorageFull,
    Unavailable,
    UnknownRegion,
)
from fairlead.core.ports import StreamBroker, StreamMessage
from fairlead.sdk.pushes import PushedRows
from fairlead.sdk.redis_streams import RedisStream
from fairlead.sdk.streams import Consumed, ConsumerRules, StreamConsumer, consumer_of, read_message
from fairlead.testing.stream_broker_suite import StreamBrokerSuite
from fairlead.testing.streams import MemoryStream, MemoryTopic
from tests.servers.redis_server import RedisServer

arrow: Any = pa
RULES = ConsumerRules(batch=4, deliveries=3, claim_seconds=0.0, wait_seconds=0.01)


class TestMemoryStream(StreamBrokerSuite):
    """The stream in memory."""

    @pytest.fixture
    def topic(self) -> MemoryTopic:
        """An empty one."""
        return MemoryTopic()

    @pytest.fixture
    def connect(self, topic: MemoryTopic) -> Callable[[], StreamBroker]:
        """Consumers of it."""
        return lambda: MemoryStream(topic)

    @pytest.fixture
    def produce(self, topic: MemoryTopic) -> Callable[..., str]:
        """Its end."""
        return topic.add


class TestRedisStream(StreamBrokerSuite):
    """A real Redis server."""

    @pytest.fixture
    def topic(self) -> str:
        """A stream of its own."""
        return f"cells-{uuid4()}"

    @pytest.fixture
    def connect(self, redis_server: RedisServer, topic: str) -> Iterator[Callable[[], StreamBroker]]:
        """Consumers of it."""
        opened: list[RedisStream] = []

        def connect() -> StreamBroker:
            opened.append(RedisStream(redis_server.url, topic, group="fairlead"))
            return opened[-1]

        yield connect
        for each in opened:
            each.close()

    @pytest.fixture
    def produce(self, redis_server: RedisServer, topic: str) -> Iterator[Callable[..., str]]:
        """Its end."""
        with redis.Redis.from_url(redis_server.url) as client:

            def produce(payload: bytes, event_id: str | None = None) -> str:
                return add(client, topic, payload, event_id)

            yield produce

    def test_a_stream_that_was_deleted_is_read_again(
        self, connect: Callable[[], StreamBroker], produce: Callable[..., str], redis_server: RedisServer, topic: str
    ) -> None:
        """After one refusal, which may be repeated."""
        broker = connect()
        produce(b"one")
        broker.read(1, wait_seconds=0.01)
        with redis.Redis.from_url(redis_server.url) as client:
            client.delete(topic)
        produce(b"two")
        with pytest.raises(Unavailable):
            broker.read(1, wait_seconds=0.01)
        assert [each.payload for each in broker.read(1, wait_seconds=0.01)] == [b"two"]

    def test_a_server_that_is_away_may_be_asked_again(self) -> None:
        """And its address, which may hold a password, is not told."""
        broker = RedisStream("redis://:secret@127.0.0.1:1/0", "cells", group="fairlead")
        with pytest.raises(Unavailable) as caught:
            broker.read(1, wait_seconds=0.01)
        assert "secret" not in str(caught.value)

    def test_an_address_that_is_none_is_refused_and_not_told(self) -> None:
        """It may hold a password all the same."""
        with pytest.raises(InvalidInput) as caught:
            RedisStream("http://:secret@127.0.0.1/0", "cells", group="fairlead")
        assert "secret" not in str(caught.value)


def add(client: Any, topic: str, payload: bytes, event_id: str | None) -> str:
    fields: dict[str, Any] = {"value": payload} | ({} if event_id is None else {"event_id": event_id})
    return client.xadd(topic, fields).decode()


class Log:
    """What a server does with pushed rows, as far as a consumer sees it: each event once, and bad rows refused."""

    def __init__(self) -> None:
        self.events: dict[str, Mapping[str, Any]] = {}
        self.failures: list[Exception] = []
        self.is_lost = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[PushedRows]:
        if self.failures:
            raise self.failures.pop(0)
        if any("other" in row for row in rows):
            raise InvalidInput("No such column.")
        bad = [number for number, row in enumerate(rows) if row.get("radius") == "bad"]
        if bad:
            told: list[Any] = [{"row": number, "column": "radius", "reason": "is no FLOAT"} for number in bad[:2]]
            raise FeatureRowsInvalid("Refused.", rows=told, refused=len(bad))
        new = {row["event_id"]: row for row in rows if row["event_id"] not in self.events}
        self.events |= new
        if self.is_lost:
            self.is_lost = False
            raise Unavailable("The answer was lost.")
        return [
            PushedRows(view="cells", region="r", accepted=len(new), duplicates=len(rows) - len(new), is_online=True)
        ]


@pytest.fixture
def topic() -> MemoryTopic:
    return MemoryTopic()


@pytest.fixture
def log() -> Log:
    return Log()


def consume(topic: MemoryTopic, log: Log, rules: ConsumerRules = RULES) -> Consumed:
    return StreamConsumer(log, MemoryStream(topic), rules=rules).run(threading.Event(), until_empty=True)


def payload(number: int, radius: Any = 1.0, **more: Any) -> bytes:
    return json.dumps({"patient_id": number, "radius": radius, **more}).encode()


def test_messages_are_acknowledged_when_their_rows_are_durable(topic: MemoryTopic, log: Log) -> None:
    for number in range(10):
        topic.add(payload(number))
    done = consume(topic, log)
    assert (done.messages, done.accepted, done.duplicates, done.buried) == (10, 10, 0, 0)
    assert [row["patient_id"] for row in log.events.values()] == list(range(10))
    assert not topic.pending


def test_an_event_is_named_by_its_row_or_its_message_or_its_position(topic: MemoryTopic, log: Log) -> None:
    topic.add(payload(1, event_id="row"), event_id="message")
    topic.add(payload(2), event_id="message")
    topic.add(payload(3))
    topic.add(json.dumps([{"patient_id": 4}, {"patient_id": 5}]).encode(), event_id="two")
    consume(topic, log)
    third = hashlib.sha256(payload(3)).hexdigest()[:32]
    assert list(log.events) == ["row", "message", f"3/{third}", "two/0", "two/1"]


def test_messages_of_two_brokers_at_one_position_are_two_events(log: Log) -> None:
    for number in range(2):
        topic = MemoryTopic()
        topic.add(payload(number))
        consume(topic, log)
    assert [row["patient_id"] for row in log.events.values()] == [0, 1]


def test_arrow_messages_are_read_as_tables(topic: MemoryTopic, log: Log) -> None:
    sink = io.BytesIO()
    table = arrow.table({"patient_id": [1, 2], "radius": [0.5, None]})
    with arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    topic.add(sink.getvalue())
    consume(topic, log)
    assert [(row["patient_id"], row["radius"]) for row in log.events.values()] == [(1, 0.5), (2, None)]


def test_what_a_killed_consumer_pushed_and_did_not_acknowledge_counts_once(topic: MemoryTopic, log: Log) -> None:
    for number in range(3):
        topic.add(payload(number))
    dead = MemoryStream(topic)
    log([dict(row) for message in dead.read(2, wait_seconds=0) for row in read_message(message)])
    done = consume(topic, log)
    assert (done.messages, done.accepted, done.duplicates) == (3, 1, 2)
    assert len(log.events) == 3
    assert not topic.pending


def test_a_lost_answer_is_asked_for_again_by_the_same_consumer(
    topic: MemoryTopic, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.sdk.streams._RETRY_SECONDS", 0.0)
    topic.add(payload(1))
    log.is_lost = True
    done = consume(topic, log)
    assert (done.accepted, done.duplicates, len(log.events)) == (0, 1, 1)


def test_being_away_for_long_makes_no_message_a_bad_one(
    topic: MemoryTopic, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.sdk.streams._RETRY_SECONDS", 0.0)
    topic.add(payload(1))
    log.failures = [Unavailable("Away.") for _ in range(20)]
    assert consume(topic, log).buried == 0
    assert len(log.events) == 1


def test_poison_is_put_aside_with_the_reason_and_holds_up_nothing(topic: MemoryTopic, log: Log) -> None:
    topic.add(b"{")
    topic.add(b"\xff\xff\xff\xff nothing")
    topic.add(b'"text"')
    for number, radius in enumerate([1.0, "bad", 2.0, "bad", "bad", 3.0]):
        topic.add(payload(number, radius))
    topic.add(payload(6, other=1))
    topic.add(payload(7))
    done = consume(topic, log, ConsumerRules(batch=100, claim_seconds=60, wait_seconds=0.01))
    assert (done.messages, done.accepted, done.buried) == (11, 4, 7)
    assert [row["patient_id"] for row in log.events.values()] == [0, 2, 5, 7]
    assert [reason for _, reason in topic.dead][:4] == [
        "The message is neither JSON nor an Arrow IPC stream.",
        "The message is no whole Arrow IPC stream.",
        "The message is no object of JSON, nor a list of them.",
        "The row cannot be taken: 'radius' is no FLOAT.",
    ]
    assert not topic.pending


def test_a_message_that_kills_its_consumers_is_put_aside(topic: MemoryTopic, log: Log) -> None:
    topic.add(payload(1))
    dead = MemoryStream(topic)
    dead.read(1, wait_seconds=0)
    for _ in range(2):
        dead.claim(1, idle_seconds=0)
    assert consume(topic, log).buried == 1
    assert not log.events


def test_no_more_is_held_than_a_batch(topic: MemoryTopic) -> None:
    for number in range(20):
        topic.add(payload(number))
    most: list[int] = []

    def push(rows: Sequence[Mapping[str, Any]]) -> list[PushedRows]:
        most.append(len(topic.pending))
        return [PushedRows(view="cells", region="r", accepted=len(rows), duplicates=0, is_online=True)]

    StreamConsumer(push, MemoryStream(topic), rules=RULES).run(threading.Event(), until_empty=True)
    assert max(most) == RULES.batch


def test_a_stream_whose_rows_go_through_a_function_is_refused(topic: MemoryTopic) -> None:
    class Described:
        def push_source(self, source: str) -> dict[str, Any]:
            return {"name": source, "topic": "t", "transformed": ["cells_by_hour"]}

    features: Any = Described()
    with pytest.raises(CodeRefused, match="process of your own"):
        consumer_of(features, "m", region=None, connect=lambda _topic: MemoryStream(topic), rules=RULES)


def test_a_server_that_comes_back_at_another_address_is_found_again(
    topic: MemoryTopic, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.sdk.streams._RETRY_SECONDS", 0.0)

    class Features:
        def __init__(self, *, is_gone: bool = False) -> None:
            self.is_gone = is_gone

        def push_source(self, source: str) -> dict[str, Any]:
            return {"name": source, "topic": "t", "transformed": []}

        def push(self, _source: str, rows: Sequence[Mapping[str, Any]], **_: Any) -> list[PushedRows]:
            if self.is_gone:
                raise ServerUnavailable("Gone.")
            return log(rows)

    topic.add(payload(1))
    gone: Any = Features(is_gone=True)
    again: Any = Features()
    consumer = consumer_of(
        gone, "m", region=None, connect=lambda _topic: MemoryStream(topic), rules=RULES, reconnect=lambda: again
    )
    assert consumer.run(threading.Event(), until_empty=True).accepted == 1


def test_a_position_names_the_rows_of_a_message_that_says_nothing() -> None:
    message = StreamMessage(position="7-0", payload=b'[{"a": 1}, {"a": 2, "event_id": "x"}]')
    name = "7-0/" + hashlib.sha256(message.payload).hexdigest()[:32]
    assert read_message(message) == [{"a": 1, "event_id": f"{name}/0"}, {"a": 2, "event_id": "x"}]


def test_what_was_put_aside_before_the_server_went_away_is_put_aside_once(
    topic: MemoryTopic, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.sdk.streams._RETRY_SECONDS", 0.0)
    topic.add(b"{")
    topic.add(payload(1))
    log.failures = [Unavailable("Away."), StorageFull("No space.")]
    done = consume(topic, log)
    assert (done.messages, done.accepted, done.buried, len(topic.dead), len(topic.pending)) == (2, 1, 1, 1, 0)


def test_a_region_that_is_refused_stops_the_consumer_and_puts_nothing_aside(topic: MemoryTopic, log: Log) -> None:
    topic.add(payload(1))
    log.failures = [UnknownRegion("No such region.", region="mars")]
    with pytest.raises(UnknownRegion):
        consume(topic, log)
    assert (len(topic.dead), len(topic.pending)) == (0, 1)
