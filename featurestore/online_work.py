"""The worker's side of online stores: making a region serve what it should, and noticing when it no longer does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import load_catalog
from fairlead.core.clock import format_time
from fairlead.core.db import Database
from fairlead.core.errors import FairleadError
from fairlead.core.ports import Clock
from fairlead.featurestore.duck import load_arrow
from fairlead.featurestore.freshness import forget_freshness, note_freshness, watermarks
from fairlead.featurestore.joins import ViewRows
from fairlead.featurestore.online_choice import OnlineEngines
from fairlead.featurestore.online_desired import read_subject
from fairlead.featurestore.online_engines import (
    NEWEST,
    OnlineEngine,
    OnlineStoreReader,
    StoreChanges,
    StoreContents,
    StoreName,
)
from fairlead.featurestore.online_reader import OnlineStoreError
from fairlead.featurestore.replica_rows import ReplicaRows
from fairlead.featurestore.snapshot_views import SnapshotPartName, SnapshotView, snapshot_view
from fairlead.featurestore.snapshots import find_snapshot
from fairlead.featurestore.tables import OnlineStateRow
from fairlead.featurestore.tables_online import LEAVING, OnlineSlotRow
from fairlead.registry import audit, work
from fairlead.registry.identity import system_caller
from fairlead.registry.work import LeasedWork
from fairlead.sync.scratch import Scratch

_MOST = 0.5
"""Of what share of the rows a delta may be to be worth while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """A store and what it should hold. `base` is what it holds by the record's word, for an incremental step."""

    name: StoreName
    found: SnapshotView
    base: SnapshotView | None
    as_of: datetime
    missing: tuple[str, ...]

    @property
    def parts(self) -> tuple[SnapshotPartName, ...]:
        return self.found.permitted(load_catalog().region(self.name.region).jurisdiction)

    @property
    def features_kept_out(self) -> list[str]:
        """What may not be in the region of views that are otherwise there, as `alias:feature`."""
        absent = set(self.found.missing(load_catalog().region(self.name.region).jurisdiction))
        return [
            f"{projection.alias}:{feature}"
            for projection in self.found.pinned.service.projections
            for feature in projection.features
            if f"{projection.view}:{feature}" in absent
        ]


