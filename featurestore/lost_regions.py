"""What an erasure cannot reach for good: regions and locations that an administrator has given up for lost.

An erasure waits for whatever is away. What is lost it no longer waits for: the certificate names it instead, with who
said so, when and why, and that nothing there was rewritten. A location that comes back at the same place is cleared of
every erasure that had given it up before it takes traffic, and so is an online store whose worker comes back; the
certificate is signed again with what was done then.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select

from fairlead.core.clock import format_time
from fairlead.featurestore.erasure_places import IsDue, require_location, require_store
from fairlead.featurestore.erasure_rows import CLEAN, DONE, GIVEN_UP, LOG, stores_of
from fairlead.featurestore.snapshots import fail_snapshot
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from fairlead.featurestore.tables_erasures import ErasedLocationRow, ErasureRow
from fairlead.registry import audit
from fairlead.registry.identity import system_caller
from fairlead.registry.location_returns import lost_locations
from fairlead.registry.locations import get_location
from fairlead.registry.tables_losses import LostLocationRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from fairlead.core.errors import JsonValue
    from fairlead.core.ports import Clock

_Sign = Callable[["Session", ErasureRow], None]


class Returns:
    """A deriver: what comes back is cleared of what was erased meanwhile. `sign` makes a certificate anew."""

    def __init__(self, clock: Clock, *, is_due: IsDue, sign: _Sign) -> None:
        self._clock = clock
        self._is_due = is_due
        self._sign = sign

    def __call__(self, session: Session, now: datetime) -> None:
        """Give up snapshots that a lost region was to write, and require what is to be cleared."""
        _fail_snapshots(session, self._clock)
        back = select(LostLocationRow).where(
            LostLocationRow.returned_as.is_not(None), LostLocationRow.cleared_at.is_(None)
        )
        for lost in session.scalars(back.with_for_update(skip_locked=True)).all():
            erasures = _gave_up(session, lost)
            waiting = [each for each in erasures if not self._is_clear(session, lost, each, now)]
            if not waiting:
                self._finish(session, lost, erasures, now)

    def _is_clear(self, session: Session, lost: LostLocationRow, erasure: ErasureRow, now: datetime) -> bool:
        """Whether an erasure is done at what has come back; what it needs is required."""
        location = get_location(session, lost.workspace_id, lost.returned_as or "")
        row = require_location(session, erasure, location, self._is_due, now)
        stores = [
            each
            for each in stores_of(session, erasure)
            if lost.has_region
            and each.region == lost.region
            and each.state == GIVEN_UP
            # A log is its machine's, which may never come back; where it does, it forgets.
            and not each.service.startswith(LOG)
        ]
        for store in stores:
            require_store(session, erasure, store, now)
        return row.state == CLEAN and not stores

    def _finish(self, session: Session, lost: LostLocationRow, erasures: Sequence[ErasureRow], now: datetime) -> None:
        lost.cleared_at = now
        session.flush()
        for erasure in erasures:
            if erasure.state == DONE:
                self._sign(session, erasure)
        audit.record(
            session,
            system_caller(lost.workspace_id, "worker"),
            self._clock,
            action="location.cleared",
            subject=get_location(session, lost.workspace_id, lost.returned_as or "").name,
            facts={"region": lost.region, "erasures": [each.id for each in erasures]},
        )


def losses_of(session: Session, erasure: ErasureRow) -> list[JsonValue]:
    """What the certificate says of the locations that an erasure has given up."""
    lost = lost_locations(session, erasure.workspace_id)
    rows = session.scalars(
        select(ErasedLocationRow)
        .where(
            ErasedLocationRow.workspace_id == erasure.workspace_id,
            ErasedLocationRow.erasure_id == erasure.id,
            ErasedLocationRow.state == GIVEN_UP,
        )
        .order_by(ErasedLocationRow.location_id)
    ).all()
    found: list[JsonValue] = []
    for row in rows:
        location, loss = get_location(session, row.workspace_id, row.location_id), lost[row.location_id]
        has_returned = loss.cleared_at is not None and loss.returned_as is not None
        found.append(
            {
                "location": location.name,
                "region": location.region,
                "url": location.url,
                "has_region": loss.has_region,
                "given_up_by": loss.lost_by,
                "given_up_at": format_time(loss.lost_at),
                "reason": loss.reason,
                "bytes": "not rewritten",
                "cleared_at": format_time(loss.cleared_at) if has_returned and loss.cleared_at else None,
            }
        )
    return found


def _gave_up(session: Session, lost: LostLocationRow) -> Sequence[ErasureRow]:
    query = (
        select(ErasureRow)
        .join(
            ErasedLocationRow,
            (ErasedLocationRow.workspace_id == ErasureRow.workspace_id)
            & (ErasedLocationRow.erasure_id == ErasureRow.id),
        )
        .where(
            ErasedLocationRow.workspace_id == lost.workspace_id,
            ErasedLocationRow.location_id == lost.location_id,
            ErasedLocationRow.state == GIVEN_UP,
        )
        .order_by(ErasureRow.id)
    )
    return session.scalars(query).all()


def _fail_snapshots(session: Session, clock: Clock) -> None:
    """Give up snapshots whose rows were to be read in a region that is lost."""
    query = (
        select(SnapshotRow, SnapshotPartRow)
        .join(
            SnapshotPartRow,
            (SnapshotPartRow.workspace_id == SnapshotRow.workspace_id)
            & (SnapshotPartRow.snapshot_id == SnapshotRow.id),
        )
        .join(
            LostLocationRow,
            (LostLocationRow.workspace_id == SnapshotPartRow.workspace_id)
            & (LostLocationRow.region == SnapshotPartRow.region),
        )
        .where(
            SnapshotRow.state == "PENDING",
            SnapshotPartRow.upload_id.is_(None),
            LostLocationRow.has_region,
            LostLocationRow.returned_as.is_(None),
            SnapshotRow.created_at <= LostLocationRow.lost_at,
        )
    )
    for snapshot, part in session.execute(query).all():
        detail = f"The region {part.region}, where the rows of {part.view!r} were to be read, was given up for lost."
        fail_snapshot(session, clock, snapshot, "location-unavailable", detail)
