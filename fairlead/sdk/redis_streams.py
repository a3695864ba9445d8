"""Redis Streams as a broker: a topic is a stream, whose entries hold a message in the field `value`.

An entry may name its event in the field `event_id`. What is put aside lies in the stream `{topic}:dead`, with the
message, its position and the reason.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from fairlead.core.errors import InvalidInput, MissingExtra, Unavailable
from fairlead.core.ids import new_row_id
from fairlead.core.ports import StreamLag, StreamMessage

VALUE, EVENT = b"value", b"event_id"
DEAD_SUFFIX = ":dead"
_OLDEST = "0"
_Entry = tuple[bytes, dict[bytes, bytes]]


class RedisStream:
    """One stream of a Redis server, as a consumer of a group (`StreamBroker`)."""

    def __init__(self, url: str, topic: str, *, group: str, consumer: str | None = None) -> None:
        """`url` may hold a password; it is shown nowhere. The group begins with the stream's oldest entry."""
        try:
            self._redis: Any = import_module("redis")
        except ModuleNotFoundError as error:
            raise MissingExtra(
                "Redis Streams need the redis library.", hint="Run: pip install 'fairlead[redis]'"
            ) from error
        try:
            self._client: Any = self._redis.Redis.from_url(url, socket_connect_timeout=5, protocol=2)
        except ValueError:
            # Its text may hold the password.
            raise InvalidInput(
                "The address of the broker is none of a Redis server.", hint="Write redis://HOST:6379/0."
            ) from None
        self._topic = topic
        self._group = group
        self._consumer = consumer or f"{socket.gethostname()}/{os.getpid()}/{new_row_id()[-8:]}"
        self._is_joined = False

    def read(self, count: int, *, wait_seconds: float) -> Sequence[StreamMessage]:
        """As `StreamBroker.read`."""
        with self._talking():
            # Redis takes 0 for ever.
            block = max(1, round(wait_seconds * 1000))
            found = self._client.xreadgroup(self._group, self._consumer, {self._topic: ">"}, count=count, block=block)
            entries: list[_Entry] = found[0][1] if found else []
        return [_message(position, fields) for position, fields in entries]

    def claim(self, count: int, *, idle_seconds: float) -> Sequence[StreamMessage]:
        """As `StreamBroker.claim`."""
        with self._talking():
            idle, start, entries = round(idle_seconds * 1000), b"0-0", list[_Entry]()
            while not entries:
                # One look goes through a part of what is pending.
                found: Any = self._client.xautoclaim(
                    self._topic, self._group, self._consumer, min_idle_time=idle, start_id=start, count=count
                )
                start = found[0]
                # What was trimmed off the stream meanwhile comes without fields.
                entries = [(position, fields) for position, fields in found[1] if fields]
                if start == b"0-0":
                    break
            deliveries = self._deliveries([position for position, _ in entries])
        return [
            _message(position, fields, times) for (position, fields), times in zip(entries, deliveries, strict=True)
        ]

    def acknowledge(self, positions: Sequence[str]) -> None:
        """As `StreamBroker.acknowledge`."""
        if positions:
            with self._talking():
                self._client.xack(self._topic, self._group, *positions)

    def bury(self, message: StreamMessage, reason: str) -> None:
        """As `StreamBroker.bury`."""
        fields = {VALUE: message.payload, b"position": message.position.encode(), b"reason": reason.encode()}
        if message.event_id is not None:
            fields[EVENT] = message.event_id.encode()
        with self._talking(), self._client.pipeline(transaction=True) as together:
            together.xadd(self._topic + DEAD_SUFFIX, fields)
            together.xack(self._topic, self._group, message.position)
            together.execute()

    def buried(self) -> int:
        """As `StreamBroker.buried`."""
        with self._talking():
            return int(self._client.xlen(self._topic + DEAD_SUFFIX))

    def lag(self) -> StreamLag:
        """As `StreamBroker.lag`."""
        with self._talking():
            groups: list[dict[str, Any]] = self._client.xinfo_groups(self._topic)
        mine = next(each for each in groups if each["name"] == self._group.encode())
        waiting = mine.get("lag")
        return StreamLag(pending=int(mine["pending"]), waiting=None if waiting is None else int(waiting))

    def close(self) -> None:
        """As `StreamBroker.close`."""
        try:
            with self._talking():
                mine = self._client.xpending_range(self._topic, self._group, "-", "+", 1, consumername=self._consumer)
                if not mine:
                    # With one that has entries pending, they would go too.
                    self._client.xgroup_delconsumer(self._topic, self._group, self._consumer)
        except Unavailable:
            pass
        self._client.close()

    def _deliveries(self, positions: Sequence[Any]) -> list[int]:
        with self._client.pipeline(transaction=False) as together:
            for position in positions:
                together.xpending_range(self._topic, self._group, position, position, 1)
            answers: list[Any] = together.execute()
        return [int(answer[0]["times_delivered"]) if answer else 1 for answer in answers]

    @contextmanager
    def _talking(self) -> Generator[None]:
        errors = self._redis.exceptions
        try:
            if not self._is_joined:
                self._join()
            yield
        except errors.ResponseError as error:
            # Somebody has deleted the stream, and the group with it: it is joined anew.
            self._is_joined = False
            raise Unavailable(f"The stream {self._topic!r} cannot be read now.", hint="It is tried again.") from error
        except errors.RedisError as error:
            raise Unavailable(
                f"The broker of the stream {self._topic!r} does not answer ({type(error).__name__}).",
                hint="It is tried again; check the broker's address.",
            ) from error

    def _join(self) -> None:
        try:
            self._client.xgroup_create(self._topic, self._group, id=_OLDEST, mkstream=True)
        except self._redis.exceptions.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._is_joined = True


def _message(position: bytes, fields: dict[bytes, bytes], deliveries: int = 1) -> StreamMessage:
    event = fields.get(EVENT)
    return StreamMessage(
        position=position.decode(),
        payload=fields.get(VALUE, b""),
        event_id=None if event is None else event.decode(errors="replace"),
        deliveries=deliveries,
    )
