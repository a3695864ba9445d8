"""Lost locations that come back: a new location at the place of one that was given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from fairlead.registry.location_addresses import overlaps
from fairlead.registry.tables import LocationRow
from fairlead.registry.tables_losses import LostLocationRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.registry.locations import Location


def take_back(session: Session, row: LocationRow) -> bool:
    """Note that a new location stands where a lost one stood, if it does: it is cleared before it takes traffic."""
    query = (
        select(LostLocationRow, LocationRow)
        .join(
            LocationRow,
            (LocationRow.workspace_id == LostLocationRow.workspace_id)
            & (LocationRow.id == LostLocationRow.location_id),
        )
        .where(LostLocationRow.workspace_id == row.workspace_id, LostLocationRow.cleared_at.is_(None))
    )
    has_come_back = False
    for lost, place in session.execute(query).all():
        if overlaps(row, place):
            lost.returned_as, has_come_back = row.id, True
    return has_come_back


def is_to_be_cleared(session: Session, row: LocationRow) -> bool:
    """Whether what was erased while a location was lost may still be in it."""
    query = select(LostLocationRow.location_id).where(
        LostLocationRow.workspace_id == row.workspace_id,
        LostLocationRow.returned_as == row.id,
        LostLocationRow.cleared_at.is_(None),
    )
    return session.scalar(query.limit(1)) is not None


def is_replaced(session: Session, workspace_id: str, location: LocationRow | Location) -> bool:
    """Whether another location stands where a retired one stood: what lies there is not the retired one's any more."""
    if location.state != "RETIRED":
        return False
    others = select(LocationRow).where(
        LocationRow.workspace_id == workspace_id,
        LocationRow.id != location.id,
        LocationRow.kind == "storage",
        LocationRow.state != "RETIRED",
    )
    return any(overlaps(location, other) for other in session.scalars(others))


def is_there(session: Session, location: LocationRow) -> bool:
    """Whether what a location is called still stands for its place: it is not lost, and no other one has come there."""
    lost = session.get(LostLocationRow, (location.workspace_id, location.id))
    return lost is None and not is_replaced(session, location.workspace_id, location)


def is_region_lost(lost: LostLocationRow) -> bool:
    """Whether all of the region is lost with the location, and nothing has come back of it."""
    return lost.has_region and lost.returned_as is None


def lost_locations(session: Session, workspace_id: str) -> dict[str, LostLocationRow]:
    """Every loss of a workspace, by the location's id."""
    query = select(LostLocationRow).where(LostLocationRow.workspace_id == workspace_id)
    return {row.location_id: row for row in session.scalars(query)}
