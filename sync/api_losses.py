"""The route of locations that are lost for good."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from fairlead.registry.access import MayAdmin
from fairlead.registry.limits import REASON_MAX_LENGTH
from fairlead.registry.wire import MayRepeat
from fairlead.sync.schemas import LocationAnswer

if TYPE_CHECKING:
    from fairlead.registry.location_losses import Loss, Losses


class LossRequest(BaseModel):
    """That a location is lost for good, and why."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[
        str,
        StringConstraints(min_length=1, max_length=REASON_MAX_LENGTH),
        Field(description="Certificates of erasures quote it.", examples=["the data centre burnt down"]),
    ]
    has_region: Annotated[
        bool, Field(description="Whether all else in its region is lost too: online stores, and logs of pushed rows.")
    ] = False


class LossAnswer(BaseModel):
    """A location that was given up for lost. `artifacts` names at most 100 of those that no other location holds."""

    location: LocationAnswer
    has_region: bool
    reason: str
    lost_by: str
    lost_at: datetime
    artifact_count: int
    artifacts: list[str]

    @classmethod
    def of(cls, loss: Loss) -> LossAnswer:
        """Render a record."""
        return cls(
            location=LocationAnswer.of(loss.location),
            has_region=loss.has_region,
            reason=loss.reason,
            lost_by=loss.lost_by,
            lost_at=loss.lost_at,
            artifact_count=loss.artifact_count,
            artifacts=list(loss.artifacts),
        )


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
