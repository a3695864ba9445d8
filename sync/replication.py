"""Replication: every permitted replica VERIFIED, from the cheapest source, moving only what is missing.

A copy is planned (source, bytes, dollars), checked against residency and budgets once more, made, read back at the
destination, and only then recorded: the replica, the block index, the ledger row and the audit event in one transaction
under the lease. Whoever crashes on the way leaves packs that the next attempt finds and a lease that expires. A source
is asked for no byte twice that arrived once; what all attempts moved is what the ledger says.

It is too early, and no attempt, where the planned source is about to be VERIFIED or a budget does not cover the copy.

Mending a damaged replica is the same copy. First the replica is read once more, because the report may have been
wrong; then the packs that are damaged leave the block index, and what they held is sent again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from fairlead.core.errors import (
    CorruptPack,
    FairleadError,
    LeaseLost,
    LocationUnavailable,
    NotReady,
    PermissionDenied,
    ReplicaUnavailable,
    ResidencyViolation,
)
from fairlead.core.ids import Digest
from fairlead.registry import blocks, garbage, work
from fairlead.registry.locations import get_location
from fairlead.registry.replicas import ReplicaKey, lock_replica
from fairlead.registry.tables import ArtifactRow, ReplicaRow
from fairlead.sync import budgets
from fairlead.sync.copy_cost import copy_cost, planned_objects, sent_objects
from fairlead.sync.overlap import Overlaps, Rival
from fairlead.sync.pack_journal import PackJournal
from fairlead.sync.replication_record import CopyRecord, CopyTask, MadeCopy
from fairlead.sync.shelves import address_of, by_digest, open_for_writing, open_location
from fairlead.sync.sources import LOOK_AGAIN, Source, find_sources
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.copy import find_damaged
from fairlead.sync.store.known import among, either
from fairlead.sync.store.layout import blocks_of_newest_layout
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.transfer import Meter, PatientStore, Transfers
from fairlead.sync.verification import (
    DAMAGE,
    find_damaged_packs,
    forget_packs,
    read_back,
    shelf_of_replica,
)
from fairlead.sync.worker import progress_reporter

if TYPE_CHECKING:
    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, ObjectStore
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.work import LeasedWork
    from fairlead.sync.store.blocks import KnownBlocks
    from fairlead.sync.store.copy import CopyPlan
    from fairlead.sync.store.throttle import RateLimit


class _TooEarly(Exception):
    """The copy may not be made now, and that is nobody's failure."""

    def __init__(self, error: FairleadError, until: datetime) -> None:
        super().__init__(error.detail)
        self.error = error
        self.until = until


