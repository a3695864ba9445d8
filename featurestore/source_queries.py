"""Rows out of a database: what is asked for, and where the answer waits while it is read more than once.

A database answers a query once, as a stream of Arrow batches. They go into a temporary table of the connection that
asked (spilling to its folder), because a snapshot reads a source several times and must find the same rows each time.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fairlead.core.clock import format_time
from fairlead.core.errors import FeatureSourceInvalid
from fairlead.featurestore.duck import quote_name, quote_text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from fairlead.featurestore.definitions import ViewDefinition


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What of a source's rows somebody needs; a source may give more.

    Args:
        columns: the source's columns that are read; None is all.
        since, until: event times outside are not needed, both ends included.
        has_rows: False asks for the columns and their types alone.
    """

    columns: frozenset[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    has_rows: bool = True

    @classmethod
    def of(cls, view: ViewDefinition, *, since: datetime | None = None, until: datetime | None = None) -> Needs:
        """What a view's rows are made of."""
        source = view.source
        wanted = [column.name for column in (*view.asked_keys, *view.features)] + [source.timestamp_field]
        wanted += [source.created_timestamp_column] if source.created_timestamp_column else []
        by_name = {final: name for name, final in source.field_mapping.items()}
        return cls(columns=frozenset(by_name.get(name, name) for name in wanted), since=since, until=until)


def table_sql(table: str | None, query: str | None) -> str:
    """What stands after FROM for a table or a query."""
    # The line's end is for a query that ends in a comment.
    return table if table is not None else f"(\n{query}\n) AS source"


def select_needed(
    relation: str, found: Sequence[str], times: Collection[str], *, timestamp_field: str, needs: Needs
) -> str:
    """SQL for what is needed of a relation, in the common tongue of PostgreSQL and DuckDB.

    `found` are its columns, `times` those that compare with a time. A row without an event time is given, for whoever
    counts them. Where a column is missing, no rows are: whoever asked sees which columns there are.
    """
    if not needs.has_rows or (needs.columns is not None and not needs.columns <= set(found)):
        return f"SELECT * FROM {relation} WHERE false"  # noqa: S608  (the definition's own table or query)
    columns = ", ".join(quote_name(name) for name in found if needs.columns is None or name in needs.columns)
    query = f"SELECT {columns} FROM {relation}"  # noqa: S608
    event = quote_name(timestamp_field)
    bounds = [
        f"{event} {operator} TIMESTAMPTZ {quote_text(format_time(moment))}"
        for operator, moment in ((">=", needs.since), ("<=", needs.until))
        if moment is not None and timestamp_field in times
    ]
    return f"{query} WHERE {event} IS NULL OR ({' AND '.join(bounds)})" if bounds else query


def stage(connection: DuckDBPyConnection, batches: Any) -> str:
    """Read a stream of Arrow batches into a temporary table; its name."""
    name = f"source_{os.urandom(4).hex()}"
    connection.register(f"{name}_stream", batches)
    try:
        connection.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM {name}_stream")  # noqa: S608
    finally:
        connection.unregister(f"{name}_stream")
    return name


def check_distinct(names: Iterable[str], view: str) -> None:
    """Refuse a query that gives two columns of one name.

    Raises:
        FeatureSourceInvalid
    """
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise FeatureSourceInvalid(
                f"The source of view {view!r} has two columns {name!r}.",
                hint="Give each column of its query a name of its own (AS).",
                view=view,
                column=name,
            )
        seen.add(name.lower())
