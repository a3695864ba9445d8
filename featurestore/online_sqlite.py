"""The embedded engine of online stores: one SQLite file for each store, which `online_reader` reads.

A file is built aside, synced, and renamed into its place, so a reader sees one snapshot or the next, never a mixture,
and a file once in place is never changed. An incremental step works on a copy, which costs no bytes where the file
system shares blocks between copies. What is pushed lies beside the file, in a database of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import InvalidInput, StorageFull
from fairlead.core.ids import Digest, digest_hex
from fairlead.featurestore.duck import fetch_batches, open_duckdb
from fairlead.featurestore.online_engines import PushedRow, StoreChanges, StoreContents, StoreName
from fairlead.featurestore.online_layout import KeptView, kept_views
from fairlead.featurestore.online_live import LiveRows, is_late, read_pushed, split_key
from fairlead.featurestore.online_reader import FORMAT, MovedError, OnlineReader, OnlineStoreError, StoredView

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BATCH = 10_000
_SQLITE_KEYS = {"INT32": "INTEGER", "INT64": "INTEGER", "STRING": "TEXT"}
_SUFFIX = ".sqlite"
_CLONE = 0x40049409  # Linux's FICLONE
_DESCRIBED = "alias, store, keys, features, ttl_microseconds, is_missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineFolder:
    """Where the online stores of this machine are: `{root}/{region, ":" as "_"}/{workspace}/{service}.sqlite`.

    A slot of a snapshot is beside it, as `{service}@{digest in hexadecimal}.sqlite`.
    """

    root: Path

    def path(self, region: str, workspace_id: str, service: str, slot: str = "") -> Path:
        """The file of one service in one region."""
        name = f"{service}@{digest_hex(Digest(slot))}" if slot else service
        return self.region(region, workspace_id) / f"{name}{_SUFFIX}"

    def region(self, region: str, workspace_id: str) -> Path:
        """The folder of a workspace's stores in one region."""
        return self.root / region.replace(":", "_") / workspace_id


