"""Collection: what nothing refers to leaves a location, in steps that no upload, copy or crash can trip over.

A pass lists what is there and finds what must stay (`reachability`). Every other object of ours goes on by one step, if
it has aged in its present one (`registry.garbage` has the states and the argument why this is safe):

    MARKED      nothing referred to it when it was seen
    WITHDRAWN   the block index no longer names its blocks, so nobody new builds on them
    DELETING    still nothing refers to it, and whoever was told of it before it was withdrawn is done: delete it
    DELETED     its grave, until nobody can still be acting on what was read before

The grace is longer than an upload may be open without asking anything, and than a read through an old layout lasts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.clock import format_time
from fairlead.registry import audit, blocks, garbage, work
from fairlead.registry.garbage import Garbage
from fairlead.registry.identity import system_caller
from fairlead.registry.replicas import REPLICATE, lock_replica
from fairlead.registry.tables import UploadRow, WorkRow
from fairlead.sync.inventory import StoredObject, classify, list_objects
from fairlead.sync.reachability import Reach, References, Standing, find_reach
from fairlead.sync.repack import Repacking
from fairlead.sync.shelves import open_location, packs_by_shelf
from fairlead.sync.store.local import remove_abandoned
from fairlead.sync.upkeep import Pass, Report

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, ObjectStore
    from fairlead.registry.locations import StoreOpener

GRACE = timedelta(hours=24)
REPACK_BELOW = 0.5

_PATIENCE = 4
_DELETES_AT_ONCE = 8
_DELETES_PER_CHECK = 32
# Readers come by manifest, layout and pack; what they find always has everything below it.
_ORDER: Mapping[str, int] = {"record": 0, "manifest": 1, "layout": 2, "pack": 3}

Step = Literal["mark", "withdraw", "delete", "keep", "wait", "forget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Builders:
    """Who may be building on what the index said: uploads that are open, by domain, and copies that run."""

    uploads: Mapping[str, Sequence[datetime]]
    copies: Mapping[str, Sequence[datetime]]

    def is_before(self, each: StoredObject, moment: datetime) -> bool:
        """Whether one of an object's domain had begun by then."""
        return any(begun <= moment for begun in (*self._uploads_of(each), *self._copies_of(each)))

    def has_upload(self, each: StoredObject) -> bool:
        """Whether an upload to an object's domain is open: it may be writing the same pack again."""
        return bool(self._uploads_of(each))

    def _uploads_of(self, each: StoredObject) -> Sequence[datetime]:
        return () if each.domain is None else self.uploads.get(each.domain.prefix, ())

    def _copies_of(self, each: StoredObject) -> Sequence[datetime]:
        return () if each.domain is None else self.copies.get(each.domain.residency, ())


@dataclass(slots=True, kw_only=True)
class _Plan:
    """What a pass does: objects to mark (with the reason), and rows by the step that they take."""

    mark: list[tuple[str, int, str]] = field(default_factory=list[tuple[str, int, str]])
    steps: dict[Step, list[Garbage]] = field(default_factory=dict[Step, list[Garbage]])

    def add(self, step: Step, row: Garbage) -> None:
        """Let a row take a step."""
        self.steps.setdefault(step, []).append(row)

    def of(self, step: Step) -> list[Garbage]:
        """The rows that take a step."""
        return self.steps.get(step, [])