class MaterializeHandler:
    """Makes one region serve a snapshot of one service; a handler for work of the kind `materialize`."""

    def __init__(
        self, database: Database, clock: Clock, *, replicas: ReplicaRows, engines: OnlineEngines, scratch: Scratch
    ) -> None:
        self._database = database
        self._clock = clock
        self._replicas = replicas
        self._engines = engines
        self._scratch = scratch

    def __call__(self, leased: LeasedWork) -> None:
        """Make the store hold what is wanted, or take it away, and note what is served.

        Raises:
            LeaseLost: if another worker took over.
            ReplicaUnavailable, StorageFull, Unavailable: if it cannot be done now; it is tried again, and what was
                served still is.
        """
        name = read_subject(leased.workspace_id, leased.subject)
        task = self._load(leased, name)
        if task is None:
            return
        # The region's own replica only: that is what makes a region stand by itself.
        rows: dict[str, list[ViewRows]] = {}
        for part in task.parts:
            path = self._replicas.fetch(part.artifact, only=name.region)
            rows.setdefault(part.name, []).append(ViewRows(view=part.view, path=path))
        contents = StoreContents(
            service=task.found.pinned.service,
            views=task.found.pinned.views,
            rows=rows,
            meta={
                "service_digest": task.found.pinned.digest,
                "snapshot": task.found.digest,
                "as_of": format_time(task.as_of),
                "region": name.region,
                "not_in_region": json.dumps(task.features_kept_out),
            },
        )
        engine = self._engines.of(name.region)
        with self._scratch.folder("online-") as scratch:
            latest = watermarks(rows, scratch=scratch)
            total = sum(_rows_in(part.path) for parts in rows.values() for part in parts)
            count, changes = None, self._changes(task, total)
            if changes is not None:
                count = engine.apply(name, contents, changes, scratch=scratch)
            is_whole = count is None
            if count is None:
                count = engine.write(name, contents, scratch=scratch)
        done = _Done(engine=engine, rows=count, is_whole=is_whole, watermarks=latest)
        self._note(leased, task, done)

    def _load(self, leased: LeasedWork, name: StoreName) -> _Task | None:
        with self._database.read() as session:
            row = _find(session, name)
            is_leaving = row is not None and row.state == LEAVING
            wanted = None if row is None or row.state != "PENDING" else _wanted(row)
            snapshot = None if wanted is None else find_snapshot(session, name.workspace_id, wanted)
            if row is not None and snapshot is not None:
                return _Task(
                    name=name,
                    found=snapshot_view(session, snapshot),
                    base=_served(session, row),
                    as_of=snapshot.as_of,
                    missing=tuple(row.missing_views),
                )
        if is_leaving:
            self._engines.of(name.region).drop(name)
        with self._database.write() as session:
            row = _find(session, name, lock=True)
            if row is not None and row.state == LEAVING and is_leaving:
                session.delete(row)
            work.finish(session, leased)
        return None

    def _changes(self, task: _Task, total: int) -> StoreChanges | None:
        """How the wanted snapshot, of `total` rows, differs from what is served.

        None where that is not known, or in another form, or so much that everything is written sooner.
        """
        before = task.base
        if before is None or before.pinned.digest != task.found.pinned.digest:
            return None
        old = {(part.name, part.residency): part for part in before.parts}
        files: dict[str, list[Sequence[Path]]] = {}
        for part in task.parts:
            former = old.get((part.name, part.residency))
            if former is None:
                return None
            changed: Sequence[Path] = ()
            if former.artifact != part.artifact:
                try:
                    delta = self._replicas.fetch_delta(former.artifact, part.artifact, only=task.name.region)
                except FairleadError:
                    # The one before may have been collected; the new one is all that is needed.
                    return None
                if delta is None:
                    return None
                changed = (delta.added, delta.removed)
            files.setdefault(part.name, []).append(changed)
        if sum(_rows_in(path) for each in files.values() for part in each for path in part) > _MOST * total:
            return None
        return StoreChanges(base=before.digest, files=files)

    def _note(self, leased: LeasedWork, task: _Task, done: _Done) -> None:
        now = self._clock.now()
        with self._database.write() as session:
            row = _find(session, task.name, lock=True)
            if row is not None and row.state != LEAVING:
                row.served_snapshot, row.row_count = task.found.digest, done.rows
                row.engine, row.is_atomic = done.engine.kind, done.engine.is_atomic
                row.materialized_at = row.updated_at = now
                # Another one may be wanted by now; then this piece of work is derived again.
                is_wanted = (_wanted(row), tuple(row.missing_views)) == (task.found.digest, task.missing)
                row.state = "READY" if is_wanted else "PENDING"
                if isinstance(row, OnlineStateRow):
                    residencies: dict[str, list[str]] = {}
                    for part in task.parts:
                        residencies.setdefault(part.name, []).append(part.residency)
                    note_freshness(
                        session, row, as_of=task.as_of, residencies=residencies, watermarks=done.watermarks, now=now
                    )
                audit.record(
                    session,
                    system_caller(leased.workspace_id, "worker"),
                    self._clock,
                    action="online.ready",
                    subject=task.name.service,
                    facts={
                        "region": task.name.region,
                        "snapshot": task.found.digest,
                        "slot": task.name.slot,
                        "engine": done.engine.kind,
                        "is_whole": done.is_whole,
                        "rows": done.rows,
                        "missing_views": list(task.missing),
                    },
                )
            work.finish(session, leased)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What was written: by which engine, how many rows there are, and whether all of them were written anew."""

    engine: OnlineEngine
    rows: int
    is_whole: bool
    watermarks: Mapping[str, datetime | None]


def _find(session: Session, name: StoreName, *, lock: bool = False) -> OnlineStateRow | OnlineSlotRow | None:
    key = (name.workspace_id, name.service, name.region)
    if name.slot == NEWEST:
        return session.get(OnlineStateRow, key, with_for_update=lock)
    return session.get(OnlineSlotRow, (*key, name.slot), with_for_update=lock)


def _rows_in(path: Path) -> int:
    rows: int = load_arrow().parquet.read_metadata(path).num_rows
    return rows


def _wanted(row: OnlineStateRow | OnlineSlotRow) -> str:
    return row.wanted_snapshot if isinstance(row, OnlineStateRow) else row.slot


def _served(session: Session, row: OnlineStateRow | OnlineSlotRow) -> SnapshotView | None:
    if row.served_snapshot is None:
        return None
    try:
        return snapshot_view(session, find_snapshot(session, row.workspace_id, row.served_snapshot))
    except FairleadError:
        return None


class LostStores:
    """A deriver where stores are within reach: what is served is what the store itself says."""

    def __init__(self, database: Database, engines: OnlineEngines, regions: frozenset[str] | None) -> None:
        self._database = database
        self._engines = engines
        self._regions = regions
        self._readers: dict[StoreName, OnlineStoreReader] = {}
        self._lost: dict[StoreName, tuple[str | None, str | None]] = {}

    def prepare(self, _now: datetime) -> None:
        """Ask every store that should be READY what it holds."""
        with self._database.read() as session:
            expected = {_name_of(row): row.served_snapshot for row in self._ready(session)}
        self._lost = {}
        for name, snapshot in expected.items():
            try:
                found = self._served(name)
            except FairleadError:
                # A server that does not answer has lost nothing yet.
                continue
            if found != snapshot:
                self._lost[name] = (snapshot, found)

    def __call__(self, session: Session, now: datetime) -> None:
        """Take note of stores that are lost or hold another snapshot, so that they are made again."""
        if not self._lost:
            return
        for row in self._ready(session):
            expected, found = self._lost.get(_name_of(row), (None, None))
            # What was materialized since then is looked at next time.
            if expected is not None and row.served_snapshot == expected:
                row.served_snapshot, row.state, row.updated_at = found, "PENDING", now
                if isinstance(row, OnlineStateRow):
                    forget_freshness(session, row)

    def _ready(self, session: Session) -> list[OnlineStateRow | OnlineSlotRow]:
        rows: list[OnlineStateRow | OnlineSlotRow] = [
            *session.scalars(select(OnlineStateRow).where(OnlineStateRow.state == "READY")),
            *session.scalars(select(OnlineSlotRow).where(OnlineSlotRow.state == "READY")),
        ]
        return [row for row in rows if self._regions is None or row.region in self._regions]

    def _served(self, name: StoreName) -> str | None:
        reader = self._readers.get(name) or self._readers.setdefault(name, self._engines.of(name.region).reader(name))
        try:
            return reader.meta.get("snapshot")
        except (FileNotFoundError, OnlineStoreError):
            return None


def _name_of(row: OnlineStateRow | OnlineSlotRow) -> StoreName:
    slot = row.slot if isinstance(row, OnlineSlotRow) else NEWEST
    return StoreName(workspace_id=row.workspace_id, service=row.service, region=row.region, slot=slot)