class SqliteEngine:
    """Keeps each store in a file of this machine."""

    kind = "sqlite"
    is_atomic = True
    forgets_keys = True

    def __init__(self, options: Mapping[str, Any], folder: OnlineFolder) -> None:
        if options:
            raise InvalidInput(f"The online engine `sqlite` has no option {min(options)!r}.", hint="Leave it out.")
        self._folder = folder

    def address(self, name: StoreName) -> str:
        """As `OnlineEngine.address`."""
        return str(self.path(name))

    def path(self, name: StoreName) -> Path:
        """Where a store's file is."""
        return self._folder.path(name.region, name.workspace_id, name.service, name.slot)

    def write(self, name: StoreName, contents: StoreContents, *, scratch: Path) -> int:
        """As `OnlineEngine.write`."""
        views = kept_views(contents)
        with self._replacing(name, scratch) as connection:
            _describe(connection, views)
            with open_duckdb(scratch) as duckdb:
                kept = [view for view in views if not view.is_missing]
                count = sum(_insert(connection, view, _tuples(duckdb, view.last_rows(is_binary=True))) for view in kept)
            _set_meta(connection, contents, count)
        self._prune(name, views)
        return count

    def apply(self, name: StoreName, contents: StoreContents, changes: StoreChanges, *, scratch: Path) -> int | None:
        """As `OnlineEngine.apply`."""
        views = kept_views(contents, changes)
        meta = self.meta(name)
        if meta is None or "rows" not in meta or meta["snapshot"] != changes.base:
            return None
        if self._described(name) != [(view.accepted(), *view.described()) for view in views]:
            return None
        try:
            with self._replacing(name, scratch, copy=True) as connection, open_duckdb(scratch) as duckdb:
                _check_copied(connection, meta)
                count = int(meta["rows"])
                for view in views:
                    if (changed := view.changed_keys()) is not None and not view.is_missing:
                        count -= _delete(connection, view, _tuples(duckdb, changed))
                        count += _insert(connection, view, _tuples(duckdb, view.last_rows(is_binary=True)))
                _set_meta(connection, contents, count)
        except MovedError:
            return None
        self._prune(name, views)
        return count

    def meta(self, name: StoreName) -> dict[str, str] | None:
        """What a store says of itself; None where there is none."""
        try:
            with closing(self.reader(name)) as reader:
                return reader.meta
        except (FileNotFoundError, OnlineStoreError):
            return None

    def reader(self, name: StoreName) -> OnlineReader:
        """As `OnlineEngine.reader`."""
        return OnlineReader(self.path(name))

    def stores(self, workspace_id: str, region: str) -> list[StoreName]:
        """As `OnlineEngine.stores`."""
        found: list[StoreName] = []
        for path in sorted(self._folder.region(region, workspace_id).glob(f"*{_SUFFIX}")):
            service, _, slot = path.name.removesuffix(_SUFFIX).partition("@")
            found.append(
                StoreName(
                    workspace_id=workspace_id, service=service, region=region, slot=f"sha256:{slot}" if slot else ""
                )
            )
        return found

    def drop(self, name: StoreName) -> None:
        """As `OnlineEngine.drop`."""
        path = self.path(name)
        for each in (path, *LiveRows(path).files()):
            each.unlink(missing_ok=True)

    def push(self, name: StoreName, view: str, rows: Sequence[PushedRow]) -> int:
        """As `OnlineEngine.push`."""
        try:
            found = [
                row for stored, accepted in self._accepting(name) for row in read_pushed(stored, accepted, view, rows)
            ]
        except FileNotFoundError:
            return 0
        return LiveRows(self.path(name)).upsert(found) if found else 0

    def forget_entity(self, name: StoreName, join_key: str, value: Any, *, scratch: Path) -> int:
        """As `OnlineEngine.forget_entity`."""
        try:
            places = {
                stored.alias: (stored, [own for _, _, own in stored.keys].index(join_key))
                for stored, _ in self._accepting(name)
                if any(own == join_key for _, _, own in stored.keys)
            }
        except FileNotFoundError:
            return 0
        count = 0
        with self._replacing(name, scratch, copy=True) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            for stored, place in places.values():
                if not stored.is_missing:
                    query = f"DELETE FROM {stored.store} WHERE k{place} = ?"  # noqa: S608  (names of our own making)
                    count += connection.execute(query, (value,)).rowcount
            query = "UPDATE meta SET value = CAST(value - ? AS TEXT) WHERE key = 'rows'"
            connection.execute(query, (count,))

        def is_of(alias: str, key: str) -> bool:
            found = places.get(alias)
            return found is not None and split_key(key, len(found[0].keys))[found[1]] == str(value)

        return count + LiveRows(self.path(name)).forget(is_of)

    def _accepting(self, name: StoreName) -> list[tuple[StoredView, str]]:
        path = self.path(name)
        if not path.exists():
            raise FileNotFoundError(path)
        with closing(sqlite3.connect(path)) as connection:
            query = f"SELECT accepted, {_DESCRIBED} FROM views ORDER BY position"  # noqa: S608
            return [(StoredView(row[1:]), row[0]) for row in connection.execute(query)]

    def _described(self, name: StoreName) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path(name))) as connection:
            return connection.execute(f"SELECT accepted, {_DESCRIBED} FROM views ORDER BY position").fetchall()  # noqa: S608

    @contextmanager
    def _replacing(self, name: StoreName, scratch: Path, *, copy: bool = False) -> Generator[sqlite3.Connection]:
        """A new file, empty or a copy of what is served, that takes its place once the block is done."""
        path, temporary = self.path(name), scratch / f"{secrets.token_hex(6)}{_SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if copy:
                _copy(path, temporary)
            with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                # Nobody reads the file before it is whole, and it is synced then.
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        except (sqlite3.OperationalError, OSError) as error:
            if "full" not in str(error) and getattr(error, "errno", None) != errno.ENOSPC:
                raise
            raise StorageFull(
                "There is no space left for an online store.",
                hint="Free some space; the work is tried again by itself.",
            ) from error
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()

    def _prune(self, name: StoreName, views: Sequence[KeptView]) -> None:
        """Take away what was pushed and is in the snapshot by now, or of what is no longer taken."""
        stores = {view.projection.alias: view for view in views if not view.is_missing}
        with closing(sqlite3.connect(self.path(name))) as connection:

            def is_overtaken(alias: str, view: str, key: str, event: int, created: int | None) -> bool:
                kept = stores.get(alias)
                if kept is None or kept.view.name != view:
                    return True
                where = " AND ".join(f"k{index} = ?" for index in range(len(kept.view.keys)))
                query = f"SELECT event_timestamp, created_timestamp FROM view_{kept.position} WHERE {where}"  # noqa: S608
                row = connection.execute(query, split_key(key, len(kept.view.keys))).fetchone()
                return row is not None and is_late(row[0], row[1], event, created)

            LiveRows(self.path(name)).prune(is_overtaken)


