"""Locations that are lost for good, which nobody can drain: a bucket that is gone, a region that will not come back.

An administrator says so, and why. Nothing is read from the location from then on, and nothing waits for it: its
replicas leave the record, what only it held is named, uploads into it fail. Whether its bytes still exist somewhere
nobody knows, so whatever is certified later says that they were not touched. A location that is added at the same place
later takes no traffic before what was erased meanwhile has left it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, or_, select
from sqlalchemy.orm import aliased

from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.registry import audit, version_states
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.limits import REASON_MAX_LENGTH, parse_text
from fairlead.registry.locations import Location, lock_location, to_location
from fairlead.registry.tables import ArtifactRow, LocationRow, ReplicaRow, UploadRow, WorkRow
from fairlead.registry.tables_bytes import BlockRow, GarbageRow
from fairlead.registry.tables_losses import LostLocationRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.identity import Caller

_NAMED_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A location that was given up for lost. `artifacts` names at most 100 of those that no other location holds."""

    location: Location
    has_region: bool
    reason: str
    lost_by: str
    lost_at: datetime
    artifact_count: int
    artifacts: tuple[str, ...]


class Losses:
    """Gives locations up for lost."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def give_up(
        self,
        caller: Caller,
        name: str,
        *,
        reason: str,
        has_region: bool = False,
        key: IdempotencyKey | None = None,
    ) -> Loss:
        """Say that a location will never come back; with `has_region`, that nothing else in its region will either.

        It is RETIRED at once. Repeating it changes nothing, but that the region may be given up too.

        Raises:
            LocationNotFound: if the workspace has none of this name.
            InvalidInput: if it is a cache, which holds nothing of its own, or there is no reason.
        """
        text = parse_text(reason, what="reason", max_length=REASON_MAX_LENGTH)
        if not text.strip():
            raise InvalidInput("A loss needs a reason.", hint="Say what happened; certificates quote it: --reason TEXT")

        def give_up(session: Session) -> Loss:
            row = lock_location(session, caller.workspace_id, name)
            if row.kind != "storage":
                raise InvalidInput(
                    f"The cache {name!r} holds nothing of its own.", hint=f"Retire it: fairlead location retire {name}"
                )
            lost = session.get(LostLocationRow, (row.workspace_id, row.id))
            artifacts = _held_alone(session, row)
            if lost is None:
                lost = LostLocationRow(
                    workspace_id=row.workspace_id,
                    location_id=row.id,
                    region=row.region,
                    has_region=False,
                    reason=text,
                    lost_by=caller.principal,
                    lost_at=self._clock.now(),
                )
                session.add(lost)
            elif lost.has_region or not has_region:
                return _to_loss(row, lost, artifacts)
            lost.has_region = has_region
            self._forget(session, row)
            facts: dict[str, JsonValue] = {
                "region": row.region,
                "has_region": has_region,
                "reason": text,
                "artifacts": len(artifacts),
            }
            audit.record(session, caller, self._clock, action="location.lost", subject=row.name, facts=facts)
            return _to_loss(row, lost, artifacts)

        with self._database.write() as session:
            return run_once(session, caller, self._clock, key, result_type=Loss, action=lambda: give_up(session))

    def _forget(self, session: Session, row: LocationRow) -> None:
        """Let nothing be read from a location, nor wait for it; whoever is at work there notes nothing."""
        row.state = "RETIRED"
        at = (UploadRow.workspace_id == row.workspace_id, UploadRow.location_id == row.id)
        uploads = select(UploadRow).where(*at, UploadRow.state.in_(("OPEN", "VERIFYING"))).order_by(UploadRow.id)
        code, detail = "location-unavailable", f"The location {row.name} was given up for lost."
        given_up = [row.id]
        for upload in session.scalars(uploads.with_for_update()).all():
            upload.state, upload.error_code, upload.error_detail = "FAILED", code, detail
            session.flush()
            version_states.mark_failed(
                session, row.workspace_id, upload.id, code=code, detail=detail, now=self._clock.now()
            )
            given_up.append(upload.id)
        for table in (ReplicaRow, BlockRow, GarbageRow):
            session.execute(
                delete(table).where(table.workspace_id == row.workspace_id, table.location_id == row.id),
                execution_options={"synchronize_session": False},
            )
        session.execute(
            delete(WorkRow).where(
                WorkRow.workspace_id == row.workspace_id,
                or_(WorkRow.subject.in_(given_up), WorkRow.subject.endswith(f"/{row.id}")),
            ),
            execution_options={"synchronize_session": False},
        )


def _held_alone(session: Session, row: LocationRow) -> Sequence[str]:
    """The artifacts, not given up, of which no other location has bytes."""
    there = aliased(ReplicaRow)
    is_elsewhere = exists().where(
        there.workspace_id == ArtifactRow.workspace_id,
        there.residency == ArtifactRow.residency,
        there.artifact_digest == ArtifactRow.digest,
        there.location_id != row.id,
        there.layout_key.is_not(None),
    )
    query = (
        select(ArtifactRow.digest)
        .join(
            ReplicaRow,
            (ReplicaRow.workspace_id == ArtifactRow.workspace_id)
            & (ReplicaRow.residency == ArtifactRow.residency)
            & (ReplicaRow.artifact_digest == ArtifactRow.digest),
        )
        .where(
            ArtifactRow.workspace_id == row.workspace_id,
            ArtifactRow.released_at.is_(None),
            ReplicaRow.location_id == row.id,
            ReplicaRow.layout_key.is_not(None),
            ~is_elsewhere,
        )
    )
    return session.scalars(query.order_by(ArtifactRow.digest)).all()


def _to_loss(row: LocationRow, lost: LostLocationRow, artifacts: Sequence[str]) -> Loss:
    return Loss(
        location=to_location(row),
        has_region=lost.has_region,
        reason=lost.reason,
        lost_by=lost.lost_by,
        lost_at=lost.lost_at,
        artifact_count=len(artifacts),
        artifacts=tuple(artifacts[:_NAMED_MAX]),
    )
