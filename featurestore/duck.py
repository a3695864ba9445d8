"""DuckDB as the engine of snapshots and joins: in memory, in UTC, bounded, and never fetching anything by itself."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import JoinTimedOut

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ArrowTable = Any
"""A `pyarrow.Table`; PyArrow ships no types."""

ArrowSchema = Any
"""A `pyarrow.Schema`."""

_MEMORY_LIMIT = "1GiB"
_limited: ContextVar[list[DuckDBPyConnection] | None] = ContextVar("limited", default=None)


def load_arrow() -> Any:
    """The module `pyarrow`, with its `compute`, `dataset` and `parquet`, as a value without a type: it ships none."""
    for module in ("compute", "dataset", "parquet"):
        import_module(f"pyarrow.{module}")
    return import_module("pyarrow")


@contextmanager
def open_duckdb(folder: Path, *, memory_limit: str = _MEMORY_LIMIT) -> Generator[DuckDBPyConnection]:
    """A connection that spills what does not fit into the limit (a gibibyte, unless said) to `folder`."""
    import duckdb

    connection = duckdb.connect(
        config={
            "memory_limit": memory_limit,
            "temp_directory": str(folder),
            "autoinstall_known_extensions": "false",
            # Where a plan may reorder rows, it says ORDER BY.
            "preserve_insertion_order": "false",
        }
    )
    if (limited := _limited.get()) is not None:
        limited.append(connection)
    try:
        # A time without a zone means UTC, as in Feast.
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


@contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Have no query of the connections that this thread opens in the block go on for longer than so many seconds.

    Raises:
        JoinTimedOut: in place of the query's result.
    """
    import duckdb

    opened: list[DuckDBPyConnection] = []

    def stop() -> None:
        for connection in opened:
            with suppress(duckdb.Error):
                connection.interrupt()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    token = _limited.set(opened)
    timer.start()
    try:
        yield
    except duckdb.InterruptException:
        raise JoinTimedOut(
            f"The query took longer than the {seconds:.0f} s that it may.", hint="Read fewer rows at once."
        ) from None
    finally:
        timer.cancel()
        _limited.reset(token)


def quote_name(name: str) -> str:
    """A column's or table's name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """A text literal as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def fetch_rows(connection: DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    """All rows of a small result."""
    relation: Any = connection.sql(query)
    rows: list[tuple[Any, ...]] = relation.fetchall()
    return rows


def fetch_number(connection: DuckDBPyConnection, query: str) -> int:
    """The one whole number that a query answers."""
    return int(fetch_rows(connection, query)[0][0])


def fetch_batches(connection: DuckDBPyConnection, query: str, rows: int) -> Iterator[Any]:
    """The result as Arrow record batches of about `rows` rows, which are not all in memory at once."""
    relation: Any = connection.sql(query)
    yield from relation.to_arrow_reader(rows)


def fetch_arrow(connection: DuckDBPyConnection, query: str) -> ArrowTable:
    """The whole result as an Arrow table."""
    relation: Any = connection.sql(query)
    return relation.to_arrow_table()
