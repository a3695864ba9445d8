"""Where a copy reads from: the source that the plan names, or the cheapest VERIFIED one where that is not coming.

The plan is a tree, so a source may itself be waiting for its own. A copy waits for its planned source as long as
something moves on the way there, and no longer: a region that is away, or that nobody works for, is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Select, and_, select
from sqlalchemy.orm import Session

from fairlead.core.errors import LocationNotFound
from fairlead.registry.locations import Location, get_location
from fairlead.registry.replicas import REPLICATE, ReplicaKey, key_of
from fairlead.registry.tables import LocationRow, ReplicaRow, WorkRow

if TYPE_CHECKING:
    from fairlead.catalog import Catalog

WAIT_FOR_SOURCE = timedelta(minutes=10)
"""How long a source that could be copied to, and is not, is waited for while nobody works in its region."""

LOOK_AGAIN = timedelta(seconds=30)
"""When a copy that waits for its source looks again, unless it is told before."""

_BLOCKED = frozenset({"budget-exhausted", "replica-unavailable"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A VERIFIED replica to copy from."""

    location: Location
    layout_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a copy may read from, best first; or, where `awaited` is given, the location that it is better to wait for.

    `is_planned` says whether the first one is the plan's.
    """

    ranked: tuple[Source, ...]
    awaited: str | None = None
    is_planned: bool = False


def rank_sources(
    catalog: Catalog, candidates: Sequence[tuple[Location, str]], destination: Location
) -> tuple[Source, ...]:
    """Sources in order of what a byte from them costs: in dollars, then in grams, then by name."""

    def cost(candidate: tuple[Location, str]) -> tuple[float, float, str]:
        location, _ = candidate
        tariff = catalog.egress(location.region, destination.region).value
        grams = catalog.transfer_carbon(location.region, destination.region, 10**9).value
        return tariff, grams, location.name

    return tuple(Source(location=location, layout_key=key) for location, key in sorted(candidates, key=cost))


def find_sources(
    session: Session, catalog: Catalog, replica: ReplicaRow, destination: Location, now: datetime
) -> Sources:
    """The VERIFIED replicas of an artifact that one of its replicas may be copied from.

    Where there is none, those that were given up: until they are collected their bytes may still be whole, and a copy
    compares every one of them.
    """
    verified = _candidates(session, replica, ReplicaRow.state == "VERIFIED")
    given_up = and_(ReplicaRow.state == "PENDING", ~ReplicaRow.is_wanted, ReplicaRow.layout_key.is_not(None))
    ranked = rank_sources(catalog, verified or _candidates(session, replica, given_up), destination)
    planned = replica.planned_source_location_id
    if planned is None or planned == replica.location_id:
        return Sources(ranked=ranked)
    first = tuple(source for source in ranked if source.location.id == planned)
    if first:
        return Sources(ranked=first + tuple(each for each in ranked if each not in first), is_planned=True)
    awaited = session.get(ReplicaRow, (replica.workspace_id, replica.residency, replica.artifact_digest, planned))
    if awaited is None or not is_coming(session, awaited, now, waiting_for={replica.location_id}):
        return Sources(ranked=ranked)
    try:
        name = get_location(session, replica.workspace_id, planned).name
    except LocationNotFound:
        return Sources(ranked=ranked)
    return Sources(ranked=ranked, awaited=name)


def _candidates(session: Session, replica: ReplicaRow, condition: ColumnElement[bool]) -> list[tuple[Location, str]]:
    """The artifact's other replicas at storage locations of which a condition holds, with their layouts' keys."""
    query = (
        select(ReplicaRow)
        .join(
            LocationRow,
            (LocationRow.workspace_id == ReplicaRow.workspace_id) & (LocationRow.id == ReplicaRow.location_id),
        )
        .where(
            ReplicaRow.workspace_id == replica.workspace_id,
            ReplicaRow.residency == replica.residency,
            ReplicaRow.artifact_digest == replica.artifact_digest,
            ReplicaRow.location_id != replica.location_id,
            # A cache holds what was asked for, until it needs the room.
            LocationRow.kind == "storage",
            condition,
        )
    )
    return [
        (get_location(session, row.workspace_id, row.location_id), row.layout_key or "")
        for row in session.scalars(query).all()
    ]


def is_coming(session: Session, replica: ReplicaRow, now: datetime, *, waiting_for: set[str]) -> bool:
    """Whether a replica is about to be VERIFIED: it is being copied, its turn comes, or the same is true of its source.

    `waiting_for` are the locations that wait for it: a plan that runs in a circle brings nothing.
    """
    while replica.state != "VERIFIED":
        if replica.location_id in waiting_for or not replica.is_wanted or replica.state in {"FAILED", "CORRUPT"}:
            return False
        waiting_for = waiting_for | {replica.location_id}
        task = session.scalars(_work_on(key_of(replica))).one_or_none()
        if task is None:
            return now - replica.updated_at < WAIT_FOR_SOURCE
        if task.lease_expires_at is not None and task.lease_expires_at > now:
            return True
        if task.error_code in _BLOCKED:
            return False
        if task.not_before <= now:
            since = max(task.not_before, task.lease_expires_at or task.not_before)
            return now - since < WAIT_FOR_SOURCE or _is_served(session, task.region, now)
        above = session.get(
            ReplicaRow,
            (
                replica.workspace_id,
                replica.residency,
                replica.artifact_digest,
                replica.planned_source_location_id or "",
            ),
        )
        if above is None:
            return False
        replica = above
    return True


def _work_on(key: ReplicaKey) -> Select[WorkRow]:
    return select(WorkRow).where(
        WorkRow.workspace_id == key.workspace_id, WorkRow.kind == REPLICATE, WorkRow.subject == key.subject
    )


def _is_served(session: Session, region: str, now: datetime) -> bool:
    """Whether a worker of a region is at work: then what waits there is waiting for its turn."""
    running = select(WorkRow.id).where(WorkRow.region == region, WorkRow.lease_expires_at > now).limit(1)
    return session.scalar(running) is not None
