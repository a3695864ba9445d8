"""Consumers of streams: messages of a broker, pushed, and acknowledged once their rows are durable.

A message may be delivered more than once; its rows have ids that are the same each time, so each counts once. The id
is what the row says (`event_id`), or else what the message says, or else the message's position in its stream. A
message that cannot be taken is put aside with the reason, so that it holds up none that come after it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.errors import CodeRefused, FairleadError, FeatureRowsInvalid, InvalidInput, MissingExtra, Unavailable
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
        self._held: Sequence[StreamMessage] = ()

    def run(self, stopping: threading.Event, *, until_empty: bool = False) -> Consumed:
        """Consume until it is told to stop, or there is no message left; what is in hand is finished first.

        Raises:
            FairleadError: what no later try would mend, such as a region that may not hold the rows.
        """
        total = Consumed()
        while not stopping.is_set():
            try:
                done = self.step()
            except Unavailable as error:
                _logger.warning("the stream is read on when this is over: %s", error)
                stopping.wait(_RETRY_SECONDS)
                continue
            total += done
            if until_empty and not done.messages:
                break
        return total

    def step(self) -> Consumed:
        """Take what there is, at most one batch of it.

        Raises:
            Unavailable: if the broker or the server is away; what was not acknowledged comes again.
        """
        # What could not be pushed is still in hand: being away for long makes no message a bad one.
        messages = self._held
        if not messages and self._monotonic() >= self._claim_at:
            messages = self._broker.claim(self._rules.batch, idle_seconds=self._rules.claim_seconds)
            if not messages:
                self._claim_at = self._monotonic() + self._rules.claim_seconds / 2
        if not messages:
            messages = self._broker.read(self._rules.batch, wait_seconds=self._rules.wait_seconds)
        self._held = messages
        done = self._take(messages)
        self._held = ()
        return done

    def _take(self, messages: Sequence[StreamMessage]) -> Consumed:
        done = Consumed(messages=len(messages))
        found: list[tuple[StreamMessage, list[dict[str, Any]]]] = []
        for message in messages:
            if message.deliveries > self._rules.deliveries:
                done += self._bury(message, InvalidInput(f"It was given out {message.deliveries} times in vain."))
                continue
            try:
                found.append((message, read_message(message)))
            except InvalidInput as error:
                done += self._bury(message, error)
        return done + self._take_rows(found)

    def _take_rows(self, found: Sequence[tuple[StreamMessage, list[dict[str, Any]]]]) -> Consumed:
        if not found:
            return Consumed()
        rows = [row for _, part in found for row in part]
        try:
            pushed = self._push(rows) if rows else ()
        except FeatureRowsInvalid as error:
            return self._without_refused(found, error)
        except InvalidInput as error:
            if len(found) == 1:
                return self._bury(found[0][0], error)
            middle = len(found) // 2
            return self._take_rows(found[:middle]) + self._take_rows(found[middle:])
        # Durable now, and not before.
        self._broker.acknowledge([message.position for message, _ in found])
        return Consumed(
            accepted=max((each.accepted for each in pushed), default=0),
            duplicates=max((each.duplicates for each in pushed), default=0),
        )

    def _without_refused(
        self, found: Sequence[tuple[StreamMessage, list[dict[str, Any]]]], error: FeatureRowsInvalid
    ) -> Consumed:
        """Put aside the messages whose rows were refused, and push the others again."""
        reasons: dict[int, str] = {}
        for each in cast("list[dict[str, Any]]", error.attributes.get("rows", [])):
            reasons.setdefault(each["row"], f"{each['column']!r} {each['reason']}.")
        done, rest, start = Consumed(), list[tuple[StreamMessage, list[dict[str, Any]]]](), 0
        for message, rows in found:
            bad = [row for row in range(start, start + len(rows)) if row in reasons]
            start += len(rows)
            if bad:
                done += self._bury(message, InvalidInput(f"The row cannot be taken: {reasons[bad[0]]}"))
            else:
                rest.append((message, rows))
        if len(rest) == len(found):
            raise error
        return done + self._take_rows(rest)

    def _bury(self, message: StreamMessage, error: FairleadError) -> Consumed:
        _logger.warning("message %s is put aside: %s", message.position, error.detail)
        self._broker.bury(message, error.detail)
        return Consumed(buried=1)


def read_message(message: StreamMessage) -> list[dict[str, Any]]:
    """The rows of a message, each with its id: JSON (an object, or a list of them) or an Arrow IPC stream.

    Raises:
        InvalidInput: if it is neither.
    """
    rows = _read_arrow(message.payload) if message.payload.startswith(_ARROW_START) else _read_json(message.payload)
    named = message.event_id or message.position
    return [
        {**row, EVENT_ID: row.get(EVENT_ID) or (named if len(rows) == 1 else f"{named}/{number}")}
        for number, row in enumerate(rows)
    ]


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
    features: Features, source: str, *, region: str | None, connect: Callable[[str], StreamBroker], rules: ConsumerRules
) -> StreamConsumer:
    """A consumer of a push source; `connect` opens the broker's topic.

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
        return features.push(source, rows, region=region)

    return StreamConsumer(push, connect(described["topic"]), rules=rules)
