"""The route of the event stream: pages of sealed events, or a stream of them that goes on for as long as it is read."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Annotated, Any, cast

import anyio.to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.types import Receive, Scope, Send

from fairlead.core.errors import FairleadError, InvalidInput
from fairlead.registry.access import Authenticate, MayRead
from fairlead.registry.audit import AuditEvent
from fairlead.registry.events import EventFilter, EventLog, Streams, parse_event_filter
from fairlead.registry.identity import Caller
from fairlead.registry.schemas_operations import AuditEventOut
from fairlead.registry.wire import AnswerModel

HEARTBEAT_SECONDS = 15.0
_STREAM_TYPE = "text/event-stream"
_RETRY_MILLISECONDS = 2_000
_SEQUENCE = re.compile(r"[0-9]{1,18}")
_SEQUENCE_MAX = 10**18 - 1


class EventPageOut(AnswerModel):
    """Some sealed events in order. Ask again with `after` set to `next_after`; `is_last`: there were no more."""

    items: list[AuditEventOut]
    next_after: Annotated[int, Field(description="Up to which sequence the log was looked through.")]
    is_last: bool


Patterns = Annotated[list[str] | None, Query(description="Only these actions, such as `model.*`; any of several.")]
Pattern = Annotated[str | None, Query(description="Only of what matches; wild cards are `*` and `?`.")]
After = Annotated[int | None, Query(ge=0, le=_SEQUENCE_MAX, description="Only events after this sequence.")]
Limit = Annotated[int, Query(ge=1, le=500, description="How many events a page holds at most.")]


def events_router(log: EventLog, streams: Streams) -> APIRouter:
    """The sealed audit log, to be read on and on."""
    router = APIRouter(tags=["audit"])

    @router.get(
        "/events",
        response_model=EventPageOut,
        responses={200: {"content": {_STREAM_TYPE: {"schema": {"type": "string"}}}}},
    )
    async def read_events(
        request: Request,
        caller: MayRead,
        *,
        action: Patterns = None,
        model: Pattern = None,
        environment: Pattern = None,
        after: After = None,
        limit: Limit = 100,
        last_event_id: Annotated[str | None, Header(description="Where a stream goes on, as `after`.")] = None,
    ) -> Any:
        """Read sealed events in order: a page of them, or with `Accept: text/event-stream` all that come from now on.

        A stream begins with what happens next, or after the sequence in `Last-Event-ID` or `after`. Each event's `id`
        is its sequence, `event` its action, and `data` the same JSON as a page's item.
        """
        wanted = parse_event_filter(actions=action or (), models=model, environments=environment)
        if _STREAM_TYPE not in request.headers.get("accept", ""):
            page = await anyio.to_thread.run_sync(lambda: log.read(caller, wanted, after=after or 0, limit=limit))
            return {"items": page.events, "next_after": page.position, "is_last": page.is_last}
        start = _parse_position(last_event_id) if last_event_id else after
        if start is None:
            start = await anyio.to_thread.run_sync(log.head, caller.workspace_id)
        return _AdmittedStream(streams.admit(caller), _stream(request, caller, wanted, start))

    async def _stream(request: Request, caller: Caller, wanted: EventFilter, position: int) -> AsyncIterator[str]:
        told, checked_at = position, time.monotonic()
        yield f"retry: {_RETRY_MILLISECONDS}\nid: {position}\n\n"
        while not streams.is_closed:
            page = await anyio.to_thread.run_sync(lambda: log.read(caller, wanted, after=position))  # noqa: B023
            position = page.position
            for event in page.events:
                yield _render(event)
                told = event.sequence or told
            # Also where events never cease, and nobody waits.
            if time.monotonic() - checked_at >= HEARTBEAT_SECONDS:
                if not await anyio.to_thread.run_sync(_is_as_it_was, request, caller):
                    return
                checked_at = time.monotonic()
            if not page.is_last:
                continue
            if await streams.wait(caller.workspace_id, after=position, timeout_seconds=HEARTBEAT_SECONDS):
                continue
            # An id without data moves the place from which a reader resumes, and is no event.
            yield f": heartbeat\nid: {position}\n\n" if position > told else ": heartbeat\n\n"

    return router


class _AdmittedStream(StreamingResponse):
    """A stream that is counted from now until nobody reads it any more."""

    def __init__(self, admission: AbstractContextManager[None], content: AsyncIterator[str]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type=_STREAM_TYPE, headers=headers)
        self._admission = admission
        admission.__enter__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._admission.__exit__(None, None, None)


def _is_as_it_was(request: Request, caller: Caller) -> bool:
    """Whether the token that a stream was opened with is good still, for what it was good for then.

    The stream shows what its caller could see when it was opened. Whoever may see more or less by now opens another.
    """
    authenticate = cast("Authenticate", request.app.state.authenticate)
    try:
        now = authenticate(request.headers.get("authorization", "").partition(" ")[2])
    except FairleadError:
        return False
    return (now.scopes, now.grants) == (caller.scopes, caller.grants)


def _parse_position(text: str) -> int:
    if not _SEQUENCE.fullmatch(text):
        raise InvalidInput(f"Last-Event-ID is {text[:40]!r}, which is no sequence.", hint="Send the last id you saw.")
    return int(text)


def _render(event: AuditEvent) -> str:
    # ASCII, so that no reader takes a character for the end of a line.
    data = json.dumps(AuditEventOut.model_validate(event).model_dump(mode="json"))
    return f"id: {event.sequence}\nevent: {event.action}\ndata: {data}\n\n"
