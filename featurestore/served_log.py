"""What a feature server served, as Parquet files in its region: a sample of the rows, to compare with training data.

    {folder}/{region, ":" as "_"}/{workspace}/{service}/{time}-{random}.parquet

A row holds each feature of one entity under its output name (none where it was not present), `__served_at` and
`__snapshot`; keys are not kept. Files are plain data and are written by a thread of their own. A service keeps at most
`max_bytes`, the newest, and nothing older than `max_age`.
"""

from __future__ import annotations

import logging
import queue
import random
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fairlead.featurestore.duck import load_arrow
from fairlead.featurestore.online_reader import ViewColumns

SERVED_AT, SNAPSHOT = "__served_at", "__snapshot"
MAX_BYTES = 256 * 2**20
MAX_AGE = timedelta(days=14)
_ROWS_A_FILE = 50_000
_FLUSH_SECONDS = 10.0
_WAITING_MAX = 1_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFolder:
    """Where logs of what was served are, on the machine of a region."""

    root: Path

    def of(self, region: str, workspace_id: str, service: str) -> Path:
        """The folder of one service's files."""
        return self.root / region.replace(":", "_") / workspace_id / service

    def files(self, region: str, workspace_id: str, service: str) -> list[Path]:
        """A service's files, oldest first."""
        return sorted(self.of(region, workspace_id, service).glob("*.parquet"))


@dataclass(slots=True, kw_only=True)
class _Batch:
    """Rows of one service and snapshot that are not yet in a file."""

    rows: int = 0
    columns: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    moments: list[datetime] = field(default_factory=list[datetime])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    service: str
    snapshot: str
    columns: dict[str, Sequence[Any]]
    rows: int
    at: datetime


class ServedLog:
    """Notes a sample of answers. `note` costs little and never waits: where the disk is too slow, it leaves some out.

    Args:
        folder: where files go.
        region: the server's.
        workspace_id: the server's.
        share: of the answers, from 0 to 1.
        max_bytes: that a service's files may have together.
        max_age: of a file.
    """

    def __init__(
        self,
        folder: ServedFolder,
        *,
        region: str,
        workspace_id: str,
        share: float,
        max_bytes: int = MAX_BYTES,
        max_age: timedelta = MAX_AGE,
    ) -> None:
        self._folder = folder
        self._region = region
        self._workspace_id = workspace_id
        self._share = share
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._batches: dict[tuple[str, str], _Batch] = {}
        self._notes: queue.Queue[_Note | None] = queue.Queue(_WAITING_MAX)
        self.left_out = 0
        self._thread = threading.Thread(target=self._run, name="fairlead-served", daemon=True)
        self._thread.start()

    def note(self, service: str, snapshot: str, views: Sequence[ViewColumns]) -> None:
        """Note an answer, if chance takes it into the sample."""
        if random.random() >= self._share:  # noqa: S311  (a sample)
            return
        columns: dict[str, Sequence[Any]] = {}
        for view in views:
            columns |= view.features
        rows = len(views[0].statuses) if views else 0
        try:
            self._notes.put_nowait(
                _Note(service=service, snapshot=snapshot, columns=columns, rows=rows, at=datetime.now(UTC))
            )
        except queue.Full:
            self.left_out += rows

    def close(self) -> None:
        """Write what is noted."""
        self._notes.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        self._flush()
        flush_at = time.monotonic() + _FLUSH_SECONDS
        while True:
            with suppress(queue.Empty):
                note = self._notes.get(timeout=max(0.0, flush_at - time.monotonic()))
                if note is None:
                    self._flush()
                    return
                self._add(note)
            if time.monotonic() >= flush_at:
                self._flush()
                flush_at = time.monotonic() + _FLUSH_SECONDS

    def _add(self, note: _Note) -> None:
        batch = self._batches.setdefault((note.service, note.snapshot), _Batch())
        if batch.columns and batch.columns.keys() != note.columns.keys():
            self._write(note.service, note.snapshot, self._batches.pop((note.service, note.snapshot)))
            batch = self._batches.setdefault((note.service, note.snapshot), _Batch())
        for name, values in note.columns.items():
            batch.columns.setdefault(name, []).extend(values)
        batch.moments.extend([note.at] * note.rows)
        batch.rows += note.rows
        if batch.rows >= _ROWS_A_FILE:
            self._write(note.service, note.snapshot, self._batches.pop((note.service, note.snapshot)))

    def _flush(self) -> None:
        for (service, snapshot), batch in self._batches.items():
            self._write(service, snapshot, batch)
        self._batches = {}
        # Also of services that are asked for no longer. Another server of the region may do the same.
        with suppress(OSError):
            for folder in self._folder.of(self._region, self._workspace_id, "").iterdir():
                self._forget_old(folder)

    def _write(self, service: str, snapshot: str, batch: _Batch) -> None:
        try:
            self._store(service, snapshot, batch)
        except Exception:  # noqa: BLE001  (serving goes on without its log)
            self.left_out += batch.rows
            _log.exception("what was served of %s could not be noted", service)

    def _store(self, service: str, snapshot: str, batch: _Batch) -> None:
        arrow = load_arrow()
        folder = self._folder.of(self._region, self._workspace_id, service)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
        table = arrow.table(
            {
                **batch.columns,
                SERVED_AT: arrow.array(batch.moments, arrow.timestamp("us", tz="UTC")),
                SNAPSHOT: [snapshot] * batch.rows,
            }
        )
        draft = folder / f"{stamp}.draft"
        arrow.parquet.write_table(table, draft, compression="zstd")
        draft.replace(folder / f"{stamp}.parquet")

    def _forget_old(self, folder: Path) -> None:
        oldest = time.time() - self._max_age.total_seconds()
        kept = 0
        for path in sorted(folder.iterdir(), reverse=True):
            found = path.stat()
            if path.suffix == ".parquet":
                kept += found.st_size
            if kept > self._max_bytes or found.st_mtime < oldest:
                path.unlink(missing_ok=True)
