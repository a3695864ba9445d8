"""Rows that are pushed beside a store's snapshot: what is kept of them, and where the embedded engine keeps it.

Such a row holds all features of its view. Of two rows of an entity the one with the later event timestamp counts, of
equal ones the later created timestamp, and of equal ones the one that came last. Beside a snapshot's row it counts only
if it is later; if it is not, the snapshot has taken it over, and it goes.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fairlead.core.errors import InvalidInput
from fairlead.featurestore.online_engines import PushedRow
from fairlead.featurestore.online_reader import StoredView, key_text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = -(2**63)


_UPSERT = f"""
INSERT INTO rows (alias, key, view, event_timestamp, created_timestamp, features) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (alias, key) DO UPDATE SET view = excluded.view, event_timestamp = excluded.event_timestamp,
    created_timestamp = excluded.created_timestamp, features = excluded.features
WHERE (excluded.event_timestamp, coalesce(excluded.created_timestamp, {_NEVER}))
    >= (event_timestamp, coalesce(created_timestamp, {_NEVER}))
"""  # noqa: S608  (a number of our own)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRow:
    """A pushed row of one view as a store keeps it; times are microseconds, `features` a JSON object."""

    alias: str
    view: str
    key: str
    event: int
    created: int | None
    features: str


def read_pushed(stored: StoredView, accepted: str, view: str, rows: Sequence[PushedRow]) -> list[LiveRow]:
    """What a store keeps of rows that are pushed for a view; nothing where `stored` is of another one.

    Args:
        stored: the view as the store describes it.
        accepted: what `KeptView.accepted` said when the store was written.
        view: the view that the rows are of.
        rows: the rows.

    Raises:
        InvalidInput: if a row lacks a key or its event timestamp, or a value is not of its type.
    """
    form: dict[str, Any] = json.loads(accepted)
    if form["view"] != view or stored.is_missing:
        return []
    found: list[LiveRow] = []
    for row in rows:
        keys = [_key(row, own, kind) for _, kind, own in stored.keys]
        event = kept_value(row.get(form["event"]), "UNIX_TIMESTAMP")
        if event is None:
            raise InvalidInput(
                f"A row for view {view!r} has no {form['event']!r}.", hint="Say when what it tells was so."
            )
        created = kept_value(row.get(form["created"]), "UNIX_TIMESTAMP") if form["created"] else None
        features = {name: kept_value(row.get(name), kind) for name, kind in form["features"].items()}
        found.append(
            LiveRow(
                alias=stored.alias,
                view=view,
                key=key_text(keys[0] if len(keys) == 1 else keys, len(keys)),
                event=event,
                created=created,
                features=json.dumps(features, ensure_ascii=False, separators=(",", ":")),
            )
        )
    return found


def _key(row: PushedRow, name: str, kind: str) -> Any:
    value = kept_value(row.get(name), kind)
    if value is None:
        raise InvalidInput(f"A pushed row lacks its join key {name!r}.", hint="Send every join key of the view.")
    return value


def kept_value(value: Any, kind: str) -> Any:
    """A pushed value as it is kept in JSON; what is not a number is missing.

    Raises:
        InvalidInput: if it is not of the type.
    """
    if value is None or value != value:  # noqa: PLR0124  (only what is not a number differs from itself)
        return None
    try:
        if kind.endswith("_LIST"):
            return json.dumps([kept_value(item, kind.removesuffix("_LIST")) for item in value], ensure_ascii=False)
        return _KEPT[kind](value)
    except (TypeError, ValueError, AttributeError, OverflowError, struct.error):
        raise InvalidInput(
            f"A pushed value of type {type(value).__name__} is no {kind}.", hint="Send what the view's schema says."
        ) from None


def _microseconds(value: datetime) -> int:
    return (value - _EPOCH) // timedelta(microseconds=1)


def _whole(value: Any) -> int:
    if isinstance(value, str) or int(value) != value:
        raise ValueError
    return int(value)


def _single(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def _truth(value: object) -> int:
    if isinstance(value, str | bytes):
        raise TypeError
    return int(bool(value))


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


_KEPT: Mapping[str, Callable[[Any], Any]] = {
    "INT32": _whole,
    "INT64": _whole,
    "FLOAT": _single,
    "DOUBLE": float,
    "STRING": _text,
    "BOOL": _truth,
    "BYTES": _base64,
    "UNIX_TIMESTAMP": _microseconds,
}


def is_late(event: int, created: int | None, pushed_event: int, pushed_created: int | None) -> bool:
    """Whether a snapshot's row is at least as late as a pushed one of the same entity."""
    return (event, _NEVER if created is None else created) >= (
        pushed_event,
        _NEVER if pushed_created is None else pushed_created,
    )


def split_key(text: str, width: int) -> list[str]:
    """The columns of a key, as texts, of what `key_text` made of them."""
    if width == 1:
        return [text]
    rest, found = text.encode(), list[str]()
    while rest:
        length, _, rest = rest.partition(b":")
        found.append(rest[: int(length)].decode())
        rest = rest[int(length) :]
    return found


class LiveRows:
    """The rows that were pushed beside the file at `path`, in a database that is written while it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + "-live")

    def files(self) -> list[Path]:
        """Every file that may be there."""
        return [self._path.with_name(self._path.name + suffix) for suffix in ("", "-wal", "-shm")]

    def find(self, alias: str, keys: Iterable[str]) -> dict[str, tuple[int, int | None, str]]:
        """Event and created timestamp and features of those entities of a view that have a row."""
        if not self._path.exists():
            return {}
        query = "SELECT event_timestamp, created_timestamp, features FROM rows WHERE alias = ? AND key = ?"
        with closing(self._connect()) as connection:
            rows = {key: connection.execute(query, (alias, key)).fetchone() for key in keys}
        return {key: row for key, row in rows.items() if row is not None}

    def upsert(self, rows: Iterable[LiveRow]) -> int:
        """Keep those rows that are not older than what there is of their entities; returns how many those are."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            count = sum(
                connection.execute(
                    _UPSERT, (row.alias, row.key, row.view, row.event, row.created, row.features)
                ).rowcount
                for row in rows
            )
            connection.execute("COMMIT")
        return count

    def prune(self, is_overtaken: Callable[[str, str, str, int, int | None], bool]) -> None:
        """Take rows away that `is_overtaken(alias, view, key, event, created)` names."""
        if not self._path.exists():
            return
        with closing(self._connect()) as connection:
            query = "SELECT alias, view, key, event_timestamp, created_timestamp FROM rows"
            gone = [row for row in connection.execute(query) if is_overtaken(*row)]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                # One that was pushed meanwhile stays.
                "DELETE FROM rows"
                " WHERE alias = ? AND view = ? AND key = ? AND event_timestamp = ? AND created_timestamp IS ?",
                gone,
            )
            connection.execute("COMMIT")

    def forget(self, is_of: Callable[[str, str], bool]) -> int:
        """Take rows away that `is_of(alias, key)` names, leaving no byte of them; returns how many there were."""
        if not self._path.exists():
            return 0
        with closing(self._connect()) as connection:
            gone = [row for row in connection.execute("SELECT alias, key FROM rows") if is_of(*row)]
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM rows WHERE alias = ? AND key = ?", gone)
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return len(gone)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS rows (alias TEXT NOT NULL, key TEXT NOT NULL, view TEXT NOT NULL,"
            " event_timestamp INTEGER NOT NULL, created_timestamp INTEGER, features TEXT NOT NULL,"
            " PRIMARY KEY (alias, key)) WITHOUT ROWID"
        )
        return connection