def _describe(connection: sqlite3.Connection, views: Sequence[KeptView]) -> None:
    connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    connection.execute(
        "CREATE TABLE views (position INTEGER PRIMARY KEY, accepted TEXT NOT NULL, alias TEXT NOT NULL,"
        " store TEXT NOT NULL, keys TEXT NOT NULL, features TEXT NOT NULL, ttl_microseconds INTEGER,"
        " is_missing INTEGER NOT NULL)"
    )
    for view in views:
        described = (view.position, view.accepted(), *view.described())
        connection.execute("INSERT INTO views VALUES (?, ?, ?, ?, ?, ?, ?, ?)", described)
        if not view.is_missing:
            keys = [f"k{index} {_SQLITE_KEYS[key.type]} NOT NULL" for index, key in enumerate(view.view.keys)]
            # Columns without a type keep each value as it comes.
            values = [f"f{index}" for index in range(len(view.features))]
            columns = ", ".join([*keys, "event_timestamp INTEGER NOT NULL", "created_timestamp INTEGER", *values])
            primary = ", ".join(f"k{index}" for index in range(len(keys)))
            connection.execute(f"CREATE TABLE view_{view.position} ({columns}, PRIMARY KEY ({primary})) WITHOUT ROWID")


def _check_copied(connection: sqlite3.Connection, meta: Mapping[str, str]) -> None:
    """Raise `MovedError` if another worker's file had taken the place of the one that was to be copied."""
    if dict(connection.execute("SELECT key, value FROM meta")) != meta:
        raise MovedError


def _set_meta(connection: sqlite3.Connection, contents: StoreContents, rows: int) -> None:
    meta = {**contents.meta, "format": FORMAT, "service": contents.service.name, "rows": str(rows)}
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())


def _insert(connection: sqlite3.Connection, view: KeptView, rows: Iterator[tuple[Any, ...]]) -> int:
    holes = ", ".join("?" * (len(view.view.keys) + 2 + len(view.features)))
    query = f"INSERT INTO view_{view.position} VALUES ({holes})"  # noqa: S608  (names of our own making)
    return max(0, connection.executemany(query, rows).rowcount)


def _delete(connection: sqlite3.Connection, view: KeptView, keys: Iterator[tuple[Any, ...]]) -> int:
    where = " AND ".join(f"k{index} = ?" for index in range(len(view.view.keys)))
    query = f"DELETE FROM view_{view.position} WHERE {where}"  # noqa: S608  (names of our own making)
    return max(0, connection.executemany(query, keys).rowcount)


def _tuples(duckdb: DuckDBPyConnection, query: str) -> Iterator[tuple[Any, ...]]:
    for batch in fetch_batches(duckdb, query, _BATCH):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can."""
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _CLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new, 2**20)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
