"""Consumers of streams: messages of a broker, pushed, and acknowledged once their rows are durable.

A message may be delivered more than once; its rows have ids that are the same each time, so each counts once. The id
is what the row says (`event_id`), or else what the message says, or else the message's position in its stream and the
digest of what it holds. A message that cannot be taken is put aside with the reason, so that it holds up none that come
after it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.errors import (
    CodeRefused,
    FairleadError,
    FeatureRowsInvalid,
    InvalidInput,
    MissingExtra,
    ServerUnavailable,
    StorageFull,
    Unavailable,
)
from fairlead.core.ports import StreamBroker, StreamMessage
from fairlead.sdk.pushes import PushedRows

if TYPE_CHECKING:
    from fairlead.sdk.features import Features

EVENT_ID = "event_id"
_ARROW_START = b"\xff\xff\xff\xff"
_RETRY_SECONDS = 1.0
_logger = logging.getLogger(__name__)

Push = Callable[[Sequence[Mapping[str, Any]]], Sequence[PushedRows]]
"""Pushes rows, each with its `event_id`; what it returns is durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerRules:
    """How a consumer works.

    Attributes:
        batch: most messages that are held at once, which is what bounds its memory and what a kill repeats.
        deliveries: a message that was given out more often without being taken is put aside.
        claim_seconds: after how long what another consumer holds is taken over.
        wait_seconds: how long one look at the stream waits for a message.
    """

    batch: int = 1000
    deliveries: int = 10
    claim_seconds: float = 60.0
    wait_seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumed:
    """What became of some messages, and of the rows in them."""

    messages: int = 0
    accepted: int = 0
    duplicates: int = 0
    buried: int = 0

    def __add__(self, other: Consumed) -> Consumed:
        return Consumed(
            messages=self.messages + other.messages,
            accepted=self.accepted + other.accepted,
            duplicates=self.duplicates + other.duplicates,
            buried=self.buried + other.buried,
        )


_Read = tuple[StreamMessage, list[dict[str, Any]]]
"""A message and the rows in it."""


