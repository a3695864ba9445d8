"""Where an erasure goes: online stores and logs by region, and locations; and which of them are lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select

from fairlead.featurestore.concerned import Concerned
from fairlead.featurestore.erasure_rows import (
    CLEAN,
    CLEARING,
    DONE,
    ERASE_LOCATION,
    ERASE_STORE,
    GIVEN_UP,
    LOG,
    WAITING,
    require,
    stores_of,
)
from fairlead.featurestore.online_desired import insert_unless_there
from fairlead.featurestore.strays import open_writes
from fairlead.featurestore.tables import OnlineStateRow
from fairlead.featurestore.tables_erasures import ErasedLocationRow, ErasedStoreRow
from fairlead.featurestore.tables_online import OnlineSlotRow
from fairlead.featurestore.tables_streams import FeatureLogRow
from fairlead.registry.location_returns import is_region_lost, is_replaced, lost_locations
from fairlead.registry.locations import all_locations

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.featurestore.tables_erasures import ErasureRow
    from fairlead.registry.locations import Location

IsDue = Callable[["Session", ErasedLocationRow, "Location", datetime], bool]
"""Whether a location is to be looked at again now."""


def derive_stores(session: Session, erasure: ErasureRow, now: datetime) -> None:
    """Require that every online store of a service that the subject may be in forgets it."""
    concerned = Concerned(session, erasure)
    places: set[tuple[str, str]] = set()
    for table in (OnlineStateRow, OnlineSlotRow):
        query = select(table.region, table.service).where(table.workspace_id == erasure.workspace_id).distinct()
        places |= {(region, service) for region, service in session.execute(query).all() if concerned.service(service)}
    logs = select(FeatureLogRow.region, FeatureLogRow.id, FeatureLogRow.view).where(
        FeatureLogRow.workspace_id == erasure.workspace_id
    )
    places |= {
        (region, f"{LOG}{log}") for region, log, view in session.execute(logs).all() if concerned.view(view, None)
    }
    for region, service in sorted(places):
        values = {
            "workspace_id": erasure.workspace_id,
            "erasure_id": erasure.id,
            "region": region,
            "service": service,
            "state": WAITING,
            "changed_at": now,
        }
        insert_unless_there(session, ErasedStoreRow, values)
    lost = {each.region for each in lost_locations(session, erasure.workspace_id).values() if is_region_lost(each)}
    for row in stores_of(session, erasure):
        if row.state == WAITING and row.region in lost:
            row.state, row.changed_at = GIVEN_UP, now
        # A log is read by whichever machine has it. A worker of a region that comes back after all finds its work.
        if row.state in {WAITING, GIVEN_UP} and not row.service.startswith(LOG):
            require_store(session, erasure, row, now)


def require_store(session: Session, erasure: ErasureRow, row: ErasedStoreRow, now: datetime) -> None:
    """Require that the online stores of a service in a region forget."""
    require(session, row, ERASE_STORE, f"{erasure.id}/{row.region}/{row.service}", now)


def derive_locations(session: Session, erasure: ErasureRow, is_due: IsDue, now: datetime) -> None:
    """Require that every location is cleared, and looked at again when `is_due(row, location)`; lost ones are not."""
    for location in storage_locations(session, erasure):
        require_location(session, erasure, location, is_due, now)
    for lost in lost_locations(session, erasure.workspace_id):
        row = _location(session, erasure, lost)
        if row.state != CLEAN:
            row.state = GIVEN_UP


def require_location(
    session: Session, erasure: ErasureRow, location: Location, is_due: IsDue, now: datetime
) -> ErasedLocationRow:
    """Require that a location is cleared, or looked at again; how far that is."""
    row = _location(session, erasure, location.id)
    if row.state == WAITING or (row.state == CLEARING and is_due(session, row, location, now)):
        require(session, row, ERASE_LOCATION, f"{erasure.id}/{location.id}", now, region=location.region)
    return row


def _location(session: Session, erasure: ErasureRow, location_id: str) -> ErasedLocationRow:
    values = {
        "workspace_id": erasure.workspace_id,
        "erasure_id": erasure.id,
        "location_id": location_id,
        "state": WAITING,
        "objects_deleted": 0,
    }
    insert_unless_there(session, ErasedLocationRow, values)
    return session.get_one(ErasedLocationRow, (erasure.workspace_id, erasure.id, location_id))


def storage_locations(session: Session, erasure: ErasureRow) -> list[Location]:
    """The locations that can hold artifacts of the workspace, and are not lost."""
    lost = lost_locations(session, erasure.workspace_id)
    return [
        each
        for each in all_locations(session, erasure.workspace_id)
        if each.id not in lost and not is_replaced(session, erasure.workspace_id, each)
    ]


def writes_before(session: Session, erasure: ErasureRow) -> Sequence[str]:
    """The uploads of rows, not over yet, that may hold the subject."""
    # What is sealed holds it until the log has forgotten; writers of snapshots look whom to leave out.
    sealed = [
        row.changed_at for row in stores_of(session, erasure) if row.service.startswith(LOG) and row.state == DONE
    ]
    return open_writes(session, erasure, sealed_until=max(sealed, default=erasure.requested_at))
