"""Routes of work: what runs and what waits, as a list and as a stream of events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from fairlead.registry import work
from fairlead.registry.access import MayRead
from fairlead.registry.paging import PageRequest
from fairlead.registry.wire import WantedPage
from fairlead.sync.schemas import WorkAnswer, WorkPage

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock

EVENTS_SECONDS = 300
_LOOK_SECONDS = 1.0
_SHOWN_MAX = 200


def work_router(database: Database, clock: Clock) -> APIRouter:
    """Work."""
    router = APIRouter(prefix="/work", tags=["work"])

    def find(workspace_id: str, page: PageRequest) -> WorkPage:
        with database.read() as session:
            found = work.list_work(session, workspace_id, clock.now(), page)
        return WorkPage(
            items=[WorkAnswer.model_validate(status) for status in found.items], next_page_token=found.next_page_token
        )

    @router.get("")
    def list_work(caller: MayRead, page: WantedPage) -> WorkPage:
        """What runs and what waits, in the order it was asked for, with progress, time to go and the last error."""
        return find(caller.workspace_id, page)

    # Not in the API's description, which has no word for an answer that goes on.
    @router.get("/events", include_in_schema=False)
    def stream_work(
        caller: MayRead, seconds: Annotated[int, Query(ge=0, le=EVENTS_SECONDS)] = EVENTS_SECONDS
    ) -> StreamingResponse:
        """Server-sent events: the first 200 pieces of work, whenever something about them has changed."""

        async def events() -> AsyncIterator[str]:
            last, ends_at = "", time.monotonic() + seconds
            while True:
                page = await run_in_threadpool(find, caller.workspace_id, PageRequest(size=_SHOWN_MAX))
                shown = json.dumps([item.model_dump(mode="json") for item in page.items])
                # A comment keeps proxies from closing a stream on which nothing happens.
                yield ": no change\n\n" if shown == last else f"event: work\ndata: {shown}\n\n"
                last = shown
                if time.monotonic() >= ends_at:
                    return
                await asyncio.sleep(_LOOK_SECONDS)

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)

    return router
