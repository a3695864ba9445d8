"""The routes of passes over locations: scrubs, collections, and comparisons of the block index."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import APIRouter, status

from fairlead.registry.access import MayAdmin, MayRead
from fairlead.registry.wire import WantedPage
from fairlead.sync.schemas_upkeep import UpkeepAnswer, UpkeepPage, UpkeepRequest, UpkeepsAnswer

if TYPE_CHECKING:
    from fairlead.sync.upkeep import Upkeeps


def upkeep_router(upkeeps: Upkeeps, wake: Callable[[], None]) -> APIRouter:
    """Passes over locations."""
    router = APIRouter(prefix="/upkeep", tags=["upkeep"])

    @router.post("", status_code=status.HTTP_202_ACCEPTED)
    def request_upkeep(caller: MayAdmin, body: UpkeepRequest) -> UpkeepsAnswer:
        """Have a location, or every one, passed over by a worker of its region. What waits already is answered."""
        asked = upkeeps.request(caller, body.task, location=body.location, scope=body.scope())
        wake()
        return UpkeepsAnswer(items=[UpkeepAnswer.of(each) for each in asked])

    @router.get("")
    def list_upkeep(caller: MayRead, page: WantedPage) -> UpkeepPage:
        """Passes that wait, run or are over, newest first, with what was found."""
        found = upkeeps.list(caller, page).map(UpkeepAnswer.of)
        return UpkeepPage(items=list(found.items), next_page_token=found.next_page_token)

    @router.get("/{upkeep_id}")
    def get_upkeep(caller: MayRead, upkeep_id: str) -> UpkeepAnswer:
        """One pass."""
        return UpkeepAnswer.of(upkeeps.get(caller, upkeep_id))

    return router
