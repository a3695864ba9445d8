"""Locations of an erasure: what the old artifacts alone stood on leaves, and the location is read to see that it has.

Packs are shared. What others use of a pack that holds erased blocks moves into new packs, under every name as it was;
then nothing refers to it, and the collector takes it away in its own steps, as it does with all garbage. A location is
looked at after each pass, from the beginning: its listing, and the index of every pack of the residency classes that
the subject was in. What was there at the first look and nothing refers to may be of an upload that nobody finished,
with rows of whoever was in the source then: it has to be gone too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sqlalchemy import select

from fairlead.core.errors import IntegrityError, ObjectNotFound
from fairlead.core.ids import Digest
from fairlead.featurestore.erasure_rows import CLEAN, CLEARING, DROPPED, LOST, REPLACED, artifacts_of
from fairlead.featurestore.strays import classes_of_rows
from fairlead.featurestore.tables_erasures import ErasedLocationRow, ErasureRow
from fairlead.registry import blocks, work
from fairlead.registry.identity import system_caller
from fairlead.registry.locations import Location, get_location
from fairlead.registry.tables_bytes import GarbageRow, ScrubRow
from fairlead.sync.inventory import StoredObject, list_objects
from fairlead.sync.reachability import Reach, References, find_reach
from fairlead.sync.repack import Repacking
from fairlead.sync.shelves import open_location, packs_by_shelf
from fairlead.sync.store.domain import domain_of_key
from fairlead.sync.store.layout import read_layout
from fairlead.sync.store.local import iter_temporary
from fairlead.sync.store.pack import read_pack_index
from fairlead.sync.upkeep import Pass, Report, Upkeeps

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, ObjectStore
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.work import LeasedWork

_LOOK_EVERY = timedelta(hours=1)
_BLOCK_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    location: Location
    old: Mapping[tuple[str, str], frozenset[Digest]]
    classes: frozenset[str]
    seen: Sequence[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What is still there of the old artifacts: names of theirs, and packs with blocks that are theirs alone.

    `leavings` are of uploads and copies that nobody finished, and nothing refers to them.
    """

    names: Sequence[str]
    packs: Sequence[str]
    leavings: Sequence[str]
    references: References


