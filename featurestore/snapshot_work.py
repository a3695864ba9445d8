"""The worker's side of snapshots: one view's rows out of its source, into a location of the region.

Safe to run again at any point: rows that were written already are not sent twice, an upload that was handed over and
not noted is an artifact like another, and only the holder of the lease notes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from fairlead.catalog import Residency, permits
from fairlead.core.db import Database
from fairlead.core.errors import FairleadError, InvalidInput, MissingExtra, PermissionDenied, ResidencyViolation
from fairlead.core.ports import Clock
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.rows import ROWS_FILE, RowStatistics, write_rows
from fairlead.featurestore.snapshot_views import part_view
from fairlead.featurestore.snapshots import fail_snapshot
from fairlead.featurestore.sources import Sources
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from fairlead.registry import work
from fairlead.registry.identity import Caller, system_caller
from fairlead.registry.locations import StoreOpener
from fairlead.registry.tables import WorkspaceRow
from fairlead.registry.uploads import Upload, Uploads
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


class SnapshotHandler:
    """Writes one view's rows of a snapshot; a handler for work of the kind `snapshot`.

    Args:
        database: the record.
        clock: the time.
        uploads: the same begin and complete that clients use.
        open_store: opens a location.
        sources: where a view's files may be.
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
        scratch: Scratch,
    ) -> None:
        self._database = database
        self._clock = clock
        self._uploads = uploads
        self._open_store = open_store
        self._sources = sources
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
        caller = system_caller(leased.workspace_id, "worker")
        try:
            with self._scratch.folder("snapshot-") as folder:
                path = folder / ROWS_FILE
                statistics = write_rows(
                    task.view, as_of=task.as_of, sources=self._sources, destination=path, scratch=folder
                )
                upload = self._upload(caller, leased, task, path)
        except _FINAL as error:
            self._give_up(leased, error)
            return
        self._note(leased, upload, statistics)

    def _load(self, leased: LeasedWork) -> _Task | None:
        with self._database.write() as session:
            part, snapshot = _find(session, leased)
            if part is None or snapshot is None or snapshot.state != "PENDING" or part.upload_id is not None:
                work.finish(session, leased)
                return None
            pinned = find_pinned_service(session, leased.workspace_id, snapshot.service, snapshot.service_digest)
            labels = {"owner": snapshot.created_by} | dict(pinned.labels)
            view = part_view(pinned.views[part.view], part)
            return _Task(view=view, as_of=snapshot.as_of, labels=labels)

    def _upload(self, caller: Caller, leased: LeasedWork, task: _Task, path: Path) -> Upload:
        upload = self._uploads.begin(
            caller, kind="snapshot", residency=task.view.residency, labels=task.labels, region=leased.region
        )

        return publish(self._uploads, self._open_store, caller, upload, {ROWS_FILE: path}).upload

    def _note(self, leased: LeasedWork, upload: Upload, statistics: RowStatistics) -> None:
        with self._database.write() as session:
            part, _ = _find(session, leased)
            if part is not None:
                part.upload_id = upload.id
                part.artifact_digest = upload.artifact_digest
                part.row_count = statistics.rows
                # Of rows that must stay elsewhere, the record holds how many there are and no more.
                workspace = session.get_one(WorkspaceRow, leased.workspace_id)
                is_at_home = permits(Residency(part.residency), workspace.jurisdiction or "")
                part.statistics = statistics.to_json() if is_at_home else statistics.counts()
            work.finish(session, leased)

    def _give_up(self, leased: LeasedWork, error: FairleadError) -> None:
        with self._database.write() as session:
            _, snapshot = _find(session, leased)
            if snapshot is not None:
                fail_snapshot(session, self._clock, snapshot, error.code, str(error))
            work.finish(session, leased)


def _find(session: Session, leased: LeasedWork) -> tuple[SnapshotPartRow | None, SnapshotRow | None]:
    snapshot_id, view, residency = (*leased.subject.split("/"), "", "")[:3]
    part = session.get(SnapshotPartRow, (leased.workspace_id, snapshot_id, view, residency), with_for_update=True)
    return part, session.get(SnapshotRow, (leased.workspace_id, snapshot_id), with_for_update=True)
