"""A stream in memory, for tests of what consumes one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fairlead.core.ports import StreamLag, StreamMessage


@dataclass(slots=True)
class _Pending:
    message: StreamMessage
    since: float


@dataclass(slots=True)
class MemoryTopic:
    """The messages of one stream and what one group of consumers has of them; consumers share it."""

    messages: list[StreamMessage] = field(default_factory=list[StreamMessage])
    given: int = 0
    pending: dict[str, _Pending] = field(default_factory=dict[str, _Pending])
    dead: list[tuple[StreamMessage, str]] = field(default_factory=list[tuple[StreamMessage, str]])
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def add(self, payload: bytes, *, event_id: str | None = None) -> str:
        """Put a message at the end; answers its position."""
        with self.arrived:
            position = str(len(self.messages) + 1)
            self.messages.append(StreamMessage(position=position, payload=payload, event_id=event_id))
            self.arrived.notify_all()
            return position


class MemoryStream:
    """One consumer of a topic in memory (`StreamBroker`); `monotonic` gives seconds."""

    def __init__(self, topic: MemoryTopic, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._monotonic = monotonic

    def read(self, count: int, *, wait_seconds: float) -> Sequence[StreamMessage]:
        """As `StreamBroker.read`."""
        topic = self._topic
        with topic.arrived:
            topic.arrived.wait_for(lambda: topic.given < len(topic.messages), wait_seconds)
            found = topic.messages[topic.given : topic.given + count]
            topic.given += len(found)
            for message in found:
                topic.pending[message.position] = _Pending(message, self._monotonic())
            return found

    def claim(self, count: int, *, idle_seconds: float) -> Sequence[StreamMessage]:
        """As `StreamBroker.claim`."""
        now = self._monotonic()
        with self._topic.arrived:
            late = [each for each in self._topic.pending.values() if now - each.since >= idle_seconds][:count]
            for each in late:
                each.message, each.since = replace(each.message, deliveries=each.message.deliveries + 1), now
            return [each.message for each in late]

    def acknowledge(self, positions: Sequence[str]) -> None:
        """As `StreamBroker.acknowledge`."""
        with self._topic.arrived:
            for position in positions:
                self._topic.pending.pop(position, None)

    def bury(self, message: StreamMessage, reason: str) -> None:
        """As `StreamBroker.bury`."""
        with self._topic.arrived:
            self._topic.dead.append((message, reason))
            self._topic.pending.pop(message.position, None)

    def buried(self) -> int:
        """As `StreamBroker.buried`."""
        return len(self._topic.dead)

    def lag(self) -> StreamLag:
        """As `StreamBroker.lag`."""
        with self._topic.arrived:
            return StreamLag(pending=len(self._topic.pending), waiting=len(self._topic.messages) - self._topic.given)

    def close(self) -> None:
        """As `StreamBroker.close`."""
