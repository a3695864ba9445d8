"""How a location comes into service and leaves it.

    WARMING -> ACTIVE      once what should be there is (or the share of it that `min_warm` says), and what was erased
                           while it was lost is not
    ACTIVE  -> DRAINING    when it is retired: nothing new is brought there or chosen from there
    DRAINING -> RETIRED    once nothing needs it: no artifact's last replica, no upload, no deployment

The states follow from the record alone, so any worker may work them out, at any time, again. Replicas at a RETIRED
location are read no more and wanted no more: collection takes them away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from fairlead.core.errors import Conflict, JsonValue, LocationInUse
from fairlead.core.ports import RegionUser
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller, system_caller
from fairlead.registry.location_returns import is_to_be_cleared
from fairlead.registry.locations import (
    FILLED_STATES,
    Location,
    filled_locations,
    find_location,
    lock_location,
    to_location,
    traffic_locations,
)
from fairlead.registry.replicas import want_replicas
from fairlead.registry.tables import ArtifactRow, LocationRow, ReplicaRow, UploadRow

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, RegionUse

_SETTLING = timedelta(seconds=30)
"""How long a new location waits for its first replica rows before it is taken to want none."""

_NAMED_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LastReplica:
    """An artifact that no other location holds. `copied_to` are those that are to, or of which policies choose."""

    artifact: str
    kind: str
    residency: str
    size_bytes: int
    copied_to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """What retiring a location takes away, and what still needs it. `last_replicas` lists at most 100."""

    location: Location
    replicas: int
    stored_bytes: int
    last_replica_count: int
    last_replicas: tuple[LastReplica, ...]
    open_uploads: int
    used_by: tuple[RegionUser, ...]


class Retirements:
    """Retires locations, and shows what that takes and waits for."""

    def __init__(self, database: Database, clock: Clock, *, region_use: RegionUse) -> None:
        self._database = database
        self._clock = clock
        self._region_use = region_use

    def show(self, caller: Caller, name: str) -> Retirement:
        """What retiring a location would take away, or what its retirement still waits for.

        Raises:
            LocationNotFound: if the workspace has none of this name.
        """
        with self._database.read() as session:
            location = find_location(session, caller.workspace_id, name)
            row = session.get_one(LocationRow, (caller.workspace_id, location.id))
            return _examine(session, row, self._region_use)

    def retire(self, caller: Caller, name: str, *, key: IdempotencyKey | None = None) -> Retirement:
        """Begin to drain a location. What only it holds is copied elsewhere first; then nothing is read from it.

        Repeating it changes nothing. A cache is RETIRED at once, since it holds nothing of its own.

        Raises:
            LocationNotFound: if the workspace has none of this name.
            LocationInUse: if it holds the last replica of something that no other location should have.
        """

        def retire(session: Session) -> Retirement:
            row = lock_location(session, caller.workspace_id, name)
            if row.state in FILLED_STATES:
                row.state = "DRAINING" if row.kind == "storage" else "RETIRED"
                session.flush()
                _want_elsewhere(session, row, self._clock.now())
                found = _examine(session, row, self._region_use)
                _refuse_loss(session, row)
                facts: dict[str, JsonValue] = {
                    "region": row.region,
                    "state": row.state,
                    "replicas": found.replicas,
                    "last_replicas": found.last_replica_count,
                }
                audit.record(session, caller, self._clock, action="location.retire", subject=row.name, facts=facts)
                return found
            return _examine(session, row, self._region_use)

        with self._database.write() as session:
            return run_once(session, caller, self._clock, key, result_type=Retirement, action=lambda: retire(session))

    def keep(self, caller: Caller, name: str) -> Location:
        """Take back a retirement that is not over: what should be there is brought there again.

        Raises:
            LocationNotFound: if the workspace has none of this name.
            Conflict: if it is RETIRED already.
        """
        with self._database.write() as session:
            row = lock_location(session, caller.workspace_id, name)
            if row.state == "RETIRED":
                raise Conflict(
                    f"The location {name!r} is retired, and its objects may be gone.",
                    hint="Add it again under another name, with a prefix of its own.",
                )
            if row.state == "DRAINING":
                row.state = "WARMING"
                audit.record(
                    session, caller, self._clock, action="location.keep", subject=row.name, facts={"region": row.region}
                )
            return to_location(row)


class LocationStates:
    """The deriver of locations' states."""

    def __init__(self, region_use: RegionUse) -> None:
        self._region_use = region_use

    def __call__(self, session: Session, now: datetime) -> None:
        """Move every location on whose time has come. Two that do so at once divide them up."""
        query = select(LocationRow).where(LocationRow.kind == "storage", LocationRow.state != "ACTIVE")
        for row in session.scalars(query.with_for_update(skip_locked=True)).all():
            if row.state == "WARMING":
                _activate_when_warm(session, row, now)
            elif row.state == "DRAINING":
                self._retire_when_drained(session, row, now)
            if row.state == "RETIRED":
                _unwant(session, row, now)

    def _retire_when_drained(self, session: Session, row: LocationRow, now: datetime) -> None:
        _want_elsewhere(session, row, now)
        if (
            session.scalar(_last_replicas(row).limit(1)) is not None
            or _open_uploads(session, row)
            or _users(session, row, self._region_use)
        ):
            return
        row.state = "RETIRED"
        _record(session, row, now, "location.retired", {})


