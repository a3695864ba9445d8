"""Sealing: the rows of a log become segments, which are stored, read back and replicated as all artifacts are.

Each step is safe to repeat, by any process of the log's machine, and a machine that dies between two goes on with the
next one: the stretch is settled in the log; its segments are written and handed over; the record knows them; they were
read back; the rows leave the log. Until the last step the rows lie in the log, so none is lost; a segment is named by
its log and first sequence, so none counts twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Generator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import permits
from fairlead.catalog.residency import Residency
from fairlead.core.db import Database
from fairlead.core.errors import FairleadError
from fairlead.core.ports import Clock
from fairlead.featurestore.definitions import VIEW, ViewDefinition, view_from_content
from fairlead.featurestore.duck import ArrowTable, load_arrow
from fairlead.featurestore.event_log import ACCEPTED, EventLog, Stretch
from fairlead.featurestore.event_logs import EventLogs, report
from fairlead.featurestore.log_segments import FEATURE_LOG, write_segment
from fairlead.featurestore.rows import ROWS_FILE
from fairlead.featurestore.strays import claim
from fairlead.featurestore.sub_views import sub_views
from fairlead.featurestore.tables import FeatureDefinitionRow, FeatureVersionRow
from fairlead.featurestore.tables_streams import FeatureLogSegmentRow
from fairlead.registry import audit
from fairlead.registry.identity import system_caller
from fairlead.registry.locations import StoreOpener
from fairlead.registry.tables import UploadRow, WorkspaceRow
from fairlead.registry.uploads import Upload, Uploads
from fairlead.sync.scratch import Scratch
from fairlead.sync.uploading import publish

SEAL_ROWS = 100_000
SEAL_AFTER = timedelta(seconds=10)
_AGAIN_AFTER = timedelta(seconds=10)
"""How long a log is left alone after it could not be sealed: each try writes a segment and begins an upload."""

_logger = logging.getLogger(__name__)


class LogSealing:
    """Seals the logs of this machine.

    Args:
        database: the record.
        clock: the time.
        uploads: the same begin and complete that clients use.
        open_store: opens a location.
        logs: the logs of this machine.
        scratch: for segments on their way.
        rows: how many rows a log has before they are sealed at once.
        after: how long a row waits for others at most.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        uploads: Uploads,
        open_store: StoreOpener,
        logs: EventLogs,
        scratch: Scratch,
        rows: int = SEAL_ROWS,
        after: timedelta = SEAL_AFTER,
    ) -> None:
        self._database = database
        self._clock = clock
        self._uploads = uploads
        self._open_store = open_store
        self._logs = logs
        self._scratch = scratch
        self._rows = rows
        self._after = after
        self._reported: dict[str, tuple[int, int]] = {}
        self._waits: dict[str, datetime] = {}
        self._is_idle = True

    def run(self) -> bool:
        """Take every log one step on, and tell the record where each stands; whether there is something to wake for."""
        has_sealed, is_idle = False, True
        for log in self._logs.local():
            if self._waits.get(log.id, self._clock.now()) > self._clock.now():
                continue
            try:
                self._logs.register(log)
                with _only_one(log.path) as is_mine:
                    if is_mine:
                        has_sealed |= self._step(log)
                is_idle &= self._report(log)
            except (FairleadError, OSError) as error:
                # Also what a full disk makes of writing a segment: no log holds up another.
                self._waits[log.id] = self._clock.now() + _AGAIN_AFTER
                _logger.warning("the log %s of view %r is sealed later: %s", log.id, log.view, error)
        self._is_idle = is_idle
        return has_sealed

    @property
    def is_idle(self) -> bool:
        """Whether every row was read back from a segment in the last round, but for those that failed in it."""
        return self._is_idle

    def _step(self, log: EventLog) -> bool:
        has_sealed = False
        self._drop_verified(log)
        older_than = self._clock.now() - self._after
        while log.begin_stretch(rows=self._rows, older_than=older_than) is not None:
            pass
        for stretch in log.stretches():
            if not self._is_recorded(log, stretch):
                self._seal(log, stretch)
                has_sealed = True
        return has_sealed

    def _drop_verified(self, log: EventLog) -> None:
        """Let go of rows whose segments were read back; those of an upload that failed are handed over again."""
        for stretch in log.stretches():
            with self._database.read() as session:
                states = {row.residency: _upload_state(session, row) for row in _recorded(session, log, stretch)}
            if not states or "VERIFYING" in states.values():
                return
            if set(states.values()) != {"READY"}:
                self._seal(log, stretch)
                return
            log.end_stretch(stretch)

    def _is_recorded(self, log: EventLog, stretch: Stretch) -> bool:
        with self._database.read() as session:
            return bool(_recorded(session, log, stretch))

    def _seal(self, log: EventLog, stretch: Stretch) -> None:
        found = log.read(after=stretch.first - 1, through=stretch.last)
        if found is None:
            # Another process of this machine was faster.
            return
        rows = found.rows
        with self._database.read() as session:
            view = view_at(session, log.workspace_id, log.view, stretch.view_digest)
        caller = system_caller(log.workspace_id, "worker")
        uploads: dict[Residency, Upload] = {}
        with self._scratch.folder("segment-") as folder:
            for residency, part in sub_views(view).items():
                path = folder / f"{residency}.parquet"
                write_segment(path, part, rows)
                upload = self._uploads.begin(
                    caller, kind=FEATURE_LOG, residency=residency, labels={"owner": "worker"}, region=log.region
                )
                uploads[residency] = publish(self._uploads, self._open_store, caller, upload, {ROWS_FILE: path}).upload
        self._record(log, stretch, view, rows, uploads)

    def _record(
        self,
        log: EventLog,
        stretch: Stretch,
        view: ViewDefinition,
        rows: ArrowTable,
        uploads: Mapping[Residency, Upload],
    ) -> None:
        now = self._clock.now()
        moments = load_arrow().compute
        accepted = moments.min_max(rows.column(ACCEPTED)).as_py()
        events = moments.min_max(rows.column(view.source.timestamp_field)).as_py()
        with self._database.write() as session:
            for old in _recorded(session, log, stretch):
                session.delete(old)
            session.flush()
            jurisdiction = session.get_one(WorkspaceRow, log.workspace_id).jurisdiction or ""
            for residency, upload in uploads.items():
                claim(session, log.workspace_id, upload.id)
                is_at_home = permits(residency, jurisdiction)
                session.add(
                    FeatureLogSegmentRow(
                        workspace_id=log.workspace_id,
                        log_id=log.id,
                        first_sequence=stretch.first,
                        last_sequence=stretch.last,
                        residency=residency,
                        view=log.view,
                        view_digest=stretch.view_digest,
                        upload_id=upload.id,
                        artifact_digest=upload.artifact_digest,
                        row_count=rows.num_rows,
                        first_accepted_at=accepted["min"] or now,
                        last_accepted_at=accepted["max"] or now,
                        min_event_time=events["min"] if is_at_home else None,
                        max_event_time=events["max"] if is_at_home else None,
                        sealed_at=now,
                    )
                )
            audit.record(
                session,
                system_caller(log.workspace_id, "worker"),
                self._clock,
                action="feature-log.seal",
                subject=log.id,
                residency=view.residency,
                facts={
                    "view": log.view,
                    "region": log.region,
                    "first": stretch.first,
                    "last": stretch.last,
                    "pushed_by": dict(log.principals(stretch)),
                },
            )

    def _report(self, log: EventLog) -> bool:
        """Tell the record where a log stands, if that is news; whether all of it is sealed."""
        state = log.state()
        seen = (state.last, state.unsealed_rows)
        if self._reported.get(log.id) != seen:
            with self._database.write() as session:
                report(session, log, state, self._clock.now())
            self._reported[log.id] = seen
        return not state.unsealed_rows


def view_at(session: Session, workspace_id: str, name: str, digest: str) -> ViewDefinition:
    """A version of a view, under the residency classes of its name."""
    row = session.get_one(FeatureDefinitionRow, (workspace_id, VIEW, name))
    version = session.get_one(FeatureVersionRow, (workspace_id, VIEW, name, digest))
    return view_from_content(version.content, row.residency, row.home, row.column_residency)


def _recorded(session: Session, log: EventLog, stretch: Stretch) -> list[FeatureLogSegmentRow]:
    query = select(FeatureLogSegmentRow).where(
        FeatureLogSegmentRow.workspace_id == log.workspace_id,
        FeatureLogSegmentRow.log_id == log.id,
        FeatureLogSegmentRow.first_sequence == stretch.first,
    )
    return list(session.scalars(query))


def _upload_state(session: Session, row: FeatureLogSegmentRow) -> str:
    upload = session.get(UploadRow, (row.workspace_id, row.upload_id))
    # A record that was restored knows no uploads: what is still here is handed over again.
    return "EXPIRED" if upload is None else upload.state


@contextlib.contextmanager
def _only_one(path: Path) -> Generator[bool]:
    """Whether this is the one process that works on a log just now; another one does what there is to do."""
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