class Replication:
    """The handler of `replicate`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        catalog: Catalog,
        open_store: StoreOpener,
        transfers: Transfers | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._open_store = open_store
        self._transfers = transfers or Transfers()
        self._record = CopyRecord(database, clock, catalog=catalog)
        self._overlaps = Overlaps(catalog=catalog, open_store=open_store)

    def __call__(self, leased: LeasedWork) -> None:
        """Make one replica VERIFIED, or put that off because it is too early.

        Raises:
            LeaseLost: if another worker took over.
            ReplicaUnavailable: if there is no VERIFIED replica to copy from; the state stays, and it is tried again.
            FairleadError: whatever kept the copy from being made; it is tried again.
        """
        task = self._load(leased)
        if task is None:
            with self._database.write() as session:
                work.finish(session, leased)
            return
        try:
            opened = open_for_writing(self._open_store, task.destination, residency=task.key.residency)
            store = self._transfers.writing(opened)
            if task.is_repair and self._is_whole_after_all(leased, task, store):
                return
            self._require_source(task)
            self._record.begin(leased, task)
            copy = self._copy(leased, task, store)
        except LeaseLost:
            raise
        except _TooEarly as too_early:
            self._record.postpone(leased, task, too_early.error, too_early.until)
        except ResidencyViolation as error:
            self._record.refuse(leased, task, error)
        except FairleadError as error:
            self._record.fail(leased, task, error)
            raise
        else:
            self._record.succeed(leased, task, copy)

    def _load(self, leased: LeasedWork) -> CopyTask | None:
        key = ReplicaKey.from_subject(leased.workspace_id, leased.subject)
        of_artifact = (key.workspace_id, key.residency, key.artifact_digest)
        with self._database.read() as session:
            artifact = session.get(ArtifactRow, of_artifact)
            replica = session.get(ReplicaRow, (*of_artifact, key.location_id))
            if artifact is None or replica is None or replica.state == "VERIFIED":
                return None
            destination = get_location(session, key.workspace_id, key.location_id)
            shelf = shelf_of_replica(session, key)
            graves = garbage.find_graves(session, key.workspace_id, key.location_id, self._clock.now())
            sources = find_sources(session, self._catalog, replica, destination, self._clock.now())
        return CopyTask(
            key=key,
            shelf=shelf,
            destination=destination,
            layout_key=replica.layout_key,
            labels=artifact.labels,
            sources=sources,
            graves=graves,
        )

    def _is_whole_after_all(self, leased: LeasedWork, task: CopyTask, store: ObjectStore) -> bool:
        """Read the replica that should be mended; put it back into service if nothing is wrong with it."""
        digest = task.key.artifact_digest
        try:
            progress = progress_reporter(self._database, leased, phase="look")
            reader = read_back(store, task.domain, digest, task.layout_key, progress)
        except DAMAGE as damage:
            with self._database.read() as session:
                indexed = blocks.list_packs(session, task.shelf)
            packs = find_damaged_packs(store, task.domain, digest, task.layout_key, indexed)
            with self._database.write() as session:
                work.check_lease(session, leased)
                forget_packs(session, task.shelf, task.destination.region, packs, self._clock.now())
                replica = lock_replica(session, task.key)
                if replica is not None:
                    replica.error_code = replica.error_code or damage.code
            return False
        with self._database.write() as session:
            replica = lock_replica(session, task.key)
            if replica is not None:
                self._record.mark_verified(session, task, replica, reader, None)
                self._record.audit(session, task, "replica.verify", {"moved_bytes": 0})
            work.finish(session, leased)
        return True

    def _require_source(self, task: CopyTask) -> None:
        if task.sources.awaited is not None:
            waiting = NotReady(f"The cheapest way leads over {task.sources.awaited!r}, which does not hold it yet.")
            raise _TooEarly(waiting, self._clock.now() + LOOK_AGAIN)
        if not task.sources.ranked:
            raise ReplicaUnavailable(
                f"No replica of {task.key.artifact_digest} is VERIFIED: there is nothing to copy from.",
                hint="If the files still exist, register them again: that mends it.",
                artifact=task.key.artifact_digest,
            )

    def _copy(self, leased: LeasedWork, task: CopyTask, destination: PatientStore) -> MadeCopy:
        """Copy from the first source that can be read, and read the result back at the destination."""
        failure: FairleadError | None = None
        journal = PackJournal(self._database, leased, task.domain)
        for source in task.sources.ranked:
            try:
                copy = self._copy_from(leased, task, source, destination, journal)
            except DAMAGE as error:
                # What arrives is checked against the source's own digests, so this is about the source.
                self._record.report_source(leased, task, source, error)
                failure = error
            except (LocationUnavailable, PermissionDenied) as error:
                failure = error
            else:
                return self._read_back(leased, task, copy, destination)
        raise ReplicaUnavailable(
            f"No source of {task.key.artifact_digest} could be copied to {task.destination.name!r}: {failure}",
            hint="It is tried again by itself.",
            artifact=task.key.artifact_digest,
        ) from failure

    def _copy_from(
        self, leased: LeasedWork, task: CopyTask, source: Source, destination: PatientStore, journal: PackJournal
    ) -> MadeCopy:
        meter, digest = Meter(), Digest(task.key.artifact_digest)
        store = open_location(self._open_store, source.location)
        origin = self._transfers.reading(store, meter, self._limits(task, source))
        try:
            reader = ArtifactReader.open(origin, task.domain, digest, source.layout_key, nearer=destination)
            known = self._known_blocks(task, reader, destination)
            resumed = journal.find_blocks(destination, reader.layout.blocks)
            plan = self._transfers.plan(
                origin,
                destination,
                task.domain,
                digest,
                reader=reader,
                known_blocks=either(known, among(resumed)),
            )
            self._reserve(leased, task, source, plan)
            self._check_residency_now(task)
            report = self._transfers.copy(
                origin,
                destination.telling(journal.add),
                task.domain,
                digest,
                plan=plan,
                progress=progress_reporter(self._database, leased, phase="copy", meter=meter),
                addresses=(address_of(source.location), address_of(task.destination)),
            )
        finally:
            with self._database.write() as session:
                work.add_moved(session, leased, meter.take_untold())
        # What earlier attempts brought was planned too.
        brought = resumed.keys() - known(list(resumed)).keys()
        planned = plan.bytes + sum(resumed[each].stored_length for each in brought)
        written = ArtifactReader(
            destination, task.domain, manifest=reader.manifest, layout=report.layout, layout_key=report.layout_key
        )
        packs = {resumed[each].pack for each in brought}
        return MadeCopy(
            source=source,
            reader=written,
            planned_bytes=planned,
            planned_objects=planned_objects(plan, packs),
            sent_objects=sent_objects(plan, report.layout, packs),
        )

    def _limits(self, task: CopyTask, source: Source) -> tuple[RateLimit, ...]:
        with self._database.read() as session:
            return self._transfers.bandwidth.limits(
                session,
                task.key.workspace_id,
                source_region=source.location.region,
                region=task.destination.region,
            )

    def _reserve(self, leased: LeasedWork, task: CopyTask, source: Source, plan: CopyPlan) -> None:
        """Reserve what the copy may cost, with what earlier attempts have cost already.

        Raises:
            _TooEarly: if a budget does not cover it, or another copy is bringing much of the same just now.
        """
        region, source_region = task.destination.region, source.location.region

        def reserve(session: Session) -> budgets.Shortfall | None:
            size_bytes = work.moved_bytes(session, leased) + plan.bytes
            cost = copy_cost(
                self._catalog,
                source_region=source_region,
                region=region,
                size_bytes=size_bytes,
                objects=planned_objects(plan, ()),
            )
            return budgets.reserve(
                session, leased, source_region=source_region, region=region, usd=cost.usd, now=self._clock.now()
            )

        outcome = self._overlaps.unless_rivalled(
            self._database,
            leased,
            shelf=task.shelf,
            destination=task.destination,
            plan=plan,
            clock=self._clock,
            action=reserve,
        )
        if isinstance(outcome, Rival):
            waiting = NotReady(f"A copy of {outcome.digest} is bringing much of the same to {task.destination.name!r}.")
            raise _TooEarly(waiting, self._clock.now() + LOOK_AGAIN)
        if outcome is not None:
            raise _TooEarly(outcome.error, outcome.until)

    def _known_blocks(self, task: CopyTask, reader: ArtifactReader, destination: ObjectStore) -> KnownBlocks:
        """What the destination holds of the artifact; to mend it, only what was just read back."""

        def ask_index(digests: Sequence[Digest]) -> Mapping[Digest, StoredBlock]:
            with self._database.read() as session:
                return by_digest(blocks.find_blocks(session, task.shelf, list(digests)))

        if not task.is_repair:
            return ask_index
        wanted = list(reader.layout.blocks)
        newest = blocks_of_newest_layout(destination, task.domain, reader.manifest)
        claimed = dict(either(ask_index, newest)(wanted))
        for damaged in find_damaged(destination, task.domain, claimed):
            del claimed[damaged]
        return among(claimed)

    def _check_residency_now(self, task: CopyTask) -> None:
        # The last look before the first write, at the record as it is and not as it was when the task was loaded.
        with self._database.read() as session:
            destination = get_location(session, task.key.workspace_id, task.key.location_id)
        open_for_writing(self._open_store, destination, residency=task.key.residency)
        if (destination.url, destination.region) != (task.destination.url, task.destination.region):
            raise LocationUnavailable(f"The location {destination.name!r} has just changed.", hint="It is tried again.")

    def _read_back(self, leased: LeasedWork, task: CopyTask, copy: MadeCopy, destination: ObjectStore) -> MadeCopy:
        digest, layout_key = task.key.artifact_digest, copy.reader.layout_key
        try:
            progress = progress_reporter(self._database, leased, phase="read back")
            read_back(destination, task.domain, digest, layout_key, progress)
        except DAMAGE as error:
            with self._database.read() as session:
                indexed = blocks.list_packs(session, task.shelf)
            packs = find_damaged_packs(destination, task.domain, digest, layout_key, indexed)
            with self._database.write() as session:
                work.check_lease(session, leased)
                work.forget_packs(session, leased, packs)
                forget_packs(session, task.shelf, task.destination.region, packs, self._clock.now())
            raise CorruptPack(
                f"What {task.destination.name!r} holds of {digest} is not what was written there: {error.detail}",
                hint="It is sent again by itself.",
                artifact=digest,
            ) from error
        return copy
