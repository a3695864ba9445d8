"""Rows that Feast adds to a source: to a Parquet file or folder, or to a table of DuckDB or PostgreSQL."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig
from google.protobuf.json_format import MessageToDict

from fairlead.core.errors import (
    FeatureSourceInvalid,
    InvalidInput,
    MissingExtra,
    PermissionDenied,
    Unavailable,
)
from fairlead.featurestore.duck import ArrowTable, fetch_rows, load_arrow
from fairlead.featurestore.source_definitions import DuckDBRows, PostgresRows, read_source

_WHOLE = frozenset({20, 21, 23})
"""PostgreSQL's numbers of bigint, smallint and integer."""


def append_rows(config: RepoConfig, source: DataSource | None, table: ArrowTable, *, view: str) -> None:
    """Add rows to the source of a view: its columns in its order, by its names or by the view's.

    Raises:
        FeatureDefinitionInvalid, InvalidInput: if rows cannot be added to such a source, or do not have its columns.
        FeatureSourceInvalid: if there is no such database, table or connection.
        PermissionDenied: if the database's user may not add to the table.
        MissingExtra: if the library of the database is not installed.
        Unavailable: if the database does not answer, or somebody else has it open.
    """
    if isinstance(source, FileSource):
        _append_to_files(config, source, table)
        return
    # (which also refuses a name of a table that is none)
    place = None if source is None else read_source(MessageToDict(source.to_proto()), owner=view).place
    if isinstance(place, DuckDBRows) and place.table and "://" not in place.database:
        _append_to_duckdb(place, source, table, view)
    elif isinstance(place, PostgresRows) and place.table:
        store: Any = config.offline_store
        _append_to_postgres(place, source, table, store.connections.get(place.connection), view)
    else:
        raise InvalidInput(
            f"Rows of view {view!r} cannot be added to this {type(source).__name__}.",
            hint="Write them to the database itself, or give the view a file, or a table, as its source.",
        )


def open_place(uri: str, endpoint: str) -> tuple[Any, str]:
    """The filesystem of a URI, None for this machine's, and the path in it."""
    return cast("Any", FileSource.create_filesystem_and_path(uri, endpoint))


def _append_to_files(config: RepoConfig, source: FileSource, table: ArrowTable) -> None:
    """Add rows to a Parquet file, which is replaced whole, or to a folder of such files.

    Processes of one machine that add to one file take turns; of two that add to one object of a bucket, one may undo
    the other.
    """
    arrow = load_arrow()
    uri = FileSource.get_uri_for_file_path(config.repo_path, source.path)
    filesystem, path = open_place(uri, source.s3_endpoint_override or "")
    with _alone(Path(path)) if filesystem is None and Path(path).is_file() else nullcontext():
        existing = arrow.dataset.dataset(path, filesystem=filesystem, format="parquet")
        table = _as_source_calls_them(table, source, existing.schema.names)
        try:
            table = table.cast(existing.schema)
        except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError) as error:
            raise _of_other_types(existing.schema.to_string()) from error
        if existing.files != [path]:
            name = f"{path.rstrip('/')}/{secrets.token_hex(16)}.parquet"
            arrow.parquet.write_table(table, name, filesystem=filesystem)
        elif filesystem is None:
            _replace_file(Path(path), existing, table)
        else:
            content = arrow.BufferOutputStream()
            arrow.parquet.write_table(arrow.concat_tables([existing.to_table(), table]), content)
            with filesystem.open_output_stream(path) as file:
                file.write(content.getvalue())


def _append_to_duckdb(place: DuckDBRows, source: Any, table: ArrowTable, view: str) -> None:
    import duckdb

    name = place.table
    if not Path(place.database).is_file():
        raise FeatureSourceInvalid(
            f"The source of view {view!r} has no DuckDB database at {place.database!r}.",
            hint="Create it with its table, or correct the path.",
            view=view,
        )
    try:
        connection = duckdb.connect(place.database)
    except duckdb.Error:
        raise Unavailable(
            f"The DuckDB database of view {view!r} cannot be opened for writing.",
            hint="Try again once whoever else has it open has closed it.",
        ) from None
    with closing(connection):
        connection.execute("SET TimeZone = 'UTC'")
        try:
            rows = fetch_rows(connection, f"DESCRIBE {name}")
        except duckdb.CatalogException:
            raise FeatureSourceInvalid(
                f"The DuckDB database of view {view!r} has no table {name!r}.", hint="Create it.", view=view
            ) from None
        kinds = {str(row[0]): str(row[1]) for row in rows}
        arrow = load_arrow()
        try:
            connection.register("added_rows", _in_microseconds(_as_source_calls_them(table, source, list(kinds))))
            connection.execute(f"INSERT INTO {name} SELECT * FROM added_rows")  # noqa: S608  (a table's name)
        except (duckdb.Error, arrow.ArrowInvalid) as error:
            raise _of_other_types(", ".join(f"{column} {kind}" for column, kind in kinds.items())) from error


