"""The worker's side of snapshots: one part's rows out of their source, into a location of the region.

Rows that an earlier artifact holds are that artifact. Others are written as the nearest earlier one with one more
delta, so that what is sent is what changed, or as a new base. Safe to run again at any point: rows that were written
already are not sent twice, an upload that was handed over and not noted is an artifact like another, and only the
holder of the lease notes anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from fairlead.catalog import Residency, permits
from fairlead.core.db import Database
from fairlead.core.errors import (
    CorruptSnapshot,
    FairleadError,
    InvalidInput,
    MissingExtra,
    NotReady,
    PermissionDenied,
    ReplicaUnavailable,
    ResidencyViolation,
)
from fairlead.core.ports import Clock
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.forgotten import Forgotten, forgotten_of
from fairlead.featurestore.log_positions import note_positions
from fairlead.featurestore.log_segments import LogPosition
from fairlead.featurestore.logged_rows import LoggedRows
from fairlead.featurestore.predecessors import nearest, same_rows
from fairlead.featurestore.replica_rows import ArtifactName, ReplicaRows
from fairlead.featurestore.row_statistics import RowStatistics
from fairlead.featurestore.rows import ROWS_FILE, write_rows
from fairlead.featurestore.snapshot_views import part_view
from fairlead.featurestore.snapshots import fail_snapshot
from fairlead.featurestore.sources import Sources
from fairlead.featurestore.stored_rows import Successor, write_base, write_successor
from fairlead.featurestore.strays import claim
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from fairlead.registry import work
from fairlead.registry.identity import system_caller
from fairlead.registry.locations import StoreOpener
from fairlead.registry.tables import WorkspaceRow
from fairlead.registry.uploads import Uploads
from fairlead.registry.work import LeasedWork
from fairlead.sync.scratch import Scratch
from fairlead.sync.uploading import publish

# What only a person can mend; everything else may pass by itself.
_FINAL = (InvalidInput, PermissionDenied, MissingExtra, ResidencyViolation)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    view: ViewDefinition
    as_of: datetime
    labels: Mapping[str, str]
    forgotten: Sequence[Forgotten]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    upload_id: str
    artifact_digest: str
    deltas: int
    sent_bytes: int


class SnapshotHandler:
    """Writes one part's rows of a snapshot; a handler for work of the kind `snapshot`.

    Args:
        database: the record.
        clock: the time.
        uploads: the same begin and complete that clients use.
        open_store: opens a location.
        sources: where a view's files may be.
        logged: the rows that were pushed.
        replicas: the rows of earlier snapshots.
        scratch: for rows on their way.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        uploads: Uploads,
        open_store: StoreOpener,
        sources: Sources,
        logged: LoggedRows,
        replicas: ReplicaRows,
        scratch: Scratch,
    ) -> None:
        self._database = database
        self._clock = clock
        self._uploads = uploads
        self._open_store = open_store
        self._sources = sources
        self._logged = logged
        self._replicas = replicas
        self._scratch = scratch

    def __call__(self, leased: LeasedWork) -> None:
        """Write the rows and note them, or note why not.

        Raises:
            LeaseLost: if another worker took over.
            Unavailable, StorageFull: if the source or the location cannot be reached now; it is tried again.
        """
        task = self._load(leased)
        if task is None:
            return
        try:
            with self._scratch.folder("snapshot-") as folder:
                path = folder / ROWS_FILE
                self._say(leased, "read")
                pushed = self._logged.reading(leased.workspace_id, task.view, as_of=task.as_of, region=leased.region)
                statistics = write_rows(
                    task.view,
                    as_of=task.as_of,
                    sources=self._sources,
                    destination=path,
                    scratch=folder,
                    further=pushed,
                    forgotten=task.forgotten,
                )
                stored = self._known(leased, statistics) or self._store(leased, task, path, statistics, folder)
        except _FINAL as error:
            self._give_up(leased, error)
            return
        self._note(leased, stored, statistics, pushed.positions)

    def _load(self, leased: LeasedWork) -> _Task | None:
        with self._database.write() as session:
            part, snapshot = _find(session, leased)
            if part is None or snapshot is None or snapshot.state != "PENDING" or part.upload_id is not None:
                work.finish(session, leased)
                return None
            pinned = find_pinned_service(session, leased.workspace_id, snapshot.service, snapshot.service_digest)
            labels = {"owner": snapshot.created_by} | dict(pinned.labels)
            view = part_view(pinned.views[part.view], part)
            forgotten = forgotten_of(session, leased.workspace_id, view)
            return _Task(view=view, as_of=snapshot.as_of, labels=labels, forgotten=forgotten)

    def _say(self, leased: LeasedWork, phase: str, size: int = 0) -> None:
        work.report_progress(self._database, leased, 0, size, phase=phase)

    def _known(self, leased: LeasedWork, statistics: RowStatistics) -> _Stored | None:
        """An artifact that holds these rows already."""
        with self._database.read() as session:
            part, _ = _find(session, leased, is_locked=False)
            found = None if part is None else same_rows(session, part, statistics.written.digest)
        if found is None:
            return None
        return _Stored(
            upload_id=found.upload_id, artifact_digest=found.artifact.digest, deltas=found.deltas, sent_bytes=0
        )

    def _store(self, leased: LeasedWork, task: _Task, flat: Path, statistics: RowStatistics, folder: Path) -> _Stored:
        self._say(leased, "compare", flat.stat().st_size)
        successor = self._successor(leased, task, flat, statistics, folder) or write_base(flat)
        caller = system_caller(leased.workspace_id, "worker")
        upload = self._uploads.begin(
            caller, kind="snapshot", residency=task.view.residency, labels=task.labels, region=leased.region
        )
        # Whoever asks for an erasure from here on waits for this upload; who has asked since is not left out.
        with self._database.read() as session:
            is_known = forgotten_of(session, leased.workspace_id, task.view) == task.forgotten
        if not is_known:
            error = NotReady("An erasure was asked for meanwhile.", hint="The rows are written again without it.")
            self._uploads.give_up(caller, upload.id, error)
            raise error
        self._say(leased, "write", sum(path.stat().st_size for path in successor.files.values()))
        published = publish(self._uploads, self._open_store, caller, upload, successor.files)
        digest = published.written.digest
        name = ArtifactName(workspace_id=leased.workspace_id, residency=task.view.residency, digest=digest)
        self._replicas.keep(name, successor.files, flat)
        return _Stored(
            upload_id=upload.id,
            artifact_digest=digest,
            deltas=successor.deltas,
            sent_bytes=published.written.sent_bytes,
        )

    def _successor(
        self, leased: LeasedWork, task: _Task, flat: Path, statistics: RowStatistics, folder: Path
    ) -> Successor | None:
        """The rows as what a neighbour in time holds, and a delta; None where there is none that can be read here."""
        with self._database.read() as session:
            part, _ = _find(session, leased, is_locked=False)
            found = None if part is None else nearest(session, part, task.as_of, region=leased.region)
        if found is None:
            return None
        try:
            before = self._replicas.fetch_stored(found.artifact, only=leased.region)
            flat_before = self._replicas.fetch(found.artifact, only=leased.region)
        except (ReplicaUnavailable, CorruptSnapshot):
            return None  # A base needs nothing.
        by = [*(key.name for key in task.view.keys), task.view.source.timestamp_field]
        return write_successor(before, flat_before, flat, statistics.written, folder, by=by)

    def _note(
        self, leased: LeasedWork, stored: _Stored, statistics: RowStatistics, positions: Sequence[LogPosition]
    ) -> None:
        with self._database.write() as session:
            part, _ = _find(session, leased)
            if part is not None:
                claim(session, leased.workspace_id, stored.upload_id)
                part.upload_id, part.artifact_digest = stored.upload_id, stored.artifact_digest
                part.delta_count, part.sent_bytes = stored.deltas, stored.sent_bytes
                part.row_count, part.rows_digest = statistics.rows, statistics.written.digest
                # Of rows that must stay elsewhere, the record holds how many there are and no more.
                workspace = session.get_one(WorkspaceRow, leased.workspace_id)
                is_at_home = permits(Residency(part.residency), workspace.jurisdiction or "")
                part.statistics = statistics.to_json() if is_at_home else statistics.counts()
                note_positions(session, part, positions)
            work.finish(session, leased)

    def _give_up(self, leased: LeasedWork, error: FairleadError) -> None:
        with self._database.write() as session:
            _, snapshot = _find(session, leased)
            if snapshot is not None:
                fail_snapshot(session, self._clock, snapshot, error.code, str(error))
            work.finish(session, leased)


def _find(
    session: Session, leased: LeasedWork, *, is_locked: bool = True
) -> tuple[SnapshotPartRow | None, SnapshotRow | None]:
    snapshot_id, view, residency = (*leased.subject.split("/"), "", "")[:3]
    part = session.get(SnapshotPartRow, (leased.workspace_id, snapshot_id, view, residency), with_for_update=is_locked)
    return part, session.get(SnapshotRow, (leased.workspace_id, snapshot_id), with_for_update=is_locked)