class Collection:
    """The task `collect`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        open_store: StoreOpener,
        grace: timedelta = GRACE,
        repack_below: float = REPACK_BELOW,
    ) -> None:
        self._database = database
        self._clock = clock
        self._open_store = open_store
        self._grace = grace
        self._repacking = Repacking(database, clock, below=repack_below)

    def __call__(self, running: Pass) -> Report:
        """Let everything at a location that nothing refers to go on by one step, and repack what is mostly dead.

        Raises:
            LeaseLost: if another worker took over.
            LocationUnavailable, PermissionDenied, StorageFull: from the store.
        """
        store = open_location(self._open_store, running.location)
        report = Report()
        # Before anything is looked for: who is withdrawn by now is seen by every reference that is made from here on.
        with self._database.read() as session:
            rows = garbage.list_garbage(session, running.leased.workspace_id, running.location.id)
        objects = self._list(running, store, report)
        references, reach = find_reach(self._database, store, running.location, objects.values())
        plan = self._plan(running, rows, objects, references, reach)
        self._say(plan, reach, objects, report)
        if not running.is_dry_run:
            deleting = self._record(running, plan, references)
            self._delete(running, store, deleting)
            self._drop_replicas(running, references, objects)
        self._repacking(running, store, references, reach, objects=objects, report=report)
        self._remove_temporary_files(running, report)
        return report

    def _list(self, running: Pass, store: ObjectStore, report: Report) -> dict[str, StoredObject]:
        objects: dict[str, StoredObject] = {}
        for each in list_objects(store, running.leased.workspace_id):
            objects[each.key] = each
            report.objects += 1
            report.size_bytes += each.size
            running.tell(report.objects, report.size_bytes)
        return objects

    def _plan(
        self,
        running: Pass,
        rows: Sequence[Garbage],
        objects: Mapping[str, StoredObject],
        references: References,
        reach: Reach,
    ) -> _Plan:
        now = self._clock.now()
        with self._database.read() as session:
            builders = _find_builders(session, running.location.id)
        plan, known = _Plan(), {row.object_key for row in rows}
        reasons = _Reasons(running.location.state, references)
        for each in objects.values():
            if each.key not in known and not _must_stay(each, reach) and (reason := reasons.of(each)) is not None:
                plan.mark.append((each.key, each.size, reason))
        for row in rows:
            each = objects.get(row.object_key) or classify(row.object_key, row.size_bytes)
            plan.add(self._step(row, each, reach, builders, now), row)
        return plan

    def _step(self, row: Garbage, each: StoredObject, reach: Reach, builders: _Builders, now: datetime) -> Step:
        if row.state == "DELETING":
            # A pass was killed between deciding and deleting; since it was decided nobody can have come to need it.
            return "delete"
        is_aged = row.changed_at + self._grace <= now
        if row.state == "DELETED":
            return "forget" if is_aged and not builders.is_before(each, row.changed_at) else "wait"
        if _must_stay(each, reach):
            return "keep"
        if not is_aged:
            return "wait"
        if row.state == "MARKED":
            return "withdraw"
        # Uploads that begin all the time put a delete off, but not for ever: they were not told of it.
        is_patient = builders.has_upload(each) and now < row.changed_at + _PATIENCE * self._grace
        return "wait" if is_patient or builders.is_before(each, row.changed_at) else "delete"

    def _record(self, running: Pass, plan: _Plan, references: References) -> list[str]:
        """Take every step in the record; the keys that are to be deleted now."""
        workspace_id, location_id = running.leased.workspace_id, running.location.id
        now = self._clock.now()
        with self._database.write() as session:
            work.check_lease(session, running.leased)
            self._leave_service(session, running, references, now)
            garbage.unmark(session, workspace_id, location_id, [*plan.of("keep"), *plan.of("forget")])
            garbage.mark(session, workspace_id, location_id, plan.mark, now=now)
            withdrawn = garbage.advance(
                session, workspace_id, location_id, plan.of("withdraw"), state="WITHDRAWN", now=now
            )
            for shelf, packs in packs_by_shelf(withdrawn, location_id).items():
                blocks.drop_packs(session, shelf, packs)
            fresh = [row for row in plan.of("delete") if row.state != "DELETING"]
            left = [row.object_key for row in plan.of("delete") if row.state == "DELETING"]
            return left + garbage.advance(session, workspace_id, location_id, fresh, state="DELETING", now=now)

    def _leave_service(self, session: Session, running: Pass, references: References, now: datetime) -> None:
        """Let nobody be sent to a replica that is about to go; what it holds ages like all garbage."""
        for standing in references.replicas:
            if not standing.may_go or standing.state != "VERIFIED":
                continue
            replica = lock_replica(session, standing.key)
            is_wanted = replica is not None and replica.is_wanted and running.location.state != "RETIRED"
            if replica is not None and replica.state == "VERIFIED" and not is_wanted:
                replica.state = "PENDING"
                replica.updated_at = now
                self._audit(session, running, standing, "replica.withdraw")

    def _delete(self, running: Pass, store: ObjectStore, keys: Sequence[str]) -> None:
        """Delete what nobody can come to need any more, pointers before what they point at."""
        ordered = sorted(keys, key=lambda key: (_ORDER.get(classify(key, 0).kind, 0), key))
        for start in range(0, len(ordered), _DELETES_PER_CHECK):
            some = ordered[start : start + _DELETES_PER_CHECK]
            with self._database.write() as session:
                # Whoever lost the lease deletes nothing more.
                work.check_lease(session, running.leased)
            with ThreadPoolExecutor(max_workers=_DELETES_AT_ONCE, thread_name_prefix="delete") as pool:
                list(pool.map(store.delete, some))
            with self._database.write() as session:
                work.check_lease(session, running.leased)
                workspace_id, location_id = running.leased.workspace_id, running.location.id
                garbage.bury(session, workspace_id, location_id, some, self._clock.now())

    def _drop_replicas(self, running: Pass, references: References, objects: Mapping[str, StoredObject]) -> None:
        """Remove the rows of replicas that were to go and of which nothing is left here."""
        held = {
            (each.domain.residency, each.digest)
            for each in objects.values()
            if each.kind in {"manifest", "layout"} and each.domain is not None
        }
        going = [
            standing
            for standing in references.replicas
            if standing.may_go and (standing.key.residency, standing.key.artifact_digest) not in held
        ]
        if not going:
            return
        with self._database.write() as session:
            work.check_lease(session, running.leased)
            for standing in going:
                replica = lock_replica(session, standing.key)
                is_wanted = replica is not None and replica.is_wanted and running.location.state != "RETIRED"
                if replica is not None and replica.state != "VERIFIED" and not is_wanted:
                    session.delete(replica)
                    self._audit(session, running, standing, "replica.remove")

    def _say(self, plan: _Plan, reach: Reach, objects: Mapping[str, StoredObject], report: Report) -> None:
        for prefix, layout_key in sorted(reach.pinned.items()):
            report.find("layout-unreadable", layout_key, action=f"nothing of {prefix} is collected until it is mended")
        for key, size, reason in plan.mark:
            report.count("marked")
            due = self._clock.now() + 2 * self._grace
            report.find(reason, key, size_bytes=size, action="mark", due_at=format_time(due))
        told: tuple[tuple[Step, str], ...] = (("withdraw", "withdrawn"), ("delete", "deleted"), ("keep", "kept"))
        for step, counted in told:
            for row in plan.of(step):
                report.count(counted)
                report.find(row.reason, row.object_key, size_bytes=row.size_bytes, action=step)
                if step == "delete":
                    report.count("deleted_bytes", row.size_bytes)
        for row in plan.of("wait"):
            if row.state == "DELETED":
                continue
            report.count("waiting")
            steps_left = 2 if row.state == "MARKED" else 1
            due = format_time(row.changed_at + steps_left * self._grace)
            report.find(row.reason, row.object_key, size_bytes=row.size_bytes, action="wait", due_at=due)
        for each in objects.values():
            if each.kind == "foreign":
                report.find("foreign-object", each.key, size_bytes=each.size, action="left alone")

    def _remove_temporary_files(self, running: Pass, report: Report) -> None:
        if not running.location.url.startswith("file:"):
            return
        root = Path(unquote(urlsplit(running.location.url).path))
        for path, size in remove_abandoned(root, is_dry_run=running.is_dry_run):
            report.count("temporary_files")
            report.find("temporary-file", path, size_bytes=size, action="delete")

    def _audit(self, session: Session, running: Pass, standing: Standing, action: str) -> None:
        audit.record(
            session,
            system_caller(standing.key.workspace_id, "worker"),
            self._clock,
            action=action,
            subject=standing.key.artifact_digest,
            residency=standing.key.residency,
            facts={"location": running.location.name, "region": running.location.region},
        )


class _Reasons:
    """Why an object may go: None where it may not."""

    def __init__(self, state: str, references: References) -> None:
        self._is_retired = state == "RETIRED"
        self._is_empty = all(standing.may_go for standing in references.replicas)
        self._wanted: set[tuple[str, str | None]] = set()
        self._going: set[tuple[str, str | None]] = set()
        for standing in references.replicas:
            which = self._going if standing.may_go else self._wanted
            which.add((standing.key.residency, standing.key.artifact_digest))

    def of(self, each: StoredObject) -> str | None:
        if each.kind == "foreign" or (each.kind == "record" and not (self._is_retired and self._is_empty)):
            return None
        if self._is_retired:
            return "retired-location"
        artifact = ("" if each.domain is None else each.domain.residency, each.digest)
        if each.kind == "pack":
            return "unreferenced-pack"
        if artifact in self._going:
            return "unwanted-replica"
        return "superseded-layout" if artifact in self._wanted else "abandoned-upload"


def _must_stay(each: StoredObject, reach: Reach) -> bool:
    return each.key in reach.keys or (each.domain is not None and each.domain.prefix in reach.pinned)


def _find_builders(session: Session, location_id: str) -> _Builders:
    uploads: dict[str, list[datetime]] = {}
    is_open = select(UploadRow).where(UploadRow.location_id == location_id, UploadRow.state.in_(("OPEN", "VERIFYING")))
    for row in session.scalars(is_open):
        uploads.setdefault(f"{row.workspace_id}/{row.residency}/{row.key_id}", []).append(row.created_at)
    copies: dict[str, list[datetime]] = {}
    # Held, whatever the clock says of the lease: until another worker takes it, its holder may record.
    runs = select(WorkRow.residency, WorkRow.created_at).where(
        WorkRow.kind == REPLICATE, WorkRow.subject.endswith(f"/{location_id}"), WorkRow.lease_holder.is_not(None)
    )
    for residency, created_at in session.execute(runs):
        copies.setdefault(residency, []).append(created_at)
    return _Builders(uploads=uploads, copies=copies)