def _append_to_postgres(place: PostgresRows, source: Any, table: ArrowTable, address: str | None, view: str) -> None:
    if address is None:
        raise FeatureSourceInvalid(
            f"The source of view {view!r} is behind the connection {place.connection!r}, which this store lacks.",
            hint="Give its address in feature_store.yaml, under offline_store.connections.",
            view=view,
        )
    try:
        driver: Any = import_module("psycopg")
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Adding to PostgreSQL needs a library that is not installed.",
            hint="Run: pip install 'fairlead[postgres-sources]'",
        ) from error
    errors = driver.errors
    try:
        # One transaction: all rows, or none.
        with driver.connect(address) as connection, connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute(f"SELECT * FROM {place.table} LIMIT 0")  # noqa: S608  (a table's name)
            columns = {column.name: column.type_code for column in cursor.description}
            table = _with_whole_numbers(_as_source_calls_them(table, source, list(columns)), list(columns.values()))
            with cursor.copy(f"COPY {place.table} FROM STDIN") as copy:
                for batch in table.to_batches(max_chunksize=10_000):
                    for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                        copy.write_row(row)
    # What the server says holds pieces of the rows, so it is not repeated.
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        raise FeatureSourceInvalid(
            f"The connection {place.connection!r} has no table {place.table!r}, the source of view {view!r}.",
            hint="Create it, or correct the source.",
            view=view,
        ) from None
    except errors.InsufficientPrivilege:
        raise PermissionDenied(
            f"The user of connection {place.connection!r} may not add rows to the source of view {view!r}.",
            hint=f"GRANT SELECT, INSERT ON {place.table} to it.",
        ) from None
    except driver.OperationalError:
        raise Unavailable(
            f"The connection {place.connection!r} of the source of view {view!r} does not answer.",
            hint="Check the server, and the address under offline_store.connections.",
        ) from None
    except (driver.Error, load_arrow().ArrowInvalid):
        raise InvalidInput(
            f"The rows hold what is not of the types of {place.table!r}, or break a rule of it.",
            hint="Compare them with the table.",
        ) from None


def _with_whole_numbers(table: ArrowTable, codes: Sequence[int]) -> ArrowTable:
    """The rows with whole numbers as such where PostgreSQL's types are: pandas makes floats of those with a gap."""
    arrow = load_arrow()
    fields = [
        field.with_type(arrow.int64()) if code in _WHOLE and arrow.types.is_floating(field.type) else field
        for field, code in zip(table.schema, codes, strict=True)
    ]
    return table.cast(arrow.schema(fields))


def _in_microseconds(table: ArrowTable) -> ArrowTable:
    """The rows with times as DuckDB casts them into each other; pandas counts nanoseconds."""
    arrow = load_arrow()
    fields = [
        field.with_type(arrow.timestamp("us", tz=field.type.tz)) if arrow.types.is_timestamp(field.type) else field
        for field in table.schema
    ]
    return table.cast(arrow.schema(fields))


def _as_source_calls_them(table: ArrowTable, source: DataSource, names: Sequence[str]) -> ArrowTable:
    """The rows with the source's own names of columns: Feast gives them by the view's."""
    renamed: dict[str, str] = {final: name for name, final in dict(source.field_mapping or {}).items() if name in names}
    table = table.rename_columns([renamed.get(name, name) for name in table.column_names])
    if table.column_names != list(names):
        raise InvalidInput(
            f"The rows have the columns {', '.join(table.column_names)}; the source has others or another order.",
            hint=f"Give them as: {', '.join(names)}.",
        )
    return table


def _of_other_types(wanted: str) -> InvalidInput:
    return InvalidInput("The rows hold what is not of the source's types.", hint=f"They are: {wanted}.")


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Keep others from adding to a file, which whoever had it before may have replaced."""
    while True:
        with path.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if path.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                yield
                return


def _replace_file(path: Path, existing: Any, table: ArrowTable) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}.partial")
    try:
        with load_arrow().parquet.ParquetWriter(temporary, existing.schema) as writer:
            for batch in existing.to_batches():
                writer.write_batch(batch)
            writer.write_table(table)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
