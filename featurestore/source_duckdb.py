"""Rows out of a DuckDB database, opened for reading alone and with nothing else in reach.

The query is somebody's text, and DuckDB reads any file that a query names. So it runs in a database of its own that
sees the one file: no other, no network, no extension, and no setting can be changed back.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import FeatureSourceInvalid, Unavailable
from fairlead.featurestore.duck import fetch_rows, quote_name, quote_text
from fairlead.featurestore.source_queries import Needs, check_distinct, select_needed, stage, table_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from fairlead.featurestore.source_definitions import DuckDBRows

_MEMORY_LIMIT = "1GiB"
_TIMES = ("TIMESTAMP", "DATE")


def duckdb_relation(
    connection: DuckDBPyConnection,
    place: DuckDBRows,
    *,
    file: Path,
    timestamp_field: str,
    needs: Needs,
    timeout: timedelta,
    view: str,
) -> str:
    """The rows as a temporary table of `connection`; its name.

    Raises:
        FeatureSourceInvalid: if the file is no DuckDB database, or the table or query is wrong or takes too long.
        Unavailable: if somebody is writing to the file.
    """
    import duckdb

    relation = table_sql(place.table, place.query)
    with _open(file, _catalog(place), _spill_folder(connection), view) as database, _time_limit(database, timeout):
        try:
            description = f"DESCRIBE SELECT * FROM {relation}"  # noqa: S608  (the definition's own)
            if len(database.extract_statements(description)) != 1:
                raise duckdb.ParserException
            rows = fetch_rows(database, description)
            kinds = {str(row[0]): str(row[1]) for row in rows}
            check_distinct([str(row[0]) for row in rows], view)
            times = {name for name, kind in kinds.items() if kind.startswith(_TIMES)}
            query = select_needed(relation, list(kinds), times, timestamp_field=timestamp_field, needs=needs)
            answer: Any = database.sql(query)
            return stage(connection, answer.to_arrow_reader(100_000))
        except duckdb.InterruptException:
            raise _too_slow(view, timeout) from None
        except duckdb.Error as error:
            if "INTERRUPT" in str(error).upper():
                raise _too_slow(view, timeout) from None
            raise FeatureSourceInvalid(
                f"The source of view {view!r} cannot be read: {_reason(error)}.",
                hint="Correct its table or query (it sees its own database alone), and take another snapshot.",
                view=view,
            ) from None


def _catalog(place: DuckDBRows) -> str:
    """What DuckDB calls a database that is opened: its file's name, which queries may use."""
    name = PurePosixPath(place.database).stem
    return f"{name}_source" if name.lower() in {"memory", "system", "temp"} else name


@contextmanager
def _open(file: Path, catalog: str, spill: Path | None, view: str) -> Generator[DuckDBPyConnection]:
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": _MEMORY_LIMIT,
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
        **({} if spill is None else {"temp_directory": str(spill)}),
    }
    with closing(duckdb.connect(config=config)) as database:
        try:
            database.execute(f"ATTACH {quote_text(str(file))} AS {quote_name(catalog)} (READ_ONLY)")
        except duckdb.Error as error:
            if "lock" in str(error).lower():
                raise Unavailable(
                    f"Somebody is writing to the DuckDB database of view {view!r}.",
                    hint="It is tried again by itself, once they have closed it.",
                ) from None
            raise FeatureSourceInvalid(
                f"The source of view {view!r} is no DuckDB database that this version reads.",
                hint="Write it with a version of DuckDB that is not newer, and take another snapshot.",
                view=view,
            ) from None
        for statement in (
            f"USE {quote_name(catalog)}",
            "SET TimeZone = 'UTC'",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            database.execute(statement)
        yield database


@contextmanager
def _time_limit(database: DuckDBPyConnection, timeout: timedelta) -> Generator[None]:
    timer = threading.Timer(timeout.total_seconds(), database.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _spill_folder(connection: DuckDBPyConnection) -> Path | None:
    """A folder beside the one that the connection spills to; None where it has none."""
    folder = str(fetch_rows(connection, "SELECT current_setting('temp_directory')")[0][0] or "")
    return Path(folder) / "source" if folder else None


def fetch_database(connection: DuckDBPyConnection, filesystem: Any, path: str) -> Path:
    """A copy of a database in a bucket, in the folder that the connection spills to.

    Raises:
        FileNotFoundError: if there is no such object.
    """
    folder = _spill_folder(connection) or Path()
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / "database.duckdb"
    with filesystem.open(path, "rb") as source, copy.open("wb") as destination:
        shutil.copyfileobj(source, destination, 2**20)
    return copy


def _reason(error: Exception) -> str:
    """What DuckDB's error means; its own text holds pieces of the query, and paths."""
    kinds = {"CatalogException": "it has no such table or function", "BinderException": "a column is missing or of "
             "another type", "ParserException": "it is not valid SQL", "PermissionException": "it reads something "
             "else than its database"}  # fmt: skip
    return kinds.get(type(error).__name__, "the query fails")


def _too_slow(view: str, timeout: timedelta) -> FeatureSourceInvalid:
    return FeatureSourceInvalid(
        f"The source of view {view!r} did not answer within {timeout.total_seconds():g} seconds.",
        hint="Make its query cheaper, or raise the workers' setting FAIRLEAD_FEATURE_QUERY_TIMEOUT.",
        view=view,
    )
