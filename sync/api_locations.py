"""The routes of locations: adding, changing and retiring them, and what each of that costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import APIRouter, status

from fairlead.registry.access import MayAdmin, MayRead
from fairlead.registry.wire import MayRepeat, WantedPage
from fairlead.sync.schemas import LocationAnswer, LocationPage, LocationRequest
from fairlead.sync.schemas_locations import BackfillAnswer, RetirementAnswer, SettingsRequest

if TYPE_CHECKING:
    from fairlead.registry.locations import Locations
    from fairlead.registry.retirement import Retirements
    from fairlead.sync.backfill import Backfills


def locations_router(
    locations: Locations, backfills: Backfills, retirements: Retirements, wake: Callable[[], None]
) -> APIRouter:
    """Locations, their backfills and retirements."""
    router = APIRouter(prefix="/locations", tags=["locations"])

    @router.post("", status_code=status.HTTP_201_CREATED)
    def add_location(caller: MayAdmin, body: LocationRequest, key: MayRepeat) -> LocationAnswer:
        """Try a location out and keep it; what may and should be there is copied to it from now on."""
        added = locations.add(
            caller,
            name=body.name,
            region=body.region,
            url=body.url,
            options=body.options,
            kind=body.kind,
            settings=body.settings,
            key=key,
        )
        wake()
        return LocationAnswer.of(added)

    @router.get("")
    def list_locations(caller: MayRead, page: WantedPage) -> LocationPage:
        """The workspace's locations, by name."""
        found = locations.list(caller, page).map(LocationAnswer.of)
        return LocationPage(items=list(found.items), next_page_token=found.next_page_token)

    @router.post("/backfill-plan")
    def plan_new_location(caller: MayAdmin, body: LocationRequest) -> BackfillAnswer:
        """What would be brought to a location if it were added, and what that would cost. Nothing is kept."""
        return BackfillAnswer.of(
            backfills.plan_new(
                caller,
                name=body.name,
                region=body.region,
                url=body.url,
                options=body.options,
                kind=body.kind,
                settings=body.settings,
            )
        )

    @router.get("/{name}")
    def get_location(caller: MayRead, name: str) -> LocationAnswer:
        """One location."""
        return LocationAnswer.of(locations.get(caller, name))

    @router.patch("/{name}")
    def set_location(caller: MayAdmin, name: str, body: SettingsRequest, key: MayRepeat) -> LocationAnswer:
        """Change settings of a location, after it was tried out with them. Its region and URL never change."""
        changed = locations.set(caller, name, body.settings, key=key)
        wake()
        return LocationAnswer.of(changed)

    @router.get("/{name}/backfill")
    def plan_location(caller: MayRead, name: str) -> BackfillAnswer:
        """What a location still lacks, and what bringing it there costs."""
        return BackfillAnswer.of(backfills.plan(caller, name))

    @router.get("/{name}/retirement")
    def show_retirement(caller: MayRead, name: str) -> RetirementAnswer:
        """What retiring a location would take away, or what its retirement still waits for."""
        return RetirementAnswer.of(retirements.show(caller, name))

    @router.post("/{name}/retirement")
    def retire_location(caller: MayAdmin, name: str, key: MayRepeat) -> RetirementAnswer:
        """Begin to drain a location; it is RETIRED once nothing needs it. Repeating the call changes nothing."""
        found = retirements.retire(caller, name, key=key)
        wake()
        return RetirementAnswer.of(found)

    @router.delete("/{name}/retirement")
    def keep_location(caller: MayAdmin, name: str) -> LocationAnswer:
        """Take back a retirement that is not over."""
        kept = retirements.keep(caller, name)
        wake()
        return LocationAnswer.of(kept)

    return router
