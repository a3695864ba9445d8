"""DuckDB as the engine of snapshots and joins: in memory, in UTC, bounded, and never fetching anything by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import AnswerTooLarge, JoinTimedOut

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ArrowTable = Any
"""A `pyarrow.Table`; PyArrow ships no types."""

ArrowSchema = Any
"""A `pyarrow.Schema`."""

_MEMORY_LIMIT = "1GiB"
# With the 64 of a large machine, a sort on disk fails within a gibibyte.
_SORTING_THREADS = 4
_ROWS_A_BATCH = 8 * 1024
_LOOK_SECONDS = 0.5
_SPILLED_OF_ANSWER = 4


@dataclass(slots=True, kw_only=True)
class _Bounds:
    """What the queries of a block may still do, and the connections that it has opened."""

    seconds: float
    bytes_left: int
    answer_bytes: int
    is_over: bool = False
    is_too_large: bool = False
    opened: list[tuple[DuckDBPyConnection, Path]] = field(default_factory=list[tuple["DuckDBPyConnection", Path]])

    def spilled(self) -> int:
        """How many bytes lie on disk; DuckDB's own limit does not count long texts."""
        found = 0
        for folder in {folder for _, folder in self.opened}:
            for path in folder.glob("duckdb_temp_*"):
                with suppress(OSError):
                    found += path.stat().st_size
        return found


_bounds: ContextVar[_Bounds | None] = ContextVar("bounds", default=None)


def load_arrow() -> Any:
    """The module `pyarrow`, with its `compute`, `dataset` and `parquet`, as a value without a type: it ships none."""
    for module in ("compute", "dataset", "parquet"):
        import_module(f"pyarrow.{module}")
    return import_module("pyarrow")


@contextmanager
def open_duckdb(folder: Path, *, memory_limit: str = _MEMORY_LIMIT) -> Generator[DuckDBPyConnection]:
    """A connection that spills what does not fit into the limit (a gibibyte, unless said) to `folder`."""
    import duckdb

    bounds = _bounds.get()
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "temp_directory": str(folder),
        "autoinstall_known_extensions": "false",
        # Where a plan may reorder rows, it says ORDER BY.
        "preserve_insertion_order": "false",
    }
    if bounds is not None and bounds.is_over:
        raise _timed_out(bounds)
    connection = duckdb.connect(config=config)
    if bounds is not None:
        bounds.opened.append((connection, folder))
    try:
        # A time without a zone means UTC, as in Feast.
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


def limit_threads(connection: DuckDBPyConnection, most: int = _SORTING_THREADS) -> None:
    """Have the connection use no more threads than these, each of which takes its share of the memory limit."""
    threads = fetch_number(connection, "SELECT current_setting('threads')")
    connection.execute(f"SET threads = {min(threads, most)}")


@contextmanager
def bounded(*, seconds: float, answer_bytes: int) -> Generator[None]:
    """Have the queries that this thread begins in the block end after so many seconds, and give so many bytes at most.

    The bytes are those of all results that are fetched as Arrow tables, and a few times as many on disk.

    Raises:
        JoinTimedOut, AnswerTooLarge: in place of a query's result.
    """
    import duckdb

    bounds = _Bounds(seconds=seconds, bytes_left=answer_bytes, answer_bytes=answer_bytes)
    done = threading.Event()

    def stop() -> None:
        ends = time.monotonic() + seconds
        while not done.wait(_LOOK_SECONDS if bounds.is_over else min(_LOOK_SECONDS, max(ends - time.monotonic(), 0.0))):
            bounds.is_too_large = bounds.is_too_large or bounds.spilled() > _SPILLED_OF_ANSWER * answer_bytes
            bounds.is_over = bounds.is_over or bounds.is_too_large or time.monotonic() >= ends
            if bounds.is_over:
                # Again and again: an interrupt is lost on a connection that has no query just then.
                for connection, _ in [*bounds.opened]:
                    with suppress(duckdb.Error):
                        connection.interrupt()

    token = _bounds.set(bounds)
    threading.Thread(target=stop, name="fairlead-bounded", daemon=True).start()
    try:
        yield
    except duckdb.InterruptException:
        raise (_too_large(bounds) if bounds.is_too_large else _timed_out(bounds)) from None
    except duckdb.OutOfMemoryException:
        raise _too_large(bounds) from None
    finally:
        done.set()
        _bounds.reset(token)


def _timed_out(bounds: _Bounds) -> JoinTimedOut:
    return JoinTimedOut(
        f"The query took longer than the {bounds.seconds:.0f} s that it may.", hint="Read fewer rows at once."
    )


def _too_large(bounds: _Bounds) -> AnswerTooLarge:
    return AnswerTooLarge(
        f"The answer, or what has to be kept for it, is more than the {bounds.answer_bytes} bytes that it may be.",
        hint="Read fewer rows, or fewer features, at once.",
    )


def not_nan(number: str, kind: str) -> str:
    """An SQL expression of a float of DuckDB's type `kind`, with a missing value for what is not a number."""
    # Twice, for DuckDB believes a Parquet file's statistics, which leave NaN out: it takes the comparison of the column
    # itself for false, and knows nothing of what the first one gives.
    nan = f"'nan'::{kind}"
    return f"nullif(nullif({number}, {nan}), {nan})"


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
    """The whole result as an Arrow table.

    Raises:
        AnswerTooLarge: if it is more than the block `bounded` may have.
    """
    relation: Any = connection.sql(query)
    if (bounds := _bounds.get()) is None:
        return relation.to_arrow_table()
    reader = relation.to_arrow_reader(_ROWS_A_BATCH)
    batches: list[Any] = []
    for batch in reader:
        bounds.bytes_left -= batch.nbytes
        if bounds.bytes_left < 0:
            # What it reads cannot be dropped while it is read.
            relation.close()
            reader.close()
            raise _too_large(bounds)
        batches.append(batch)
    return load_arrow().Table.from_batches(batches, schema=reader.schema)
