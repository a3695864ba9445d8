"""The route of locations that are lost for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import APIRouter

from fairlead.registry.access import MayAdmin
from fairlead.registry.wire import MayRepeat
from fairlead.sync.schemas_locations import LossAnswer, LossRequest

if TYPE_CHECKING:
    from fairlead.registry.location_losses import Losses


def losses_router(losses: Losses, wake: Callable[[], None]) -> APIRouter:
    """Locations that are given up for lost."""
    router = APIRouter(prefix="/locations", tags=["locations"])

    @router.post("/{name}/loss")
    def give_up_location(caller: MayAdmin, name: str, body: LossRequest, key: MayRepeat) -> LossAnswer:
        """Say that a location will never come back: nothing is read from it, and no erasure waits for it."""
        found = losses.give_up(caller, name, reason=body.reason, has_region=body.has_region, key=key)
        wake()
        return LossAnswer.of(found)

    return router
