"""Reads one region's online features of one service, with nothing but the standard library.

This file is copied as it is into what is deployed, so it imports nothing of Fairlead. The store is a SQLite file that
holds one snapshot: it is never changed, only replaced as a whole by the next one, so a read answers from one snapshot
and says from which. A reader may be shared by threads.

    reader = OnlineReader("diagnosis.sqlite")
    digest, rows = reader.read({"patient_id": [17, 99]})

Rows that were pushed since lie in a second database, `PATH-live`, which is written while it is read (in WAL mode). Both
are described in docs/reference/format.md, as "Online store".
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

FORMAT = "1"
STATUS = "_status"
"""The member of each row that says, by view: `present`, `not_found`, `expired` (older than its TTL), or
`not_in_region` (the view's residency class keeps it out of this region). A feature that a class of its own keeps out
of the region says so too, as `view:feature`."""

# A view without an entity has this key, as in Feast, and this text in it; nobody is asked for it.
_DUMMY_KEY, _DUMMY_VALUE = "__dummy_id", ""
# Statements are kept by their text, so few lengths are asked for; SQLite takes 999 values at least.
_LENGTHS = (1, 8, 32, 128, 512)
_MAPPED_BYTES = 2**30
_TRIES = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017  (bundles may run on an older Python)
_Answer = TypeVar("_Answer")


class OnlineStoreError(ValueError):
    """The question cannot be answered: an unknown or missing key, or a file that is no online store."""


class MovedError(Exception):
    """Another snapshot took the place of what was read meanwhile; it is read again."""


@dataclass(frozen=True)
class ViewColumns:
    """What one view says of each entity that was asked for, in their order.

    `statuses` as `STATUS` says them; `moments` are event times (microseconds since 1970; None: nothing is stored);
    `features` has a list for each output name, with None where the status is not `present`.
    """

    view: str
    statuses: list[str]
    moments: list[int | None]
    features: dict[str, list[Any]]


class StoredView:
    """How a store describes one view: the names and types of its keys and features, and how long its values hold.

    `keys` are (caller's name, type, view's name), `features` (output name, type, feature). `asked_keys` are those keys
    that callers give: none of a view without an entity.
    """

    def __init__(self, described: Sequence[Any]) -> None:
        """`described` is a row of the table `views`, without its position."""
        alias, store, keys, features, ttl_microseconds, is_missing = described
        self.alias: str = alias
        self.store: str = store
        self.ttl: int | None = ttl_microseconds
        self.is_missing = bool(is_missing)
        self.keys: list[tuple[str, str, str]] = [(name, kind, key) for name, kind, key in json.loads(keys)]
        self.asked_keys = [key for key in self.keys if key[2] != _DUMMY_KEY]
        self.features: list[tuple[str, str, str]] = [(name, kind, own) for name, kind, own in json.loads(features)]

    def encode(self, columns: Sequence[Sequence[Any]], count: int) -> list[Any]:
        """The stored keys of `count` entities by columns of `asked_keys`: plain values of a single key, else tuples."""
        if not self.asked_keys:
            return [_DUMMY_VALUE] * count
        encoded = [_encode_keys(values, *key[:2]) for values, key in zip(columns, self.asked_keys, strict=True)]
        return encoded[0] if len(encoded) == 1 else list(zip(*encoded, strict=True))

    def columns(self, found: Sequence[Sequence[Any] | None], now: int) -> ViewColumns:
        """The answer from each entity's stored row: event time, then the features as they are kept."""
        if self.is_missing:
            statuses, kept = ["not_in_region"] * len(found), []
        else:
            oldest = None if self.ttl is None else now - self.ttl
            statuses = [
                "not_found" if row is None else "present" if oldest is None or row[0] >= oldest else "expired"
                for row in found
            ]
            kept = found
        moments = [None if row is None else row[0] for row in found]
        given = [row if status == "present" else None for row, status in zip(found, statuses, strict=True)]
        features: dict[str, list[Any]] = {}
        for position, (name, kind, _) in enumerate(self.features, start=1):
            values = [None if row is None else row[position] for row in given] if kept else [None] * len(found)
            decode = _decoder(kind)
            features[name] = values if decode is None else [None if each is None else decode(each) for each in values]
        return ViewColumns(view=self.alias, statuses=statuses, moments=moments, features=features)


def count_entities(entities: Mapping[str, Sequence[Any]]) -> int:
    """How many entities columns are about; one where there are none, which is what views without an entity take."""
    return len(next(iter(entities.values()))) if entities else 1


def key_text(key: Any, width: int) -> str:
    """A stored key as one text: itself, or for a key of several columns each one's length in bytes, a colon and it."""
    if width == 1:
        return str(key)
    return "".join(f"{len(text.encode())}:{text}" for text in map(str, key))


def live_row(view: StoredView, event: int, features: str) -> tuple[Any, ...]:
    """A pushed row as `FeatureReader` takes it: event time, then the features as they are kept."""
    named = json.loads(features)
    values = [(named.get(own), kind) for _, kind, own in view.features]
    return (event, *(base64.b64decode(kept) if kind == "BYTES" and kept is not None else kept for kept, kind in values))


class FeatureReader:
    """Reads one service's online features from one store. A kind of store is a subclass that has three methods.

    `_refresh` brings `_meta` and `_views` up to date and may raise; `_fetch` gives the stored rows of a view by their
    keys, or raises `MovedError`; `_close` lets go of what is open. They are called by one thread at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._meta: dict[str, str] = {}
        self._views: list[StoredView] = []

    def _refresh(self) -> None:
        raise NotImplementedError

    def _fetch(self, view: StoredView, keys: Collection[Any]) -> Mapping[Any, Sequence[Any]]:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    @property
    def meta(self) -> dict[str, str]:
        """What the store says of itself now: `service`, `service_digest`, `snapshot`, `as_of`, `region`.

        Raises:
            FileNotFoundError: if there is no store.
            OnlineStoreError: if it is none that can be read.
        """
        with self._lock:
            self._refresh()
            return dict(self._meta)

    @property
    def views(self) -> list[StoredView]:
        """The views that the store has of the service, in the service's order; raises as `meta`."""
        with self._lock:
            self._refresh()
            return list(self._views)

    def read(
        self, entities: Mapping[str, Sequence[Any]], *, now: datetime | None = None
    ) -> tuple[str, list[dict[str, Any]]]:
        """The snapshot's digest, and for each entity a row: the keys, `STATUS`, and the features.

        Args:
            entities: the values of each join key; all of one length. Further columns are given back as they are.
                Without any column there is one row, of views without an entity.
            now: what TTLs are measured against; the present by default.

        An entity that is not known has None for each feature and says so in its status.

        Raises:
            FileNotFoundError: if there is no store.
            OnlineStoreError: if a key is missing, or of the wrong type, or the store is damaged.
        """
        meta, found = self.read_columns(entities, now=now)
        views = [each.view for each in found]
        # `view:feature` of what a class of columns keeps out; stores of before there were any say nothing.
        kept_out = dict.fromkeys(json.loads(meta.get("not_in_region", "[]")), "not_in_region")
        statuses = zip(*(view.statuses for view in found), strict=True)
        names = [*entities, STATUS]
        said = [dict(zip(views, each, strict=True)) | kept_out for each in statuses]
        columns: list[Sequence[Any]] = [*entities.values(), said]
        for view in found:
            names += view.features
            columns += view.features.values()
        return meta["snapshot"], [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def read_columns(
        self,
        entities: Mapping[str, Sequence[Any]],
        *,
        now: datetime | None = None,
        views: Collection[str] | None = None,
    ) -> tuple[dict[str, str], list[ViewColumns]]:
        """What the store says of itself, and the columns of each view (or of some): as `read`, without the rows."""
        if len({len(values) for values in entities.values()}) > 1:
            raise OnlineStoreError("The join keys have lists of different lengths.")
        count, moment = count_entities(entities), _microseconds(now)

        def look_up() -> tuple[dict[str, str], list[ViewColumns]]:
            wanted = [view for view in self._views if views is None or view.alias in views]
            return dict(self._meta), [self._look_up(view, _named(view, entities), count, moment) for view in wanted]

        return self._of_one_snapshot(look_up)

    def read_view(
        self, view: str, keys: Sequence[Mapping[str, Any]], *, now: datetime | None = None
    ) -> list[tuple[datetime, dict[str, Any]] | None]:
        """For each entity the event time and features of one view under their own names, or None where none are given.

        Args:
            view: the name under which the service takes the view.
            keys: for each entity its keys, under the view's own names.
            now: what the TTL is measured against; the present by default.

        Raises:
            FileNotFoundError: if there is no store.
            OnlineStoreError: if the service takes no such view, or a key is missing or of the wrong type.
        """
        moment = _microseconds(now)

        def look_up() -> tuple[StoredView, ViewColumns]:
            found = next((each for each in self._views if each.alias == view), None)
            if found is None:
                raise OnlineStoreError(f"The online store has no view {view!r}.")
            if missing := [own for _, _, own in found.asked_keys if any(own not in each for each in keys)]:
                raise OnlineStoreError(f"The join key {missing[0]!r} is missing.")
            columns = [[each[own] for each in keys] for _, _, own in found.asked_keys]
            return found, self._look_up(found, columns, len(keys), moment)

        found, answer = self._of_one_snapshot(look_up)
        own_names = [own for _, _, own in found.features]
        return [
            (_EPOCH + timedelta(microseconds=moment), dict(zip(own_names, values, strict=True)))
            if status == "present" and moment is not None
            else None
            for status, moment, values in zip(
                answer.statuses, answer.moments, _rows(answer.features.values(), len(keys)), strict=True
            )
        ]

    def keys(self, view: str) -> Iterator[tuple[Any, ...]] | None:
        """The keys of every stored row of a view, in any order; None where the store cannot list them."""
        del view
        return None

    def close(self) -> None:
        """Close the store; the next read opens it again."""
        with self._lock:
            self._close()

    def _of_one_snapshot(self, look_up: Callable[[], _Answer]) -> _Answer:
        for _ in range(_TRIES):
            with self._lock:
                self._refresh()
                try:
                    return look_up()
                except MovedError:
                    continue
        raise OnlineStoreError("The online store changes faster than it can be read.")

    def _look_up(self, view: StoredView, columns: Sequence[Sequence[Any]], count: int, now: int) -> ViewColumns:
        keys = view.encode(columns, count)
        rows: Mapping[Any, Sequence[Any]] = {} if view.is_missing else self._fetch(view, set(keys))
        return view.columns([rows.get(key) for key in keys], now)


class OnlineReader(FeatureReader):
    """One service's online features in one region, from the SQLite file at `path`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._path = os.fspath(path)
        self._identity: tuple[int, int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        self._live = _LiveRows(self._path + "-live")

    def keys(self, view: str) -> Iterator[tuple[Any, ...]]:
        """The keys of every stored row of a view, in order.

        Raises:
            FileNotFoundError: if there is no file.
            OnlineStoreError: if the service takes no such view, or the file is damaged.
        """
        # A connection of its own: others go on reading meanwhile.
        connection, _, views = _open(self._path)
        with closing(connection):
            found = next((each for each in views if each.alias == view), None)
            if found is None:
                raise OnlineStoreError(f"The online store has no view {view!r}.")
            if found.is_missing:
                return
            names = ", ".join(f"k{index}" for index in range(len(found.keys)))
            try:
                yield from connection.execute(f"SELECT {names} FROM {found.store}")  # noqa: S608  (names of our own making)
            except sqlite3.DatabaseError as error:
                raise OnlineStoreError("The online store is damaged.") from error

    def _refresh(self) -> None:
        """Open the file that is at the path now: another one once it was replaced."""
        identity = self._identity_now()
        if self._connection is None or identity != self._identity:
            self._close()
            self._connection, self._meta, self._views = _open(self._path)
            self._identity = identity

    def _identity_now(self) -> tuple[int, int, int]:
        found = os.stat(self._path)  # noqa: PTH116  (said a thousand times a second)
        return found.st_dev, found.st_ino, found.st_mtime_ns

    def _fetch(self, view: StoredView, keys: Collection[Any]) -> Mapping[Any, Sequence[Any]]:
        width = len(view.keys)
        names = ", ".join(f"k{index}" for index in range(width))
        values = "".join(f", f{index}" for index in range(len(view.features)))
        # NULL is the key of nothing.
        wanted = [key for key in keys if (key is not None if width == 1 else None not in key)]
        found: dict[Any, Sequence[Any]] = {}
        try:
            for part, length in _parts(wanted):
                if width == 1:
                    holes, filled = ", ".join("?" * length), part + [None] * (length - len(part))
                else:
                    holes = "VALUES " + ", ".join([f"({', '.join('?' * width)})"] * length)
                    filled = [value for key in part for value in key] + [None] * (width * (length - len(part)))
                query = f"SELECT event_timestamp{values}, {names} FROM {view.store} WHERE ({names}) IN ({holes})"  # noqa: S608  (names of our own making)
                found.update((row[-1] if width == 1 else row[-width:], row) for row in self._cursor(query, filled))
            self._add_live(view, wanted, found)
        except sqlite3.DatabaseError as error:
            raise OnlineStoreError("The online store is damaged.") from error
        return found

    def _add_live(self, view: StoredView, keys: Sequence[Any], found: dict[Any, Sequence[Any]]) -> None:
        width = len(view.keys)
        pushed = self._live.find(view.alias, keys, width)
        if self._live.is_there and self._identity_now() != self._identity:
            # What was pushed and is in the next snapshot is gone by now, and not in this one.
            raise MovedError
        for key, (event, created, features) in pushed.items():
            row = found.get(key)
            is_later = row is None or event > row[0]
            if row is not None and event == row[0] and created is not None:
                where = " AND ".join(f"k{index} = ?" for index in range(width))
                query = f"SELECT created_timestamp FROM {view.store} WHERE {where}"  # noqa: S608  (names of our own making)
                before = self._cursor(query, [key] if width == 1 else key).fetchone()
                is_later = before is None or before[0] is None or created > before[0]
            if is_later:
                found[key] = live_row(view, event, features)

    def _cursor(self, query: str, values: Sequence[Any]) -> sqlite3.Cursor:
        if self._connection is None:
            raise OnlineStoreError("The online store is closed.")
        return self._connection.execute(query, values)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._identity = None, None
        self._live.close()


class _LiveRows:
    """What was pushed beside a store; nothing where there is no such file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None

    def find(self, alias: str, keys: Sequence[Any], width: int) -> dict[Any, tuple[int, int | None, str]]:
        """Event and created timestamp and the features of those entities that have a row."""
        connection = self._open()
        if connection is None or not connection.execute("SELECT EXISTS (SELECT 1 FROM rows)").fetchone()[0]:
            return {}
        query = "SELECT event_timestamp, created_timestamp, features FROM rows WHERE alias = ? AND key = ?"
        rows = ((key, connection.execute(query, (alias, key_text(key, width))).fetchone()) for key in keys)
        return {key: row for key, row in rows if row is not None}

    @property
    def is_there(self) -> bool:
        """Whether there was such a file when it was last looked for."""
        return self._connection is not None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._identity = None, None

    def _open(self) -> sqlite3.Connection | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116  (as above)
        except FileNotFoundError:
            self.close()
            return None
        if self._connection is None or (found.st_dev, found.st_ino) != self._identity:
            self.close()
            address = "file:" + _escaped(self._path) + "?mode=ro"
            self._connection = sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None)
            self._identity = (found.st_dev, found.st_ino)
            if not self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'rows'").fetchone():
                # Whoever pushes first makes the file, and the table in it a moment later.
                self.close()
        return self._connection


def _escaped(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _parts(keys: list[Any]) -> Iterator[tuple[list[Any], int]]:
    for start in range(0, len(keys), _LENGTHS[-1]):
        part = keys[start : start + _LENGTHS[-1]]
        yield part, next(length for length in _LENGTHS if length >= len(part))


def _rows(columns: Collection[Sequence[Any]], count: int) -> Sequence[Sequence[Any]]:
    return list(zip(*columns, strict=True)) if columns else [()] * count


def _named(view: StoredView, entities: Mapping[str, Sequence[Any]]) -> list[Sequence[Any]]:
    if missing := [name for name, _, _ in view.asked_keys if name not in entities]:
        raise OnlineStoreError(f"The join key {missing[0]!r} is missing.")
    return [entities[name] for name, _, _ in view.asked_keys]


def _microseconds(now: datetime | None) -> int:
    return time.time_ns() // 1000 if now is None else (now - _EPOCH) // timedelta(microseconds=1)


def _open(path: str) -> tuple[sqlite3.Connection, dict[str, str], list[StoredView]]:
    # The file is never written, so it needs no locks.
    address = "file:" + _escaped(path)
    connection = sqlite3.connect(address + "?mode=ro&immutable=1", uri=True, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
        meta: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta"))
        query = "SELECT alias, store, keys, features, ttl_microseconds, is_missing FROM views ORDER BY position"
        views = [StoredView(row) for row in connection.execute(query)] if meta.get("format") == FORMAT else []
    except sqlite3.DatabaseError as error:
        connection.close()
        raise OnlineStoreError("The file is no online store.") from error
    if meta.get("format") != FORMAT:
        connection.close()
        raise OnlineStoreError(f"The online store has format {meta.get('format')}, not {FORMAT}.")
    return connection, meta, views


def _encode_keys(values: Sequence[Any], name: str, kind: str) -> list[Any]:
    # What most callers send goes as it is; truth values and floats do not.
    plain = str if kind == "STRING" else int
    if all(type(value) is plain for value in values) and (plain is str or _fit(values)):
        return list(values)
    return [_encode_key(value, name, kind) for value in values]


def _fit(numbers: Sequence[int]) -> bool:
    return not numbers or (min(numbers) >= -(2**63) and max(numbers) < 2**63)


def _encode_key(value: Any, name: str, kind: str) -> Any:
    if value is None:
        return None
    if kind == "STRING":
        return value if isinstance(value, str) else str(value)
    try:
        number = int(value)
        is_exact = isinstance(value, str) or number == value
    except (TypeError, ValueError, OverflowError):
        is_exact, number = False, 0
    if not is_exact:
        raise OnlineStoreError(f"The join key {name!r} is a whole number, not {value!r}.")
    # SQLite's integers end there, so no entity has a larger key.
    return number if -(2**63) <= number < 2**63 else None


def _decoder(kind: str) -> Callable[[Any], Any] | None:
    """What makes a value of what is kept of it; None: it is kept as it is."""
    if kind.endswith("_LIST"):
        item = base64.b64decode if kind == "BYTES_LIST" else _decoder(kind[: -len("_LIST")])
        if item is None:
            return json.loads
        return lambda kept: [None if each is None else item(each) for each in json.loads(kept)]
    if kind == "BOOL":
        return bool
    if kind == "UNIX_TIMESTAMP":
        return lambda kept: _EPOCH + timedelta(microseconds=kept)
    return None
