"""Writes an online store: for each entity the last row of each view, in the SQLite file that `online_reader` reads.

The file is built elsewhere on the disk, synced, and renamed into its place: a reader sees one snapshot or the next,
never a mixture.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import StorageFull
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.duck import fetch_batches, open_duckdb, quote_name, quote_text
from fairlead.featurestore.joins import ViewRows, output_names, ttl_microseconds
from fairlead.featurestore.online_reader import FORMAT
from fairlead.featurestore.services import ServiceDefinition

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BATCH = 10_000
_SQLITE_KEYS = {"INT32": "INTEGER", "INT64": "INTEGER", "STRING": "TEXT"}


def write_online_store(
    path: Path,
    *,
    service: ServiceDefinition,
    views: Mapping[str, ViewDefinition],
    rows: Mapping[str, Sequence[ViewRows]],
    meta: dict[str, str],
    scratch: Path,
) -> int:
    """Put a new store at `path`; returns the number of entities' rows in it, over all views.

    Args:
        path: where readers look. What is there stays until the new file is whole.
        service: the features and their order.
        views: the definition of every view that the service takes.
        rows: the parts of those views that may be in this region, by view.
        meta: `service_digest`, `snapshot`, `as_of` and `region`.
        scratch: a folder for the unfinished store and for what does not fit into memory, on the disk of `path`.

    Raises:
        StorageFull: if the disk is full; what was served is still served.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = scratch / f"{secrets.token_hex(6)}.sqlite"
    try:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
            # Nobody reads the file before it is whole, and it is synced then.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            contents = meta | {"format": FORMAT, "service": service.name}
            connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
            connection.executemany("INSERT INTO meta VALUES (?, ?)", contents.items())
            count = _fill(connection, service, views, rows, scratch)
            connection.execute("COMMIT")
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        raise StorageFull(
            "There is no space left for an online store.", hint="Free some space; the work is tried again by itself."
        ) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    return count


def _fill(
    connection: sqlite3.Connection,
    service: ServiceDefinition,
    views: Mapping[str, ViewDefinition],
    rows: Mapping[str, Sequence[ViewRows]],
    scratch: Path,
) -> int:
    connection.execute(
        "CREATE TABLE views (position INTEGER PRIMARY KEY, alias TEXT NOT NULL, store TEXT NOT NULL,"
        " keys TEXT NOT NULL, features TEXT NOT NULL, ttl_microseconds INTEGER, is_missing INTEGER NOT NULL)"
    )
    outputs = output_names(service)
    count = 0
    with open_duckdb(scratch) as duckdb:
        for position, projection in enumerate(service.projections):
            view, store = views[projection.view], f"view_{position}"
            features = [(feature, name) for owner, feature, name in outputs if owner is projection]
            types = {column.name: column.type for column in view.features}
            described = (
                position,
                projection.alias,
                store,
                json.dumps(
                    [[projection.join_key_map.get(key.name, key.name), key.type, key.name] for key in view.keys]
                ),
                json.dumps([[name, types[feature], feature] for feature, name in features]),
                ttl_microseconds(view),
                int(projection.view not in rows),
            )
            connection.execute("INSERT INTO views VALUES (?, ?, ?, ?, ?, ?, ?)", described)
            if projection.view in rows:
                wanted = [(feature, types[feature]) for feature, _ in features]
                count += _fill_view(connection, duckdb, store, rows[projection.view], wanted)
    return count


def _fill_view(
    connection: sqlite3.Connection,
    duckdb: DuckDBPyConnection,
    store: str,
    rows: Sequence[ViewRows],
    features: Sequence[tuple[str, str]],
) -> int:
    keys = [f"k{index} {_SQLITE_KEYS[key.type]} NOT NULL" for index, key in enumerate(rows[0].view.keys)]
    # Columns without a type keep each value as it comes.
    values = [f"f{index}" for index in range(len(features))]
    primary = ", ".join(f"k{index}" for index in range(len(keys)))
    connection.execute(
        f"CREATE TABLE {store} ({', '.join([*keys, 'event_timestamp INTEGER NOT NULL', *values])},"
        f" PRIMARY KEY ({primary})) WITHOUT ROWID"
    )
    holes = ", ".join("?" * (len(keys) + 1 + len(values)))
    inserted = connection.executemany(
        f"INSERT INTO {store} VALUES ({holes})",  # noqa: S608  (names of our own making)
        _iter_last_rows(duckdb, rows, features),
    )
    return max(0, inserted.rowcount)


def _iter_last_rows(
    duckdb: DuckDBPyConnection, rows: Sequence[ViewRows], features: Sequence[tuple[str, str]]
) -> Iterator[tuple[Any, ...]]:
    """Of each entity the last row in canonical order of each part, in the order of the keys."""
    keys = ", ".join(quote_name(key.name) for key in rows[0].view.keys)
    is_here = {feature.name for part in rows for feature in part.view.features}
    values = "".join(f", {_as_kept(name, kind) if name in is_here else 'NULL'}" for name, kind in features)
    # Rows of an entity lie together, so its last one is the one that another entity, or nothing, follows.
    lasts = [
        f"(SELECT {keys}, {quote_name(part.view.source.timestamp_field)} AS __event"  # noqa: S608  (all is quoted)
        f"{''.join(f', {quote_name(feature.name)}' for feature in part.view.features)} "
        f"FROM read_parquet({quote_text(str(part.path))}, file_row_number = true) "
        f"QUALIFY lead(1) OVER (PARTITION BY {keys} ORDER BY file_row_number) IS NULL)"
        for part in rows
    ]
    joined = lasts[0] + "".join(
        f" FULL JOIN (SELECT * RENAME (__event AS __event_{number}) FROM {last}) USING ({keys})"  # noqa: S608
        for number, last in enumerate(lasts[1:], start=1)
    )
    event = ", ".join(["__event", *(f"__event_{number}" for number in range(1, len(lasts)))])
    query = f"SELECT {keys}, epoch_us(greatest({event})){values} FROM {joined} ORDER BY {keys}"  # noqa: S608
    for batch in fetch_batches(duckdb, query, _BATCH):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _as_kept(feature: str, kind: str) -> str:
    name = quote_name(feature)
    if kind == "UNIX_TIMESTAMP":
        return f"epoch_us({name})"
    if kind == "BOOL":
        return f"CAST({name} AS INTEGER)"
    if kind == "UNIX_TIMESTAMP_LIST":
        return f"CAST(to_json(list_transform({name}, lambda each: epoch_us(each))) AS VARCHAR)"
    if kind == "BYTES_LIST":
        return f"CAST(to_json(list_transform({name}, lambda each: base64(each))) AS VARCHAR)"
    if kind == "FLOAT_LIST":
        # As doubles: the text of a 32-bit float reads back as another 64-bit one.
        return f"CAST(to_json(CAST({name} AS DOUBLE[])) AS VARCHAR)"
    return f"CAST(to_json({name}) AS VARCHAR)" if kind.endswith("_LIST") else name


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
