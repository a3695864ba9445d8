"""One view's log of pushed rows, as a region's machine keeps it: numbered, each event once, durable before it is told.

A SQLite file (WAL, every commit synced) holds the rows that are not yet safe elsewhere, as batches of Arrow, and the
id of every event that was ever taken. A row's *sequence* counts from 1 in the order of commits, which is the order in
which pushes were acknowledged; within a push it follows the rows' order. Numbers are never used again.

An event is remembered for ever, by 16 bytes of the sha256 of its id, with where it went to: what comes again, in the
same push or years later, is a duplicate and is left out, for each destination by itself. Of two rows with one id the
first one counts, whatever the second one holds.

A *stretch* is what goes into one sealed segment. Its ends are written down before anything is made of it, so that a
machine that dies half-way makes the same segment again. Its rows leave the file when the segment was read back.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fairlead.core.errors import FairleadError, StorageFull, Unavailable
from fairlead.core.ids import new_row_id
from fairlead.featurestore.duck import ArrowTable, load_arrow

LOG_FORMAT = 1
OFFLINE, ONLINE = 1, 2
"""Destinations of a row, as bits of the column `__to`."""

SEQUENCE, EVENT, ACCEPTED, TO = "__sequence", "__event", "__accepted_at", "__to"
"""What a log says of each row beside its columns. No view can have columns of such names."""

OWN_COLUMNS = (SEQUENCE, EVENT, ACCEPTED, TO)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HASH_BYTES = 16
_ASKED_AT_ONCE = 10_000
_BUSY_SECONDS = 30.0
_NO_END = 2**62
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (hash BLOB PRIMARY KEY, destinations INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, rows INTEGER NOT NULL, accepted_at INTEGER NOT NULL,
    view_digest TEXT NOT NULL, principal TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS stretches (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, view_digest TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What became of a push in one log. `rows` are those that were new, as the log keeps them; None if none was."""

    duplicates: int
    first: int | None = None
    last: int | None = None
    rows: ArrowTable = None

    @property
    def accepted(self) -> int:
        """How many rows were new."""
        return 0 if self.rows is None else self.rows.num_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The rows `first` up to and including `last`, all of one version of the view."""

    first: int
    last: int
    view_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRows:
    """What there is between two sequences, both included; what was erased is missing in `rows`."""

    first: int
    last: int
    view_digest: str
    rows: ArrowTable


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """Where a log stands. `unsealed_rows` are those of which no segment was read back yet."""

    last: int
    unsealed_rows: int
    oldest_unsealed_at: datetime | None


@dataclass(slots=True, kw_only=True)
class _Waiting:
    rows: ArrowTable
    ids: Sequence[str]
    to: int
    view_digest: str
    principal: str
    now: datetime
    result: Appended | None = None
    error: FairleadError | None = None
    is_done: bool = False


@dataclass(slots=True)
class EventLog:
    """The log in one file; safe to use from several threads, and the file from several processes."""

    path: Path
    workspace_id: str
    view: str
    region: str
    id: str
    _connection: sqlite3.Connection
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _queue: deque[_Waiting] = field(default_factory=deque[_Waiting])

    @classmethod
    def open(cls, path: Path, *, workspace_id: str, view: str, region: str) -> EventLog:
        """Open the log at a path, or begin it."""
        with _translated():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            # Without it a power cut takes commits back that were acknowledged.
            connection.execute("PRAGMA synchronous = FULL")
            with _transaction(connection):
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                said = {"format": LOG_FORMAT, "id": new_row_id(), "workspace": workspace_id, "view": view}
                said |= {"region": region, "last": 0, "sealed": 0}
                connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", said.items())
            meta = dict(connection.execute("SELECT key, value FROM meta"))
        return cls(path, meta["workspace"], meta["view"], meta["region"], meta["id"], connection)

    @classmethod
    def reopen(cls, path: Path) -> EventLog | None:
        """Open a log that was begun before, whose file says whose it is; None if its first transaction never ended."""
        with _translated(), contextlib.closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                return None
            meta = dict(connection.execute("SELECT key, value FROM meta"))
        return cls.open(path, workspace_id=meta["workspace"], view=meta["view"], region=meta["region"])

    def append(
        self, rows: ArrowTable, ids: Sequence[str], *, to: int, view_digest: str, principal: str, now: datetime
    ) -> Appended:
        """Take the rows whose events are new. When this returns, they are on the disk.

        What several threads append at the same time is synced once.

        Raises:
            StorageFull: if the disk is full; nothing was taken.
            Unavailable: if another process holds the file for too long; nothing was taken.
        """
        waiting = _Waiting(rows=rows, ids=ids, to=to, view_digest=view_digest, principal=principal, now=now)
        self._queue.append(waiting)
        with self._lock:
            if not waiting.is_done:
                self._commit_queue()
        if waiting.error is not None:
            raise waiting.error
        assert waiting.result is not None  # noqa: S101  (whoever has the lock settles all that waits)
        return waiting.result

    def read(self, *, after: int = 0, through: int | None = None, limit: int | None = None) -> LogRows | None:
        """The rows that lie here with a greater sequence than `after`, in order, about `limit` of them; None if none.

        All of them are of one version of the view: reading on gives those of the next one.
        """
        arrow = load_arrow()
        query = "SELECT first, last, rows, view_digest, payload FROM batches WHERE last > ? AND first <= ? ORDER BY 1"
        tables: list[Any] = []
        found, first, last, version = 0, after + 1, after, None
        with (
            self._lock,
            _translated(),
            contextlib.closing(self._connection.execute(query, (after, through or _NO_END))) as batches,
        ):
            for begin, end, count, digest, payload in batches:
                if version not in {None, digest} or (limit is not None and found >= limit):
                    break
                if version is None:
                    first, version = max(begin, after + 1), digest
                tables.append(_from_bytes(payload))
                found, last = found + count, min(end, through or _NO_END)
        if version is None:
            return None
        table = arrow.concat_tables(tables).combine_chunks()
        sequence = table.column(SEQUENCE)
        compute = arrow.compute
        table = table.filter(compute.and_(compute.greater(sequence, after), compute.less_equal(sequence, last)))
        return LogRows(first=first, last=last, view_digest=version, rows=table)

    def state(self) -> LogState:
        """Where the log stands now."""
        query = "SELECT sum(rows), min(accepted_at) FROM batches"
        with self._lock, _translated():
            count, oldest = self._connection.execute(query).fetchone()
            last = self._meta("last")
        at = None if oldest is None else _EPOCH + timedelta(microseconds=oldest)
        return LogState(last=last, unsealed_rows=count or 0, oldest_unsealed_at=at)

    def stretches(self) -> list[Stretch]:
        """Those that are being sealed, in order."""
        with self._lock, _translated():
            rows = self._connection.execute("SELECT first, last, view_digest FROM stretches ORDER BY first").fetchall()
        return [Stretch(first=first, last=last, view_digest=digest) for first, last, digest in rows]

    def begin_stretch(self, *, rows: int, older_than: datetime) -> Stretch | None:
        """Settle which rows are sealed next, if there are `rows` of them or the oldest one is older than that."""
        with self._lock, _translated(), _transaction(self._connection):
            after = self._connection.execute("SELECT max(last) FROM stretches").fetchone()[0] or self._meta("sealed")
            first = last = version = oldest = None
            count, is_cut = 0, False
            query = "SELECT first, last, rows, accepted_at, view_digest FROM batches WHERE first > ? ORDER BY first"
            for begin, end, size, accepted, digest in self._connection.execute(query, (after,)):
                if version not in {None, digest} or count >= rows:
                    is_cut = True
                    break
                if first is None:
                    first, version, oldest = begin, digest, accepted
                last, count = end, count + size
            if first is None or last is None or oldest is None:
                return None
            if not is_cut and count < rows and oldest > _microseconds(older_than):
                return None
            stretch = Stretch(first=first, last=last, view_digest=str(version))
            values = (stretch.first, stretch.last, stretch.view_digest)
            self._connection.execute("INSERT INTO stretches VALUES (?, ?, ?)", values)
            return stretch

    def end_stretch(self, stretch: Stretch) -> None:
        """Drop the rows of the oldest stretch: its segment was read back, and holds them."""
        with self._lock, _translated(), _transaction(self._connection):
            self._connection.execute("DELETE FROM batches WHERE last <= ?", (stretch.last,))
            self._connection.execute("DELETE FROM stretches WHERE last <= ?", (stretch.last,))
            self._connection.execute("UPDATE meta SET value = ? WHERE key = 'sealed'", (stretch.last,))

    def principals(self, stretch: Stretch) -> Mapping[str, int]:
        """Who pushed the rows of a stretch, and how many."""
        query = "SELECT principal, sum(rows) FROM batches WHERE first >= ? AND last <= ? GROUP BY principal ORDER BY 1"
        with self._lock, _translated():
            return dict(self._connection.execute(query, (stretch.first, stretch.last)).fetchall())

    def forget(self, is_subject: Callable[[ArrowTable], Any]) -> int:
        """Take rows out that lie here; `is_subject` gives an Arrow array of which of a table's; returns how many.

        Their events stay known, so that what is delivered once more is not taken again.
        """
        removed = 0
        with self._lock, _translated(), _transaction(self._connection):
            found = self._connection.execute("SELECT first, payload FROM batches ORDER BY first").fetchall()
            for first, payload in found:
                table = _from_bytes(payload)
                kept = table.filter(load_arrow().compute.invert(is_subject(table)))
                if kept.num_rows < table.num_rows:
                    removed += table.num_rows - kept.num_rows
                    values = (kept.num_rows, _to_bytes(kept), first)
                    self._connection.execute("UPDATE batches SET rows = ?, payload = ? WHERE first = ?", values)
        if removed:
            with self._lock, _translated():
                # What was overwritten may still lie in free pages and in the write-ahead log.
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return removed

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _meta(self, key: str) -> int:
        return self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0]

    def _commit_queue(self) -> None:
        batch: list[_Waiting] = []
        while self._queue:
            batch.append(self._queue.popleft())
        # Whatever ends this before the commit, nobody is told that his rows were taken.
        failed: FairleadError | None = Unavailable("The rows were not written.", hint="Push the rows again.")
        try:
            with _translated(), _transaction(self._connection):
                for waiting in batch:
                    waiting.result = self._take(waiting)
            failed = None
        except FairleadError as error:
            failed = error
        finally:
            for waiting in batch:
                waiting.error = failed
                waiting.is_done = True

    def _take(self, waiting: _Waiting) -> Appended:
        hashes = [hashlib.sha256(each.encode()).digest()[:_HASH_BYTES] for each in waiting.ids]
        known = self._known(set(hashes))
        kept: list[int] = []
        to: list[int] = []
        news: dict[bytes, int] = {}
        for position, name in enumerate(hashes):
            before = known.get(name, 0)
            new = waiting.to & ~before
            if new:
                kept.append(position)
                to.append(new)
                known[name] = news[name] = before | new
        duplicates = len(hashes) - len(kept)
        if not kept:
            return Appended(duplicates=duplicates)
        self._connection.executemany("INSERT OR REPLACE INTO events VALUES (?, ?)", news.items())
        first = self._meta("last") + 1
        last = first + len(kept) - 1
        rows = waiting.rows if not duplicates else waiting.rows.take(kept)
        ids = waiting.ids if not duplicates else [waiting.ids[position] for position in kept]
        table = _with_own_columns(rows, ids, to, first, waiting.now)
        values = (first, last, len(kept), _microseconds(waiting.now), waiting.view_digest, waiting.principal)
        self._connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, _to_bytes(table)))
        self._connection.execute("UPDATE meta SET value = ? WHERE key = 'last'", (last,))
        return Appended(duplicates=duplicates, first=first, last=last, rows=table)

    def _known(self, hashes: set[bytes]) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        asked = list(hashes)
        for start in range(0, len(asked), _ASKED_AT_ONCE):
            part = asked[start : start + _ASKED_AT_ONCE]
            holes = ", ".join("?" * len(part))
            query = f"SELECT hash, destinations FROM events WHERE hash IN ({holes})"  # noqa: S608  (only holes)
            found.update(self._connection.execute(query, part).fetchall())
        return found


def log_schema(view_schema: Any) -> Any:
    """The schema of a log's rows: its own columns, then the view's."""
    arrow = load_arrow()
    own = [
        arrow.field(SEQUENCE, arrow.int64()),
        arrow.field(EVENT, arrow.string()),
        arrow.field(ACCEPTED, arrow.timestamp("us", tz="UTC")),
        arrow.field(TO, arrow.int8()),
    ]
    return arrow.schema([*own, *view_schema])


def _with_own_columns(rows: ArrowTable, ids: Sequence[str], to: Sequence[int], first: int, now: datetime) -> ArrowTable:
    arrow = load_arrow()
    schema = log_schema(rows.schema)
    count = rows.num_rows
    moment = arrow.scalar(now, arrow.timestamp("us", tz="UTC"))
    own = [
        arrow.array(range(first, first + count), arrow.int64()),
        arrow.array(ids, arrow.string()),
        arrow.repeat(moment, count),
        arrow.array(to, arrow.int8()),
    ]
    return arrow.table([*own, *rows.columns], schema=schema)


def _to_bytes(table: ArrowTable) -> bytes:
    arrow = load_arrow()
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_bytes(payload: bytes) -> ArrowTable:
    return load_arrow().ipc.open_stream(payload).read_all()


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except (sqlite3.DatabaseError, OSError) as error:
        if "full" in str(error) or getattr(error, "errno", None) == errno.ENOSPC:
            raise StorageFull(
                "There is no space left for a log of pushed rows.", hint="Free some space, and push the rows again."
            ) from error
        raise Unavailable("A log of pushed rows cannot be read or written now.", hint="Push the rows again.") from error
