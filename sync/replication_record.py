"""What becomes of a replica while it is copied, in the record: each step in one transaction, under the lease."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.errors import FairleadError, JsonValue, NotReady, ResidencyViolation
from fairlead.registry import audit, blocks, ledger, work
from fairlead.registry.identity import system_caller
from fairlead.registry.replicas import REPLICATE, ReplicaKey, key_of, lock_replica, mark_corrupt, mark_verified
from fairlead.registry.tables import ReplicaRow
from fairlead.sync.copy_cost import copy_cost
from fairlead.sync.shelves import domain_of, to_place
from fairlead.sync.verification import keep_objects

if TYPE_CHECKING:
    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.blocks import BlockShelf
    from fairlead.registry.locations import Location
    from fairlead.registry.work import LeasedWork
    from fairlead.sync.sources import Source, Sources
    from fairlead.sync.store.domain import DedupDomain
    from fairlead.sync.store.reader import ArtifactReader


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyTask:
    """A replica that is not VERIFIED, and where it could come from, best first."""

    key: ReplicaKey
    shelf: BlockShelf
    destination: Location
    layout_key: str | None
    labels: Mapping[str, str]
    sources: Sources
    graves: frozenset[str]

    @property
    def is_repair(self) -> bool:
        """Whether the replica was VERIFIED once: its layout is known, and something of it may still be there."""
        return self.layout_key is not None

    @property
    def domain(self) -> DedupDomain:
        return domain_of(self.shelf)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeCopy:
    """A copy that was made, and what it should have moved."""

    source: Source
    reader: ArtifactReader
    planned_bytes: int
    planned_objects: int
    sent_objects: int


class CopyRecord:
    """Records the steps of `replicate`."""

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog

    def begin(self, leased: LeasedWork, task: CopyTask) -> None:
        """Say that a copy runs, in a transaction of its own."""
        with self._database.write() as session:
            work.check_lease(session, leased)
            replica = lock_replica(session, task.key)
            if replica is not None:
                replica.state = "COPYING"
                replica.updated_at = self._clock.now()

    def mark_verified(
        self,
        session: Session,
        task: CopyTask,
        replica: ReplicaRow,
        reader: ArtifactReader,
        moved: tuple[Source, int] | None,
    ) -> None:
        """Make a replica VERIFIED, and keep what it stands on; `moved` is from where how many bytes came, if any."""
        mark_verified(
            session,
            replica,
            layout_key=reader.layout_key,
            stored_bytes=reader.layout.stored_bytes,
            moved_bytes=None if moved is None else moved[1],
            source_location_id=None if moved is None else moved[0].location.id,
            now=self._clock.now(),
        )
        keep_objects(session, task.shelf, reader, task.graves)
        blocks.add_blocks(session, task.shelf, map(to_place, reader.layout.blocks.values()))

    def succeed(self, leased: LeasedWork, task: CopyTask, copy: MadeCopy) -> None:
        """Record a copy that was made and read back, and end its work."""
        with self._database.write() as session:
            replica = lock_replica(session, task.key)
            if replica is not None:
                moved_bytes = work.moved_bytes(session, leased)
                self.mark_verified(session, task, replica, copy.reader, (copy.source, moved_bytes))
                self._account(session, leased, task, copy, moved_bytes)
            work.finish(session, leased)
            self._wake_rivals(session, task)

    def fail(self, leased: LeasedWork, task: CopyTask, error: FairleadError) -> None:
        """Record what kept a copy from being made; the work goes on."""
        with self._database.write() as session:
            work.check_lease(session, leased)
            replica = lock_replica(session, task.key)
            if replica is not None and replica.state != "VERIFIED":
                # A damaged replica stays CORRUPT, with what was found, until it is mended: that is what it is.
                if task.is_repair:
                    replica.state = _state_of_repair(replica)
                else:
                    replica.state = "PENDING" if not task.sources.ranked else "FAILED"
                    replica.error_code = error.code
                replica.updated_at = self._clock.now()
            self._wake_rivals(session, task)
            # Who planned to copy from here need not wait any longer to look elsewhere.
            followers = select(ReplicaRow).where(
                ReplicaRow.workspace_id == task.key.workspace_id,
                ReplicaRow.residency == task.key.residency,
                ReplicaRow.artifact_digest == task.key.artifact_digest,
                ReplicaRow.planned_source_location_id == task.key.location_id,
                ReplicaRow.state == "PENDING",
            )
            for follower in session.scalars(followers).all():
                subject, now = key_of(follower).subject, self._clock.now()
                work.hasten(session, workspace_id=task.key.workspace_id, kind=REPLICATE, subject=subject, now=now)

    def postpone(self, leased: LeasedWork, task: CopyTask, reason: FairleadError, until: datetime) -> None:
        """Give the work back without counting an attempt; the replica is as it was."""
        with self._database.write() as session:
            work.check_lease(session, leased)
            replica = lock_replica(session, task.key)
            if replica is not None and replica.state == "COPYING":
                replica.state = _state_of_repair(replica) if task.is_repair else "PENDING"
                replica.updated_at = self._clock.now()
        work.postpone(self._database, leased, until, reason)

    def refuse(self, leased: LeasedWork, task: CopyTask, error: ResidencyViolation) -> None:
        """End work that nothing can make lawful; it is not required again."""
        with self._database.write() as session:
            replica = lock_replica(session, task.key)
            if replica is not None:
                replica.state = "FAILED"
                replica.error_code = error.code
                replica.updated_at = self._clock.now()
            facts: dict[str, JsonValue] = {"location": task.destination.name, **error.attributes}
            self.audit(session, task, "replica.refuse", facts)
            work.finish(session, leased)

    def report_source(self, leased: LeasedWork, task: CopyTask, source: Source, error: FairleadError) -> None:
        """Take a source out of service that turned out damaged."""
        now = self._clock.now()
        key = ReplicaKey(
            workspace_id=task.key.workspace_id,
            residency=task.key.residency,
            artifact_digest=task.key.artifact_digest,
            location_id=source.location.id,
        )
        with self._database.write() as session:
            work.check_lease(session, leased)
            replica = lock_replica(session, key)
            if replica is not None and replica.state == "VERIFIED" and replica.layout_key == source.layout_key:
                mark_corrupt(session, replica, source.location.region, error.code, now)
                facts: dict[str, JsonValue] = {"location": source.location.name, "code": error.code}
                self.audit(session, task, "replica.corrupt", facts)

    def audit(self, session: Session, task: CopyTask, action: str, facts: Mapping[str, JsonValue]) -> None:
        """Write down what became of a replica, in the transaction that records it."""
        audit.record(
            session,
            system_caller(task.key.workspace_id, "worker"),
            self._clock,
            action=action,
            subject=task.key.artifact_digest,
            residency=task.key.residency,
            facts=facts,
        )

    def _account(self, session: Session, leased: LeasedWork, task: CopyTask, copy: MadeCopy, moved_bytes: int) -> None:
        kind: Literal["repair", "replicate"] = "repair" if task.is_repair else "replicate"
        source, region = copy.source.location.region, task.destination.region
        planned, actual = (
            copy_cost(self._catalog, source_region=source, region=region, size_bytes=size, objects=objects)
            for size, objects in ((copy.planned_bytes, copy.planned_objects), (moved_bytes, copy.sent_objects))
        )
        ledger.record(
            session,
            workspace_id=task.key.workspace_id,
            residency=task.key.residency,
            # A piece of work keeps its id over all its attempts, and ends with the one that is recorded.
            cause=f"{kind}/{leased.id}",
            kind=kind,
            subject=task.key.artifact_digest,
            source_region=source,
            region=region,
            planned_bytes=copy.planned_bytes,
            moved_bytes=moved_bytes,
            planned=planned,
            actual=actual,
            labels=task.labels,
            now=self._clock.now(),
        )
        facts: dict[str, JsonValue] = {
            "location": task.destination.name,
            "region": region,
            "source_region": source,
            "moved_bytes": moved_bytes,
            "usd": ledger.decimal_text(actual.usd),
        }
        self.audit(session, task, f"replica.{kind}", facts)

    def _wake_rivals(self, session: Session, task: CopyTask) -> None:
        """Let the copies to the same location that wait look again: this one has ended."""
        key = task.key
        work.hasten_postponed(
            session, key.workspace_id, NotReady.code, self._clock.now(), subject_end=f"/{key.location_id}"
        )


def _state_of_repair(replica: ReplicaRow) -> str:
    """CORRUPT where something was found to be wrong; one that was restored with the record was not looked at yet."""
    return "CORRUPT" if replica.error_code is not None else "PENDING"