def _activate_when_warm(session: Session, row: LocationRow, now: datetime) -> None:
    wanted, verified = _count_wanted(session, row)
    if wanted == 0 and now < row.created_at + _SETTLING and _may_want(session, row):
        return
    if verified < float(row.settings.get("min_warm", 1.0)) * wanted or is_to_be_cleared(session, row):
        return
    row.state = "ACTIVE"
    _record(session, row, now, "location.activate", {"wanted": wanted, "verified": verified})


def _may_want(session: Session, row: LocationRow) -> bool:
    location = to_location(row)
    artifacts = session.scalars(select(ArtifactRow).where(ArtifactRow.workspace_id == row.workspace_id))
    return any(location.permits(artifact.residency, artifact.regions) for artifact in artifacts)


def _unwant(session: Session, row: LocationRow, now: datetime) -> None:
    # Also what a copy that was under way has finished since.
    session.execute(
        update(ReplicaRow)
        .where(
            ReplicaRow.workspace_id == row.workspace_id,
            ReplicaRow.location_id == row.id,
            or_(ReplicaRow.is_wanted, ReplicaRow.state == "VERIFIED"),
        )
        .values(is_wanted=False, state="PENDING", updated_at=now)
    )


def _want_elsewhere(session: Session, row: LocationRow, now: datetime) -> None:
    """Make sure that what only this location holds has rows at the others that should have it."""
    for artifact in session.scalars(_last_replicas(row)).all():
        want_replicas(session, artifact, now)


def _count_wanted(session: Session, row: LocationRow) -> tuple[int, int]:
    """How many replicas should be at a location, and how many of them are VERIFIED."""
    query = select(func.count(), func.count().filter(ReplicaRow.state == "VERIFIED")).where(
        ReplicaRow.workspace_id == row.workspace_id, ReplicaRow.location_id == row.id, ReplicaRow.is_wanted
    )
    wanted, verified = session.execute(query).one()
    return int(wanted), int(verified)


def _same_artifact(replica: type[ReplicaRow]) -> ColumnElement[bool]:
    return and_(
        replica.workspace_id == ArtifactRow.workspace_id,
        replica.residency == ArtifactRow.residency,
        replica.artifact_digest == ArtifactRow.digest,
    )


