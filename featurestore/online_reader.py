"""Reads one region's online features of one service, with nothing but the standard library.

This file is copied as it is into what is deployed, so it imports nothing of Fairlead. The store is a SQLite file that
holds one snapshot: it is never changed, only replaced as a whole by the next one, so a read answers from one snapshot
and says from which. A reader may be shared by threads.

    reader = OnlineReader("diagnosis.sqlite")
    digest, rows = reader.read({"patient_id": [17, 99]})

File format 1. Table `meta(key, value)`: `format`, `service`, `service_digest`, `snapshot`, `as_of`, `region`.
Table `views(position, alias, store, keys, features, ttl_microseconds, is_missing)`: `keys` is a JSON list of
`[caller's name, type, view's name]`, `features` one of `[output name, type, feature]`, `store` the table with the
view's rows: columns `k0, k1 ...`, `event_timestamp` (microseconds since 1970, UTC), `f0, f1 ...`. Times are kept as
microseconds, truth values as 0 and 1, lists as JSON; a missing value is NULL.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

FORMAT = "1"
STATUS = "_status"
"""The member of each row that says, by view: `present`, `not_found`, `expired` (older than its TTL), or
`not_in_region` (the view's residency class keeps it out of this region)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017  (bundles may run on an older Python)


class OnlineStoreError(ValueError):
    """The question cannot be answered: an unknown or missing key, or a file that is no online store."""


class OnlineReader:
    """One service's online features in one region, from the SQLite file at `path`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._lock = threading.Lock()
        self._identity: tuple[int, int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        self._meta: dict[str, str] = {}
        self._views: list[_View] = []

    @property
    def meta(self) -> dict[str, str]:
        """What the file says of itself now: `service`, `service_digest`, `snapshot`, `as_of`, `region`.

        Raises:
            FileNotFoundError: if there is no file.
            OnlineStoreError: if it is no online store.
        """
        with self._lock:
            self._refresh()
            return dict(self._meta)

    def read(
        self, entities: Mapping[str, Sequence[Any]], *, now: datetime | None = None
    ) -> tuple[str, list[dict[str, Any]]]:
        """The snapshot's digest, and for each entity a row: the keys, the features, and `STATUS`.

        Args:
            entities: the values of each join key; all of one length. Further columns are given back as they are.
            now: what TTLs are measured against; the present by default.

        An entity that is not known has None for each feature and says so in its status.

        Raises:
            FileNotFoundError: if there is no file.
            OnlineStoreError: if a key is missing, or of the wrong type, or the file is no online store.
        """
        lengths = {len(values) for values in entities.values()}
        if len(lengths) > 1:
            raise OnlineStoreError("The join keys have lists of different lengths.")
        count = lengths.pop() if lengths else 0
        moment = _microseconds(now)
        rows: list[dict[str, Any]] = [
            {name: values[index] for name, values in entities.items()} | {STATUS: {}} for index in range(count)
        ]
        with self._lock:
            connection = self._refresh()
            try:
                for view in self._views:
                    view.read(connection, entities, rows, moment)
            except sqlite3.DatabaseError as error:
                raise OnlineStoreError("The online store is damaged.") from error
            return self._meta["snapshot"], rows

    def read_view(
        self, view: str, keys: Sequence[Mapping[str, Any]], *, now: datetime | None = None
    ) -> list[tuple[datetime, dict[str, Any]] | None]:
        """For each entity the event time and features of one view under their own names, or None where none are given.

        Args:
            view: the name under which the service takes the view.
            keys: for each entity its keys, under the view's own names.
            now: what the TTL is measured against; the present by default.

        Raises:
            FileNotFoundError: if there is no file.
            OnlineStoreError: if the service takes no such view, or a key is missing or of the wrong type.
        """
        moment = _microseconds(now)
        with self._lock:
            connection = self._refresh()
            found = next((each for each in self._views if each.alias == view), None)
            if found is None:
                raise OnlineStoreError(f"The online store has no view {view!r}.")
            return [found.read_one(connection, each, moment) for each in keys]

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._identity = None, None

    def _refresh(self) -> sqlite3.Connection:
        """The connection to the file that is at the path now: another one once it was replaced."""
        found = os.stat(self._path)  # noqa: PTH116  (said a thousand times a second)
        identity = (found.st_dev, found.st_ino, found.st_mtime_ns)
        if self._connection is None or identity != self._identity:
            self._close()
            self._connection, self._meta, self._views = _open(self._path)
            self._identity = identity
        return self._connection


def _microseconds(now: datetime | None) -> int:
    return time.time_ns() // 1000 if now is None else (now - _EPOCH) // timedelta(microseconds=1)


def _open(path: str) -> tuple[sqlite3.Connection, dict[str, str], list[_View]]:
    # The file is never written, so it needs no locks.
    address = "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(address + "?mode=ro&immutable=1", uri=True, check_same_thread=False)
    try:
        meta: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta"))
        query = "SELECT alias, store, keys, features, ttl_microseconds, is_missing FROM views ORDER BY position"
        views = [_View(row) for row in connection.execute(query)] if meta.get("format") == FORMAT else []
    except sqlite3.DatabaseError as error:
        connection.close()
        raise OnlineStoreError("The file is no online store.") from error
    if meta.get("format") != FORMAT:
        connection.close()
        raise OnlineStoreError(f"The online store has format {meta.get('format')}, not {FORMAT}.")
    return connection, meta, views


class _View:
    def __init__(self, described: tuple[str, str, str, str, int | None, int]) -> None:
        alias, store, keys, features, ttl, is_missing = described
        self.alias = alias
        self.ttl = ttl
        self.is_missing = bool(is_missing)
        self.keys: list[tuple[str, str, str]] = [(name, kind, key) for name, kind, key in json.loads(keys)]
        self.features: list[tuple[str, str, str]] = [(name, kind, own) for name, kind, own in json.loads(features)]
        columns = "".join(f", f{index}" for index in range(len(self.features)))
        where = " AND ".join(f"k{index} = ?" for index in range(len(self.keys)))
        self.query = f"SELECT event_timestamp{columns} FROM {store} WHERE {where}"  # noqa: S608  (names of our own making)

    def read(
        self,
        connection: sqlite3.Connection,
        entities: Mapping[str, Sequence[Any]],
        rows: list[dict[str, Any]],
        now: int,
    ) -> None:
        columns = [self._key_values(entities, name, kind) for name, kind, _ in self.keys]
        for index, row in enumerate(rows):
            found = None
            if not self.is_missing:
                found = connection.execute(self.query, [values[index] for values in columns]).fetchone()
            status = self._status(found, now)
            row[STATUS][self.alias] = status
            if found is None or status != "present":
                row.update((name, None) for name, _, _ in self.features)
                continue
            for position, (name, kind, _) in enumerate(self.features, start=1):
                row[name] = _decode(found[position], kind)

    def read_one(
        self, connection: sqlite3.Connection, key: Mapping[str, Any], now: int
    ) -> tuple[datetime, dict[str, Any]] | None:
        missing = [own for _, _, own in self.keys if own not in key]
        if missing:
            raise OnlineStoreError(f"The join key {missing[0]!r} is missing.")
        if self.is_missing:
            return None
        values = [_encode_key(key[own], own, kind) for _, kind, own in self.keys]
        found = connection.execute(self.query, values).fetchone()
        if found is None or self._status(found, now) != "present":
            return None
        named = enumerate(self.features, start=1)
        features = {own: _decode(found[position], kind) for position, (_, kind, own) in named}
        return _EPOCH + timedelta(microseconds=found[0]), features

    def _status(self, found: Sequence[Any] | None, now: int) -> str:
        if self.is_missing:
            return "not_in_region"
        if found is None:
            return "not_found"
        return "present" if self.ttl is None or now - found[0] <= self.ttl else "expired"

    def _key_values(self, entities: Mapping[str, Sequence[Any]], name: str, kind: str) -> list[Any]:
        if name not in entities:
            raise OnlineStoreError(f"The join key {name!r} is missing.")
        return [_encode_key(value, name, kind) for value in entities[name]]


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


def _decode(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind.endswith("_LIST"):
        return [_decode_listed(item, kind[: -len("_LIST")]) for item in json.loads(value)]
    if kind == "BOOL":
        return bool(value)
    if kind == "UNIX_TIMESTAMP":
        return _EPOCH + timedelta(microseconds=value)
    return value


def _decode_listed(value: Any, kind: str) -> Any:
    return base64.b64decode(value) if kind == "BYTES" and value is not None else _decode(value, kind)
