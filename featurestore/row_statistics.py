"""What a snapshot says of a view's rows: how many, from when to when, and what is in each column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.core.clock import format_time
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.duck import fetch_rows, quote_name, quote_text
from fairlead.featurestore.row_files import WrittenRows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NUMBERS = frozenset({"INT32", "INT64", "FLOAT", "DOUBLE"})
_TEXTS = frozenset({"STRING", "BYTES"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RowStatistics:
    """What a snapshot says of a view's rows. `nulls` counts missing values by feature.

    Times are RFC 3339, and those of the years 1 to 9999 alone, which it has a form for.

    `columns` has, for each key and feature: `type`, `distinct` (about how many values there are; not of lists), and
    `min`, `max`, `mean` and `deviation` of numbers, `min` and `max` of times, `shortest` and `longest` of texts, bytes
    and lists, `true` of truth values. It holds no text: a record is read by more people than data is.
    """

    written: WrittenRows
    left_out: int
    min_event_time: str | None
    max_event_time: str | None
    nulls: Mapping[str, int]
    columns: Mapping[str, Mapping[str, Any]]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.written.rows

    def counts(self) -> dict[str, Any]:
        """Only how many rows there are, as plain JSON."""
        return {"rows": self.rows, "left_out": self.left_out}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return self.counts() | {
            "min_event_time": self.min_event_time,
            "max_event_time": self.max_event_time,
            "nulls": dict(self.nulls),
            "columns": {name: dict(each) for name, each in self.columns.items()},
        }


def measure_rows(
    connection: DuckDBPyConnection, view: ViewDefinition, path: Path, written: WrittenRows, *, left_out: int
) -> RowStatistics:
    """The statistics of a file of a view's rows."""
    columns = [*view.asked_keys, *view.features]
    facts = {column.name: _facts(column) for column in columns}
    event = _writable(quote_name(view.source.timestamp_field))
    queries = [f"min({event})", f"max({event})", *(f"count({quote_name(column.name)})" for column in columns)]
    queries += [sql for column in columns for sql in facts[column.name].values()]
    # At most a row comes back.
    found = fetch_rows(connection, f"SELECT {', '.join(queries)} FROM read_parquet({quote_text(str(path))})")[0]  # noqa: S608
    first, last, *rest = found
    counts = dict(zip(facts, rest, strict=False))
    values = iter(rest[len(columns) :])
    described = {
        column.name: {"type": column.type} | {name: _plain(next(values)) for name in facts[column.name]}
        for column in columns
    }
    return RowStatistics(
        written=written,
        left_out=left_out,
        min_event_time=_plain(first),
        max_event_time=_plain(last),
        nulls={feature.name: written.rows - counts[feature.name] for feature in view.features},
        columns=described,
    )


def _facts(column: Column) -> dict[str, str]:
    name = quote_name(column.name)
    if column.type.endswith("_LIST"):
        return {"shortest": f"min(len({name}))", "longest": f"max(len({name}))"}
    found = {"distinct": f"least(approx_count_distinct({name}), count({name}))"}
    if column.type in _TEXTS:
        size = f"strlen({name})" if column.type == "STRING" else f"octet_length({name})"
        return found | {"shortest": f"min({size})", "longest": f"max({size})"}
    if column.type == "BOOL":
        return found | {"true": f"count(*) FILTER ({name})"}
    if column.type not in _NUMBERS:
        return found | {"min": f"min({_writable(name)})", "max": f"max({_writable(name)})"}
    found |= {"min": f"min({name})", "max": f"max({name})"}
    # An infinity would make the figures of all others useless.
    finite = f"CASE WHEN isfinite(CAST({name} AS DOUBLE)) THEN CAST({name} AS DOUBLE) END"
    return found | {"mean": f"avg({finite})", "deviation": f"stddev_pop({finite})"}


def _writable(time: str) -> str:
    """A time, or null before the year 1 and after 9999, for which RFC 3339 has no form."""
    first, last = (f"TIMESTAMPTZ '{text}+00'" for text in ("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"))
    return f"CASE WHEN {time} BETWEEN {first} AND {last} THEN {time} END"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