class EraseLocationHandler:
    """Clears one location of what was erased, as far as that goes now; for work of the kind `erase-location`.

    `grace` is how long the collector leaves garbage in each of its states.
    """

    def __init__(self, database: Database, clock: Clock, *, open_store: StoreOpener, grace: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._open_store = open_store
        self._grace = grace
        self._repacking = Repacking(database, clock, below=1.0)
        self._upkeeps = Upkeeps(database, clock)

    def __call__(self, leased: LeasedWork) -> None:
        """Take packs apart that hold erased blocks, have the rest collected, and note what is left.

        Raises:
            LeaseLost: if another worker took over.
            LocationUnavailable, PermissionDenied, StorageFull: from the store; it is tried again.
        """
        task = self._load(leased)
        if task is None:
            return
        store = open_location(self._open_store, task.location)
        found = self._look(leased, store, task)
        if found.packs:
            running = Pass(leased=leased, location=task.location, scope={}, tell=lambda _objects, _size: None)
            with self._database.write() as session:
                work.check_lease(session, leased)
                # Nobody new builds on them.
                for shelf, packs in packs_by_shelf(found.packs, task.location.id).items():
                    blocks.drop_packs(session, shelf, packs)
            self._repacking.take_apart(running, store, found.references.replicas, found.packs, Report())
        left = sorted({*found.names, *found.packs, *found.leavings})
        self._note(leased, task, left)
        if left and self._is_collectable(leased, task.location, left):
            caller = system_caller(leased.workspace_id, "worker")
            self._upkeeps.request(caller, "collect", location=task.location.name)

    def _load(self, leased: LeasedWork) -> _Task | None:
        erasure_id, location_id = leased.subject.split("/")
        with self._database.write() as session:
            erasure = session.get(ErasureRow, (leased.workspace_id, erasure_id))
            row = session.get(ErasedLocationRow, (leased.workspace_id, erasure_id, location_id))
            if erasure is None or row is None or row.state == CLEAN:
                work.finish(session, leased)
                return None
            old = {
                (each.residency, each.digest): _blocks(each.blocks)
                for each in artifacts_of(session, erasure)
                if each.state in {REPLACED, DROPPED, LOST}
            }
            location = get_location(session, leased.workspace_id, location_id)
            classes = classes_of_rows(session, leased.workspace_id) | {residency for residency, _ in old}
            return _Task(location=location, old=old, classes=classes, seen=row.objects)

    def _look(self, leased: LeasedWork, store: ObjectStore, task: _Task) -> _Found:
        objects = list(list_objects(store, leased.workspace_id))
        references, reach = find_reach(self._database, store, task.location, objects)
        names = [
            each.key
            for each in objects
            if each.kind in {"manifest", "layout"}
            and each.domain is not None
            and (each.domain.residency, each.digest) in task.old
        ]
        classes = {residency for residency, _ in task.old}
        erased = {residency: _union(task.old, residency) for residency in classes}
        alive = {residency: _alive(store, references, residency) for residency in classes}
        packs = [
            each.key
            for each in objects
            if each.kind == "pack"
            and each.domain is not None
            and each.domain.residency in classes
            and _holds(store, each, erased[each.domain.residency] - alive[each.domain.residency], reach)
        ]
        leavings = [
            each.key
            for each in objects
            if each.kind == "pack"
            and each.domain is not None
            and each.domain.residency in task.classes
            and each.key not in reach.keys
            # What came later is of writers that leave the subject out.
            and (task.seen is None or each.key in task.seen)
        ]
        leavings += [key for key in _temporary_files(task.location) if task.seen is None or key in task.seen]
        return _Found(names=names, packs=packs, leavings=leavings, references=references)

    def _note(self, leased: LeasedWork, task: _Task, left: list[str]) -> None:
        erasure_id, location_id = leased.subject.split("/")
        with self._database.write() as session:
            key = (leased.workspace_id, erasure_id, location_id)
            row = session.get(ErasedLocationRow, key, with_for_update=True)
            if row is not None:
                row.objects_deleted += len(set(task.seen or ()) - set(left))
                row.objects, row.state = left, CLEARING if left else CLEAN
                row.checked_at = self._clock.now()
            work.finish(session, leased)

    def _is_collectable(self, leased: LeasedWork, location: Location, left: Sequence[str]) -> bool:
        """Whether a pass over the location would let one of these objects go on by a step."""
        now = self._clock.now()
        with self._database.read() as session:
            rows = session.scalars(
                select(GarbageRow).where(
                    GarbageRow.workspace_id == leased.workspace_id, GarbageRow.location_id == location.id
                )
            )
            known = {row.object_key: row.changed_at for row in rows}
            last = _last_collection(session, leased.workspace_id, location.id)
        unmarked = any(key not in known for key in left)
        is_fresh = last is not None and last + _LOOK_EVERY > now
        return (unmarked and not is_fresh) or any(key in known and known[key] + self._grace <= now for key in left)


def is_look_due(session: Session, row: ErasedLocationRow, location: Location, now: datetime) -> bool:
    """Whether a location is to be looked at again: something was collected since, or it was long ago."""
    if row.checked_at is None or row.checked_at + _LOOK_EVERY <= now:
        return True
    last = _last_collection(session, row.workspace_id, location.id)
    return last is not None and last > row.checked_at


def _last_collection(session: Session, workspace_id: str, location_id: str) -> datetime | None:
    query = select(ScrubRow.finished_at).where(
        ScrubRow.workspace_id == workspace_id,
        ScrubRow.location_id == location_id,
        ScrubRow.task == "collect",
        ScrubRow.finished_at.is_not(None),
    )
    return session.scalars(query.order_by(ScrubRow.finished_at.desc()).limit(1)).first()


def _alive(store: ObjectStore, references: References, residency: str) -> frozenset[Digest]:
    """The blocks that files of artifacts which stay are made of; bases that differences stand on are none of them."""
    found: set[Digest] = set()
    for each in references.replicas:
        domain = None if each.layout_key is None else domain_of_key(each.layout_key)
        if each.may_go or each.key.residency != residency or domain is None or each.layout_key is None:
            continue
        try:
            layout = read_layout(store, domain, Digest(each.key.artifact_digest), each.layout_key)
        except (IntegrityError, ObjectNotFound):
            continue  # it is mended first; until then nothing of the domain is collected
        found |= {block.digest for used in layout.files.values() for block in used}
    return frozenset(found)


def _holds(store: ObjectStore, pack: StoredObject, erased: frozenset[Digest], reach: Reach) -> bool:
    """Whether a pack holds one of these blocks; one whose index cannot be read may, unless it is in use."""
    if pack.domain is None or pack.digest is None or not erased:
        return False
    try:
        return any(block.digest in erased for block in read_pack_index(store, pack.domain, pack.digest))
    except (IntegrityError, ObjectNotFound):
        return pack.key not in reach.keys


def _temporary_files(location: Location) -> list[str]:
    """What writers into a folder are at, or were when they were killed."""
    if not location.url.startswith("file:"):
        return []
    root = Path(unquote(urlsplit(location.url).path))
    return [path.relative_to(root).as_posix() for path in iter_temporary(root)]


def _union(old: Mapping[tuple[str, str], frozenset[Digest]], residency: str) -> frozenset[Digest]:
    return frozenset(block for (of, _), names in old.items() if of == residency for block in names)


def _blocks(packed: bytes | None) -> frozenset[Digest]:
    names = packed or b""
    return frozenset(
        Digest(f"sha256:{names[start : start + _BLOCK_BYTES].hex()}") for start in range(0, len(names), _BLOCK_BYTES)
    )