def _last_replicas(row: LocationRow) -> Select[ArtifactRow]:
    """The artifacts whose only VERIFIED replica at a location that stays is the one here."""
    here, there, place = aliased(ReplicaRow), aliased(ReplicaRow), aliased(LocationRow)
    is_elsewhere = (
        exists()
        .where(
            _same_artifact(there),
            there.state == "VERIFIED",
            there.is_wanted,
            place.workspace_id == there.workspace_id,
            place.id == there.location_id,
            place.id != row.id,
            place.kind == "storage",
            place.state.in_(FILLED_STATES),
        )
        .correlate(ArtifactRow)
    )
    return (
        select(ArtifactRow)
        .join(here, _same_artifact(here))
        .where(
            ArtifactRow.workspace_id == row.workspace_id,
            here.location_id == row.id,
            here.state == "VERIFIED",
            ~is_elsewhere,
        )
        .order_by(ArtifactRow.digest, ArtifactRow.residency)
    )


def _open_uploads(session: Session, row: LocationRow) -> int:
    query = select(func.count()).where(
        UploadRow.workspace_id == row.workspace_id,
        UploadRow.location_id == row.id,
        UploadRow.state.in_(["OPEN", "VERIFYING"]),
    )
    return session.scalar(query) or 0


def _users(session: Session, row: LocationRow, region_use: RegionUse) -> tuple[RegionUser, ...]:
    """What runs in the region and could read from no other location there."""
    others = [each for each in traffic_locations(session, row.workspace_id) if each.id != row.id]
    if row.kind != "storage" or any(each.region == row.region for each in others):
        return ()
    return tuple(region_use.used_by(row.workspace_id, row.region))


def _examine(session: Session, row: LocationRow, region_use: RegionUse) -> Retirement:
    held = select(func.count(), func.coalesce(func.sum(ReplicaRow.stored_bytes), 0)).where(
        ReplicaRow.workspace_id == row.workspace_id,
        ReplicaRow.location_id == row.id,
        ReplicaRow.layout_key.is_not(None),
    )
    replicas, stored_bytes = session.execute(held).one()
    last = session.scalars(_last_replicas(row)).all()
    others = [each for each in filled_locations(session, row.workspace_id) if each.id != row.id]
    return Retirement(
        location=to_location(row),
        replicas=replicas or 0,
        stored_bytes=stored_bytes or 0,
        last_replica_count=len(last),
        last_replicas=tuple(_to_last(session, artifact, others) for artifact in last[:_NAMED_MAX]),
        open_uploads=_open_uploads(session, row),
        used_by=_users(session, row, region_use),
    )


def _to_last(session: Session, artifact: ArtifactRow, others: Sequence[Location]) -> LastReplica:
    wanted = select(ReplicaRow.location_id).where(_same_artifact_as(artifact), ReplicaRow.is_wanted)
    ids = set(session.scalars(wanted))
    permitted = [each for each in others if each.permits(artifact.residency, artifact.regions)]
    # Where policies decide, the sweep chooses one of the permitted ones as soon as this one is given up.
    chosen = [each for each in permitted if each.id in ids] or permitted
    return LastReplica(
        artifact=artifact.digest,
        kind=artifact.kind,
        residency=artifact.residency,
        size_bytes=artifact.size_bytes,
        copied_to=tuple(each.name for each in chosen),
    )


def _same_artifact_as(artifact: ArtifactRow) -> ColumnElement[bool]:
    return and_(
        ReplicaRow.workspace_id == artifact.workspace_id,
        ReplicaRow.residency == artifact.residency,
        ReplicaRow.artifact_digest == artifact.digest,
    )


def _refuse_loss(session: Session, row: LocationRow) -> None:
    others = [each for each in filled_locations(session, row.workspace_id) if each.id != row.id]
    lost = [
        artifact.digest
        for artifact in session.scalars(_last_replicas(row)).all()
        if not _to_last(session, artifact, others).copied_to
    ]
    if lost:
        raise LocationInUse(
            f"{row.name!r} holds the last replica of {len(lost)} artifacts that may be nowhere else: {lost[0]} ...",
            hint="Add a location where they may be, and retire this one then.",
            location=row.name,
            artifacts=list(lost[:_NAMED_MAX]),
        )


def _record(session: Session, row: LocationRow, now: datetime, action: str, facts: dict[str, JsonValue]) -> None:
    caller = system_caller(row.workspace_id, "worker")
    audit.record_at(session, caller, now, action=action, subject=row.name, facts={"region": row.region, **facts})
