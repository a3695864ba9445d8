"""Routes of replication plans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query

from fairlead.registry.access import MayRead
from fairlead.registry.paging import Page
from fairlead.registry.wire import Listing, listing
from fairlead.sync.schemas_replications import (
    REFERENCE_MAX_LENGTH,
    REGIONS_MAX,
    HopStatusOut,
    PlanIn,
    PlanOut,
)

if TYPE_CHECKING:
    from fairlead.sync.plans import ReplicationPlans

Of = Annotated[
    str, Query(min_length=1, max_length=REFERENCE_MAX_LENGTH, description="A digest, name/VERSION or name@alias.")
]


def replications_router(plans: ReplicationPlans) -> APIRouter:
    """Replication plans; asking for one changes nothing, so whoever may read may ask."""
    router = APIRouter(prefix="/replications", tags=["replications"])

    @router.get("", response_model=Listing[HopStatusOut])
    def list_hops(caller: MayRead, of: Of) -> Any:
        """Compare each replica's hop as it was planned with the copy that was made."""
        return listing(HopStatusOut, Page(items=tuple(plans.status(caller, of)), next_page_token=None))

    @router.get("/plan")
    def get_plan(
        caller: MayRead,
        of: Of,
        deadline_seconds: Annotated[float | None, Query(gt=0, lt=1e9)] = None,
        region: Annotated[list[str] | None, Query(max_length=REGIONS_MAX)] = None,
    ) -> PlanOut:
        """Plan how an artifact gets to where it lacks, or to the named regions, at the least cost."""
        return PlanOut.of(plans.plan(caller, of, regions=region or None, deadline_seconds=deadline_seconds))

    @router.post("/plan")
    def make_plan(caller: MayRead, body: PlanIn) -> PlanOut:
        """Plan the same from a document; nothing is kept."""
        return PlanOut.of(plans.plan(caller, body.of, regions=body.regions, deadline_seconds=body.deadline_seconds))

    return router
