"""What a worker does for this package: its handlers by kind of work, and the derivers that require that work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.registry.replicas import (
    REPLICATE,
    VERIFY_REPLICA,
    ArtifactKey,
    derive_replicas,
    derive_replications,
    next_artifacts,
)
from fairlead.registry.retirement import LocationStates
from fairlead.registry.tables import LocationRow
from fairlead.registry.uploads import VERIFY_UPLOAD, derive_verifications
from fairlead.sync.plan_sweep import PlanSweep
from fairlead.sync.plans import ReplicationPlans
from fairlead.sync.priorities import derive_priorities
from fairlead.sync.publication import PUBLISH_REFS, Publication, derive_publications
from fairlead.sync.record_publication import PUBLISH_RECORD, RecordPublication
from fairlead.sync.record_rows import RecordSource, registry_rows
from fairlead.sync.replication import Replication
from fairlead.sync.upkeep import UPKEEP
from fairlead.sync.upkeep_duties import UpkeepRules, upkeep_derivers, upkeep_work
from fairlead.sync.verification import ReplicaVerification, UploadVerification
from fairlead.sync.worker import Deriver, Handler, throttled

if TYPE_CHECKING:
    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, RegionUse, RegionUser
    from fairlead.registry.locations import StoreOpener
    from fairlead.sync.transfer import Transfers

_SWEEP_EVERY = timedelta(seconds=15)
_SWEEP_PART = 2000
_LOOK_FOR_PROMOTED_EVERY = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """Handlers and derivers, for `Worker`."""

    handlers: Mapping[str, Handler]
    derivers: Sequence[Deriver]


def sync_duties(
    database: Database,
    clock: Clock,
    *,
    catalog: Catalog,
    open_store: StoreOpener,
    signing_key: bytes,
    former_signing_keys: Sequence[bytes] = (),
    upkeep: UpkeepRules | None = None,
    region_use: RegionUse | None = None,
    transfers: Transfers | None = None,
    plans: ReplicationPlans | None = None,
    record_sources: Sequence[RecordSource] = (registry_rows,),
) -> Duties:
    """The duties of this package.

    `signing_key` signs the refs: an Ed25519 private key, as its 32 raw bytes. `upkeep` says how often locations are
    read again and cleared of what nothing refers to, `region_use` what keeps a location from being retired,
    `transfers` how copies are made, and `plans` from where; `record_sources` have the rows of the record's copies.
    """
    rules = upkeep or UpkeepRules()
    record = RecordPublication(database, clock, open_store=open_store, signing_key=signing_key, sources=record_sources)
    return Duties(
        handlers={
            VERIFY_UPLOAD: UploadVerification(database, clock, catalog=catalog, open_store=open_store),
            REPLICATE: Replication(database, clock, catalog=catalog, open_store=open_store, transfers=transfers),
            VERIFY_REPLICA: ReplicaVerification(database, clock, open_store=open_store),
            PUBLISH_REFS: Publication(database, clock, open_store=open_store, signing_key=signing_key),
            PUBLISH_RECORD: record,
            UPKEEP: upkeep_work(
                database,
                clock,
                open_store=open_store,
                signing_keys=(signing_key, *former_signing_keys),
                rules=rules,
            ),
        },
        derivers=[
            derive_verifications,
            ReplicaSweep(),
            LocationStates(region_use or _NoUse()),
            PlanSweep(database, plans or ReplicationPlans(database, catalog=catalog, open_store=open_store)),
            derive_replications,
            throttled(derive_priorities, _LOOK_FOR_PROMOTED_EVERY),
            derive_publications,
            record.derive,
            *upkeep_derivers(rules),
        ],
    )


class _NoUse:
    def used_by(self, workspace_id: str, region: str) -> Sequence[RegionUser]:  # noqa: ARG002  (the port's)
        return ()


class ReplicaSweep:
    """The deriver of replica rows: all at once where a location is new, and else a part now and then.

    A part is some thousand artifacts, for rows that were lost; the next one goes on from there.
    """

    def __init__(self, every: timedelta = _SWEEP_EVERY, *, part: int = _SWEEP_PART) -> None:
        self._every = every
        self._part = part
        self._after: ArtifactKey | None = None
        self._due: datetime | None = None
        self._seen: frozenset[str] = frozenset()

    def __call__(self, session: Session, now: datetime) -> None:
        """Insert the replica rows that should exist and do not."""
        locations = frozenset(session.scalars(select(LocationRow.id)))
        if not locations <= self._seen:
            derive_replicas(session, now)
        elif self._due is None or now >= self._due:
            among = next_artifacts(session, self._after, self._part)
            if among:
                derive_replicas(session, now, among)
            self._after = among[-1] if len(among) == self._part else None
        else:
            return
        self._due, self._seen = now + self._every, locations
