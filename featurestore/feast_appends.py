"""Rows that Feast adds to a source: to a Parquet file or folder, or to a table of a DuckDB database."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig
from google.protobuf.json_format import MessageToDict

from fairlead.core.errors import FeatureSourceInvalid, InvalidInput, Unavailable
from fairlead.featurestore.duck import ArrowTable, fetch_rows, load_arrow
from fairlead.featurestore.feast_sources import DuckDBSource
from fairlead.featurestore.source_definitions import DuckDBRows, read_source


def append_rows(config: RepoConfig, source: DataSource | None, table: ArrowTable, *, view: str) -> None:
    """Add rows to the source of a view: its columns in its order, by its names or by the view's.

    Raises:
        InvalidInput: if rows cannot be added to such a source, or they do not have its columns.
        FeatureSourceInvalid: if there is no such database.
        Unavailable: if somebody else has the database open.
    """
    if isinstance(source, FileSource):
        _append_to_files(config, source, table)
    elif isinstance(source, DuckDBSource) and source.table and "://" not in source.database:
        _append_to_database(source, table, view)
    else:
        raise InvalidInput(
            f"Rows of view {view!r} cannot be added to this {type(source).__name__}.",
            hint="Write them to the database itself, or use a FileSource or a table of a DuckDBSource.",
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


def _append_to_database(source: DuckDBSource, table: ArrowTable, view: str) -> None:
    import duckdb

    # (reading the definition refuses a name that is none)
    name = cast("DuckDBRows", read_source(MessageToDict(source.to_proto()), owner=view).place).table
    if not Path(source.database).is_file():
        raise FeatureSourceInvalid(
            f"The source of view {view!r} has no DuckDB database at {source.database!r}.",
            hint="Create it with its table, or correct the path.",
            view=view,
        )
    try:
        connection = duckdb.connect(source.database)
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
