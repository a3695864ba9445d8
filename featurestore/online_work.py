"""The worker's side of online stores: making a region serve what it should, and noticing when it no longer does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import load_catalog
from fairlead.core.clock import format_time
from fairlead.core.db import Database
from fairlead.core.ports import Clock
from fairlead.featurestore.joins import ViewRows
from fairlead.featurestore.online import OnlineFolder
from fairlead.featurestore.online_reader import OnlineReader, OnlineStoreError
from fairlead.featurestore.online_writer import write_online_store
from fairlead.featurestore.replica_rows import ReplicaRows
from fairlead.featurestore.snapshot_views import SnapshotView, snapshot_view
from fairlead.featurestore.snapshots import find_snapshot
from fairlead.featurestore.tables import OnlineStateRow
from fairlead.registry import audit, work
from fairlead.registry.identity import system_caller
from fairlead.registry.work import LeasedWork
from fairlead.sync.scratch import Scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    found: SnapshotView
    as_of: datetime
    missing: tuple[str, ...]
    service: str
    region: str


class MaterializeHandler:
    """Makes one region serve the wanted snapshot of one service; a handler for work of the kind `materialize`."""

    def __init__(
        self, database: Database, clock: Clock, *, replicas: ReplicaRows, folder: OnlineFolder, scratch: Scratch
    ) -> None:
        self._database = database
        self._clock = clock
        self._replicas = replicas
        self._folder = folder
        self._scratch = scratch

    def __call__(self, leased: LeasedWork) -> None:
        """Build the store, put it into its place, and note what is served.

        Raises:
            LeaseLost: if another worker took over.
            ReplicaUnavailable, StorageFull: if it cannot be done now; it is tried again, and what was served still is.
        """
        task = self._load(leased)
        if task is None:
            return
        # The region's own replica only: that is what makes a region stand by itself.
        rows: dict[str, list[ViewRows]] = {}
        for part in task.found.permitted(load_catalog().region(task.region).jurisdiction):
            path = self._replicas.fetch(part.artifact, only=task.region)
            rows.setdefault(part.name, []).append(ViewRows(view=part.view, path=path))
        with self._scratch.folder("online-") as scratch:
            count = write_online_store(
                self._folder.path(task.region, leased.workspace_id, task.service),
                service=task.found.pinned.service,
                views=task.found.pinned.views,
                rows=rows,
                meta={
                    "service_digest": task.found.pinned.digest,
                    "snapshot": task.found.digest,
                    "as_of": format_time(task.as_of),
                    "region": task.region,
                },
                scratch=scratch,
            )
        self._note(leased, task, count)

    def _load(self, leased: LeasedWork) -> _Task | None:
        region, _, service = leased.subject.partition("/")
        with self._database.write() as session:
            state = session.get(OnlineStateRow, (leased.workspace_id, service, region))
            if state is None or state.state != "PENDING":
                work.finish(session, leased)
                return None
            snapshot = find_snapshot(session, leased.workspace_id, state.wanted_snapshot)
            return _Task(
                found=snapshot_view(session, snapshot),
                as_of=snapshot.as_of,
                missing=tuple(state.missing_views),
                service=service,
                region=region,
            )

    def _note(self, leased: LeasedWork, task: _Task, count: int) -> None:
        now = self._clock.now()
        with self._database.write() as session:
            state = session.get(OnlineStateRow, (leased.workspace_id, task.service, task.region), with_for_update=True)
            if state is not None:
                state.served_snapshot, state.row_count = task.found.digest, count
                state.materialized_at = state.updated_at = now
                # Another one may be wanted by now; then this piece of work is derived again.
                is_wanted = (state.wanted_snapshot, tuple(state.missing_views)) == (task.found.digest, task.missing)
                state.state = "READY" if is_wanted else "PENDING"
                audit.record(
                    session,
                    system_caller(leased.workspace_id, "worker"),
                    self._clock,
                    action="online.ready",
                    subject=task.service,
                    facts={
                        "region": task.region,
                        "snapshot": task.found.digest,
                        "rows": count,
                        "missing_views": list(task.missing),
                    },
                )
            work.finish(session, leased)


class LostStores:
    """A deriver for the machine that keeps the files: what is served is what the file there says of itself."""

    def __init__(self, folder: OnlineFolder, regions: frozenset[str] | None) -> None:
        self._folder = folder
        self._regions = regions
        self._readers: dict[Path, OnlineReader] = {}

    def __call__(self, session: Session, now: datetime) -> None:
        """Take note of stores that are lost or hold another snapshot, so that they are made again."""
        for state in session.scalars(select(OnlineStateRow).where(OnlineStateRow.state == "READY")):
            if self._regions is not None and state.region not in self._regions:
                continue
            found = self._served(self._folder.path(state.region, state.workspace_id, state.service))
            if found != state.served_snapshot:
                state.served_snapshot, state.state, state.updated_at = found, "PENDING", now

    def _served(self, path: Path) -> str | None:
        try:
            return self._readers.setdefault(path, OnlineReader(path)).meta.get("snapshot")
        except (FileNotFoundError, OnlineStoreError):
            return None