class StreamConsumer:
    """Takes a stream's messages into the views that it feeds."""

    def __init__(
        self,
        push: Push,
        broker: StreamBroker,
        *,
        rules: ConsumerRules | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._push = push
        self._broker = broker
        self._rules = rules or ConsumerRules()
        self._monotonic = monotonic
        self._claim_at = monotonic()
        self._held: dict[str, StreamMessage] = {}
        self._done = Consumed()

    def run(self, stopping: threading.Event, *, until_empty: bool = False) -> Consumed:
        """Consume until it is told to stop, or there is no message left; what is in hand is finished first.

        Raises:
            FairleadError: what no later try would mend, such as a region that may not hold the rows.
        """
        self._done = Consumed()
        while not stopping.is_set():
            try:
                count = self._step()
            except (Unavailable, StorageFull) as error:
                _logger.warning("the stream is read on when this is over: %s", error)
                stopping.wait(_RETRY_SECONDS)
                continue
            if until_empty and not count:
                break
        return self._done

    def _step(self) -> int:
        """Take what there is, at most one batch of it; returns how many messages that were."""
        # What could not be pushed is still in hand: being away for long makes no message a bad one.
        messages: Sequence[StreamMessage] = list(self._held.values())
        if not messages and self._monotonic() >= self._claim_at:
            messages = self._broker.claim(self._rules.batch, idle_seconds=self._rules.claim_seconds)
            if not messages:
                self._claim_at = self._monotonic() + self._rules.claim_seconds / 2
        if not messages:
            messages = self._broker.read(self._rules.batch, wait_seconds=self._rules.wait_seconds)
        self._held = {message.position: message for message in messages}
        self._take(messages)
        return len(messages)

    def _take(self, messages: Sequence[StreamMessage]) -> None:
        found: list[_Read] = []
        for message in messages:
            if message.deliveries > self._rules.deliveries:
                self._bury(message, InvalidInput(f"It was given out {message.deliveries} times in vain."))
                continue
            try:
                found.append((message, read_message(message)))
            except InvalidInput as error:
                self._bury(message, error)
        self._take_rows(found)

    def _take_rows(self, found: Sequence[_Read]) -> None:
        if not found:
            return
        rows = [row for _, part in found for row in part]
        try:
            pushed = self._push(rows) if rows else ()
        except FeatureRowsInvalid as error:
            self._without_refused(found, error)
            return
        except InvalidInput as error:
            if "region" in error.attributes:
                # It is this consumer's region that is refused, whatever the messages hold.
                raise
            if len(found) == 1:
                self._bury(found[0][0], error)
                return
            middle = len(found) // 2
            self._take_rows(found[:middle])
            self._take_rows(found[middle:])
            return
        # Durable now, and not before.
        self._broker.acknowledge([message.position for message, _ in found])
        for message, _ in found:
            del self._held[message.position]
        self._done += Consumed(
            messages=len(found),
            accepted=max((each.accepted for each in pushed), default=0),
            duplicates=max((each.duplicates for each in pushed), default=0),
        )

    def _without_refused(self, found: Sequence[_Read], error: FeatureRowsInvalid) -> None:
        """Put aside the messages whose rows were refused, and push the others again."""
        reasons: dict[int, str] = {}
        for each in cast("list[dict[str, Any]]", error.attributes.get("rows", [])):
            reasons.setdefault(each["row"], f"{each['column']!r} {each['reason']}.")
        rest, start = list[_Read](), 0
        for message, rows in found:
            bad = [row for row in range(start, start + len(rows)) if row in reasons]
            start += len(rows)
            if bad:
                self._bury(message, InvalidInput(f"The row cannot be taken: {reasons[bad[0]]}"))
            else:
                rest.append((message, rows))
        if len(rest) == len(found):
            raise error
        self._take_rows(rest)

    def _bury(self, message: StreamMessage, error: FairleadError) -> None:
        _logger.warning("message %s is put aside: %s", message.position, error.detail)
        self._broker.bury(message, error.detail)
        del self._held[message.position]
        self._done += Consumed(messages=1, buried=1)


def read_message(message: StreamMessage) -> list[dict[str, Any]]:
    """The rows of a message, each with its id: JSON (an object, or a list of them) or an Arrow IPC stream.

    Raises:
        InvalidInput: if it is neither.
    """
    rows = _read_arrow(message.payload) if message.payload.startswith(_ARROW_START) else _read_json(message.payload)
    named = message.event_id or _name_of(message)
    return [
        {**row, EVENT_ID: row.get(EVENT_ID) or (named if len(rows) == 1 else f"{named}/{number}")}
        for number, row in enumerate(rows)
    ]


def _name_of(message: StreamMessage) -> str:
    """What a message is called that has no id: two brokers may give messages the same position."""
    return f"{message.position}/{hashlib.sha256(message.payload).hexdigest()[:32]}"


def _read_json(payload: bytes) -> list[dict[str, Any]]:
    try:
        found: Any = json.loads(payload)
    except (ValueError, RecursionError):
        raise InvalidInput("The message is neither JSON nor an Arrow IPC stream.") from None
    rows = cast("list[Any]", found if isinstance(found, list) else [found])
    if not all(isinstance(row, dict) for row in rows):
        raise InvalidInput("The message is no object of JSON, nor a list of them.")
    return rows


def _read_arrow(payload: bytes) -> list[dict[str, Any]]:
    try:
        arrow: Any = import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise MissingExtra("Arrow messages need Arrow.", hint="Run: pip install 'fairlead[features]'") from error
    try:
        table = arrow.ipc.open_stream(payload).read_all()
        table.validate(full=True)
    except (arrow.ArrowException, ValueError, OSError):
        raise InvalidInput("The message is no whole Arrow IPC stream.") from None
    return cast("list[dict[str, Any]]", table.to_pylist())


def consumer_of(
    features: Features,
    source: str,
    *,
    region: str | None,
    connect: Callable[[str], StreamBroker],
    rules: ConsumerRules,
    reconnect: Callable[[], Features] | None = None,
) -> StreamConsumer:
    """A consumer of a push source; `connect` opens the broker's topic.

    `reconnect` gives another way to the server where it answers no longer at the address that it had: the embedded one
    leaves when nobody has called for a while, and comes back at another.

    Raises:
        PushSourceNotFound: if no view takes rows from it.
        CodeRefused: if its rows go through a function first, which runs in a process of its author's alone.
    """
    described: Any = features.push_source(source)
    if described["transformed"]:
        raise CodeRefused(
            f"Rows of {source!r} go through a function before they are rows of {described['transformed'][0]!r}, "
            "and Fairlead runs no such code.",
            hint="Read the stream and run it in a process of your own, and push what it gives: "
            f"features.push({source!r}, rows).",
            views=described["transformed"],
        )

    def push(rows: Sequence[Mapping[str, Any]]) -> Sequence[PushedRows]:
        nonlocal features
        try:
            return features.push(source, rows, region=region)
        except ServerUnavailable:
            if reconnect is not None:
                features = reconnect()
            raise

    return StreamConsumer(push, connect(described["topic"]), rules=rules)
