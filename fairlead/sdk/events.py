"""Events: what happened, in order, from any place on, and for as long as one cares to listen."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, cast

from fairlead.core.errors import ServerUnavailable, Unavailable
from fairlead.sdk.records import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import JsonObject, Transport

_PATH = "/api/v1/events"
_SILENCE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 30.0


class Events:
    """The sealed audit log, in the order of its sequence."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        after: int = 0,
        actions: Sequence[str] = (),
        model: str | None = None,
        environment: str | None = None,
    ) -> Iterator[AuditEvent]:
        """What happened after a sequence, up to now. Actions, model and environment are patterns such as `model.*`."""
        query = _query(actions, model, environment)
        is_last = False
        while not is_last:
            page = self._transport.get(_PATH, **query, after=after, limit=500)
            yield from map(AuditEvent.from_json, cast("list[JsonObject]", page["items"]))
            after, is_last = cast("int", page["next_after"]), bool(page["is_last"])

    def follow(
        self,
        *,
        after: int | None = None,
        actions: Sequence[str] = (),
        model: str | None = None,
        environment: str | None = None,
        patience_seconds: float | None = None,
    ) -> Iterator[AuditEvent]:
        """What happens from now on, or after a sequence, as it happens; without end.

        Where the connection is lost it is made again, and nothing is missed or told twice. To go on another day, pass
        the `sequence` of the last event as `after`. While the server does not answer it is tried again, for ever or
        for `patience_seconds`.

        Raises:
            ServerUnavailable: when the patience is at its end.
            PermissionDenied, Unauthenticated: if the token does not, or no longer, let one read.
        """
        import httpx2

        query = _query(actions, model, environment)
        tries, silent_since = 0, time.monotonic()
        while True:
            try:
                for event_id, data in self._stream(query, after):
                    tries, silent_since = 0, time.monotonic()
                    # The first message says where the stream begins, so nothing is missed from then on.
                    after = event_id if event_id is not None else after
                    if data:
                        yield AuditEvent.from_json(cast("JsonObject", json.loads(data)))
                        silent_since = time.monotonic()
            except (httpx2.TransportError, Unavailable) as error:
                if patience_seconds is not None and time.monotonic() - silent_since > patience_seconds:
                    raise ServerUnavailable(
                        f"The Fairlead server at {self._transport.url} does not answer ({type(error).__name__}).",
                        hint=f"Go on later after the sequence {after}.",
                    ) from error
            pause = min(_LONGEST_PAUSE_SECONDS, 0.1 * 2 ** min(tries, 20))
            time.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311  (spreads retries)
            tries += 1

    def _stream(self, query: dict[str, JsonValue], after: int | None) -> Iterator[tuple[int | None, str]]:
        """The id and data of each message, the empty ones that only move the place to go on from among them."""
        headers = {"accept": "text/event-stream"}
        if after is not None:
            headers["last-event-id"] = str(after)
        event_id: int | None = None
        data: list[str] = []
        with self._transport.stream(_PATH, query=query, headers=headers, silence_seconds=_SILENCE_SECONDS) as lines:
            for line in lines:
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if not line:
                    yield event_id, "\n".join(data)
                    event_id, data = None, []
                elif name == "id" and value.isdecimal():
                    event_id = int(value)
                elif name == "data":
                    data.append(value)


def _query(actions: Sequence[str], model: str | None, environment: str | None) -> dict[str, JsonValue]:
    return {"action": list(actions), "model": model, "environment": environment}
