"""The deriver that writes plans into replicas: each wanted one that is not VERIFIED learns its hop.

A plan is made anew when what it stands on has changed: the locations, the replicas that are wanted, a source that came
or went by another way than the plan's. It is not made anew as its hops are done, because what is left of a cheapest
tree is the cheapest tree for what is left. Where nothing lacks a replica, one query says so.

A relay that is no destination gets a replica row like one: it is wanted as long as a replica that lacks its bytes is
planned to get them from there, and then no longer, so that the collector takes it away (`replica_policies` keeps that
rule; without a policy every location that could be a relay is a destination).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.errors import FairleadError
from fairlead.registry.ledger import decimal_text
from fairlead.registry.locations import FILLED_STATES
from fairlead.registry.replicas import ReplicaKey, ensure_replica, lock_replica
from fairlead.registry.tables import ArtifactRow, LocationRow, ReplicaRow
from fairlead.sync.plans import VERIFIED, ReplicationPlans, Situation, look

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.sync.distribution import Hop

READ_AT_ONCE = 20
"""How many layouts are read in one round; whatever else lacks a plan is planned by its size alone."""

ArtifactKey = tuple[str, str, str]
_Grounds = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Decision:
    """The hops of an artifact, by the location that they lead to, and what they were decided upon."""

    grounds: _Grounds
    hops: Mapping[str, Hop]


class PlanSweep:
    """Plans what lacks a plan. Run it after replicas are derived and before copies of them are required."""

    def __init__(self, database: Database, plans: ReplicationPlans) -> None:
        self._database = database
        self._plans = plans
        self._decided: dict[ArtifactKey, _Grounds] = {}
        self._fresh: dict[ArtifactKey, _Decision] = {}

    def prepare(self, now: datetime) -> None:
        """Read what plans need and make them; outside of every transaction, because layouts are read from stores."""
        del now
        self._fresh.clear()
        with self._database.read() as session:
            lacking = _lacking(session)
            changed = [key for key in lacking if self._has_changed(session, key)]
            situations = [(key, _grounds(session, key), look(session, _artifact(session, key))) for key in changed]
        self._decided = {key: grounds for key, grounds in self._decided.items() if key in lacking}
        for number, (key, grounds, situation) in enumerate(situations):
            self._fresh[key] = _Decision(grounds, self._plan(situation, is_read=number < READ_AT_ONCE))

    def __call__(self, session: Session, now: datetime) -> None:
        """Write the plans that were prepared, unless what they stand on has changed since."""
        for key, decision in self._fresh.items():
            if _grounds(session, key) == decision.grounds:
                _write(session, key, decision, now)
                self._decided[key] = _grounds(session, key)
        self._fresh.clear()

    def _has_changed(self, session: Session, key: ArtifactKey) -> bool:
        return self._decided.get(key) != _grounds(session, key)

    def _plan(self, situation: Situation, *, is_read: bool) -> Mapping[str, Hop]:
        if not situation.sources:
            return {}
        contents = self._plans.read_contents(situation) if is_read else None
        try:
            distribution = self._plans.distribute(situation, contents)
        except FairleadError:
            # A copy is then made from the cheapest source, and says itself what keeps it from being made.
            return {}
        return {hop.destination.id: hop for hop in distribution.tree.hops}


def _lacking(session: Session) -> dict[ArtifactKey, None]:
    """The artifacts that some location wants and has not VERIFIED, in order."""
    query = (
        select(ReplicaRow.workspace_id, ReplicaRow.residency, ReplicaRow.artifact_digest)
        .join(
            LocationRow,
            (LocationRow.workspace_id == ReplicaRow.workspace_id) & (LocationRow.id == ReplicaRow.location_id),
        )
        .where(ReplicaRow.state != VERIFIED, ReplicaRow.is_wanted, LocationRow.state.in_(FILLED_STATES))
        .distinct()
        .order_by(ReplicaRow.workspace_id, ReplicaRow.residency, ReplicaRow.artifact_digest)
    )
    return dict.fromkeys((workspace, residency, digest) for workspace, residency, digest in session.execute(query))


def _artifact(session: Session, key: ArtifactKey) -> ArtifactRow:
    return session.get_one(ArtifactRow, key)


def _rows(session: Session, key: ArtifactKey) -> list[ReplicaRow]:
    workspace_id, residency, digest = key
    query = select(ReplicaRow).where(
        ReplicaRow.workspace_id == workspace_id,
        ReplicaRow.residency == residency,
        ReplicaRow.artifact_digest == digest,
    )
    return sorted(session.scalars(query).all(), key=lambda row: row.location_id)


def _grounds(session: Session, key: ArtifactKey) -> _Grounds:
    """What a plan stands on, so that a hop that was made as planned changes nothing of it."""
    locations = session.execute(
        select(LocationRow.id, LocationRow.state).where(LocationRow.workspace_id == key[0]).order_by(LocationRow.id)
    )
    rows = _rows(session, key)
    return (
        tuple(tuple(row) for row in locations),
        tuple(row.location_id for row in rows if row.is_wanted or row.state == VERIFIED),
        tuple(row.location_id for row in rows if row.state == VERIFIED and not _came_as_planned(row)),
        tuple(row.location_id for row in rows if row.state == "CORRUPT"),
    )


def _came_as_planned(row: ReplicaRow) -> bool:
    planned = row.planned_source_location_id
    return planned is not None and planned == row.source_location_id


def _write(session: Session, key: ArtifactKey, decision: _Decision, now: datetime) -> None:
    workspace_id, residency, digest = key
    for location_id in sorted(decision.hops):
        hop = decision.hops[location_id]
        replica_key = ReplicaKey(
            workspace_id=workspace_id, residency=residency, artifact_digest=digest, location_id=location_id
        )
        row = ensure_replica(session, replica_key, now) if hop.is_relay else lock_replica(session, replica_key)
        if row is None or row.state == VERIFIED:
            continue
        row.is_wanted = row.is_wanted or hop.is_relay
        row.planned_source_location_id = hop.source.id
        row.planned_bytes = hop.bytes
        row.planned_usd = decimal_text(hop.usd)
    session.flush()
