"""The rows of a view as of a time, as one Parquet file: same rows, same bytes.

The file has the view's key columns, its features in order of name, then event and created timestamp, each of the
type that the definition states. Rows are in *canonical order*: by keys, event timestamp, created timestamp (none
first), then the features. So the last row of an entity up to some time is the one that counts then: the latest event
timestamp, among equal ones the latest created timestamp, among equal ones the greatest features. Joins and online
stores go by this order alone, which is why they agree.

Times are rounded to the microsecond; a time without a zone is UTC. A float that is not a number is a missing value.
A row without a key or without an event timestamp belongs to nobody and to no time: it is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.core.clock import format_time
from fairlead.core.errors import FeatureSourceInvalid
from fairlead.featurestore.definitions import DUCKDB_TYPES, DUMMY_KEY, DUMMY_VALUE, Column, ViewDefinition
from fairlead.featurestore.duck import (
    ArrowSchema,
    fetch_batches,
    fetch_number,
    fetch_rows,
    limit_threads,
    load_arrow,
    not_nan,
    open_duckdb,
    quote_name,
    quote_text,
)
from fairlead.featurestore.forgotten import Forgotten, is_kept
from fairlead.featurestore.row_files import ROW_GROUP, RowWriter, WrittenRows, arrow_schema
from fairlead.featurestore.row_statistics import RowStatistics, measure_rows
from fairlead.featurestore.source_queries import Needs
from fairlead.featurestore.sources import Sources, unreadable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROWS_FILE = "rows.parquet"
"""What such a file is called where it is an artifact by itself."""

FurtherRows = Callable[["DuckDBPyConnection"], str | None]
"""Gives an SQL relation of more rows of a view on a connection, with its columns in the order of `row_columns`."""

_TIMES = ("TIMESTAMP", "DATE", "VARCHAR")
_FLOATS = ("FLOAT", "DOUBLE")


def write_rows(
    view: ViewDefinition,
    *,
    as_of: datetime,
    sources: Sources,
    destination: Path,
    scratch: Path,
    further: FurtherRows | None = None,
    forgotten: Sequence[Forgotten] = (),
) -> RowStatistics:
    """Write the view's rows up to `as_of` to a Parquet file; `scratch` is a folder for what does not fit in memory.

    A row counts when its event timestamp, and its created timestamp where there is one, are not after `as_of`.
    `further` gives rows that are not in the source. Rows of whoever is `forgotten` are left out and not counted.

    Raises:
        FeatureSourceInvalid: if a file or column is missing, or holds what the definition's type cannot.
        PermissionDenied: if the source is outside the folders that may be read.
        Unavailable: if the source does not answer.
    """
    import duckdb

    with open_duckdb(scratch) as connection:
        limit_threads(connection)
        try:
            relation = sources.relation(connection, view.source, view=view.name, needs=Needs.of(view, until=as_of))
            relation = _with_every_key(view, relation)
            found = _describe(connection, relation)
            plan = _Plan(view, found)
            plan.check_columns()
            plan.check_whole_numbers(connection, relation)
            left_out = fetch_number(connection, plan.count_left_out(relation))
            try:
                pushed = None if further is None else further(connection)
                written = _write(connection, plan.select(relation, as_of, pushed, forgotten), view, destination)
            except (duckdb.ConversionException, duckdb.BinderException, duckdb.OutOfRangeException) as error:
                raise plan.explain(connection, relation) from error
        except (duckdb.InvalidInputException, duckdb.IOException) as error:
            raise unreadable(view.name) from error
        return measure_rows(connection, view, destination, written, left_out=left_out)


def rows_schema(view: ViewDefinition) -> ArrowSchema:
    """The schema of a view's rows."""
    return arrow_schema(row_columns(view))


def row_columns(view: ViewDefinition) -> list[Column]:
    """The columns of a view's rows, in their order."""
    times = [view.source.timestamp_field]
    times += [view.source.created_timestamp_column] if view.source.created_timestamp_column else []
    features = sorted(view.features, key=lambda column: column.name)
    return [*view.keys, *features, *(Column(name=name, type="UNIX_TIMESTAMP") for name in times)]


class _Plan:
    """The SQL that turns a source's columns, whose types were found, into the view's."""

    def __init__(self, view: ViewDefinition, found: Mapping[str, str]) -> None:
        self._view = view
        self._found = found
        source_names = {final: source for source, final in view.source.field_mapping.items()}
        self._columns = [(column, source_names.get(column.name, column.name)) for column in row_columns(view)]

    def check_columns(self) -> None:
        missing = [source for _, source in self._columns if source not in self._found]
        if missing:
            raise FeatureSourceInvalid(
                f"The source of view {self._view.name!r} has no column {missing[0]!r}.",
                hint=f"It has: {', '.join(sorted(self._found))[:400]}. Correct the view, or its field_mapping.",
                view=self._view.name,
                column=missing[0],
            )
        times = {self._view.source.timestamp_field, self._view.source.created_timestamp_column}
        for column, source in self._columns:
            if column.name in times and not self._found[source].startswith(_TIMES):
                raise self._not_castable(source, "a time")

    def check_whole_numbers(self, connection: DuckDBPyConnection, relation: str) -> None:
        # DuckDB would round 1.5 to 2 where a definition says that the column holds whole numbers.
        for column, source in self._columns:
            if column.type in {"INT32", "INT64"} and self._found[source].startswith((*_FLOATS, "DECIMAL", "VARCHAR")):
                name = f"TRY_CAST({quote_name(source)} AS DOUBLE)"
                # NaN is equal to NaN here.
                query = f"SELECT count(*) FROM {relation} WHERE {name} <> trunc({name})"  # noqa: S608
                if count := fetch_number(connection, query):
                    raise self._not_castable(source, column.type, count=count)

    def count_left_out(self, relation: str) -> str:
        needed = {column.name for column in self._view.keys} | {self._view.source.timestamp_field}
        is_null = " OR ".join(f"{self._cast(c, s)} IS NULL" for c, s in self._columns if c.name in needed)
        # A value that cannot be read is reported by name when the rows are written.
        return f"SELECT count(*) FROM {relation} WHERE {is_null.replace('CAST(', 'TRY_CAST(')}"  # noqa: S608

    def select(
        self, relation: str, as_of: datetime, further: str | None = None, forgotten: Sequence[Forgotten] = ()
    ) -> str:
        view = self._view
        moment = f"TIMESTAMPTZ {quote_text(format_time(as_of))}"
        event, created = quote_name(view.source.timestamp_field), view.source.created_timestamp_column
        casts = ", ".join(
            f"{self._cast(column, source)} AS {quote_name(column.name)}" for column, source in self._columns
        )
        conditions = [f"{quote_name(key.name)} IS NOT NULL" for key in view.keys] + [f"{event} <= {moment}"]
        conditions.append(is_kept(forgotten, view.source.timestamp_field))
        order = [quote_name(key.name) for key in view.keys] + [event]
        if created:
            conditions.append(f"({quote_name(created)} IS NULL OR {quote_name(created)} <= {moment})")
            order.append(f"{quote_name(created)} NULLS FIRST")
        for feature in sorted(view.features, key=lambda column: column.name):
            order.append(f"{quote_name(feature.name)} NULLS FIRST")
            if feature.type in _FLOATS:
                # 0.0 and -0.0 compare as equal and are different bytes.
                order.append(f"signbit({quote_name(feature.name)}) DESC")
        rows = f"SELECT {casts} FROM {relation}"  # noqa: S608  (every name and text is quoted)
        rows += "" if further is None else f" UNION ALL FROM {further}"
        return f"SELECT * FROM ({rows}) WHERE {' AND '.join(conditions)} ORDER BY {', '.join(order)}"  # noqa: S608

    def explain(self, connection: DuckDBPyConnection, relation: str) -> FeatureSourceInvalid:
        """Which column could not be read as its type, and in how many rows; never what it held."""
        import duckdb

        for column, source in self._columns:
            name = quote_name(source)
            tried = self._cast(column, source).replace("CAST(", "TRY_CAST(")
            if self._is_float(source):
                name = not_nan(name, self._found[source])
            query = f"SELECT count(*) FROM {relation} WHERE {name} IS NOT NULL AND {tried} IS NULL"  # noqa: S608
            try:
                count = fetch_number(connection, query)
            except duckdb.Error:
                return self._not_castable(source, column.type)
            if count:
                return self._not_castable(source, column.type, count=count)
        return unreadable(self._view.name)

    def _cast(self, column: Column, source: str) -> str:
        name, target = quote_name(source), DUCKDB_TYPES[column.type]
        if self._is_float(source):
            name = not_nan(name, self._found[source])
        elif column.type in _FLOATS:
            return not_nan(f"CAST({name} AS {target})", target)
        elif column.type == "STRING" and self._found[source].startswith(("STRUCT(", "MAP(")):
            name = f"to_json({name})"
        return f"CAST({name} AS {target})"

    def _is_float(self, source: str) -> bool:
        return self._found[source].startswith(_FLOATS) and not self._found[source].endswith("]")

    def _not_castable(self, source: str, kind: str, count: int | None = None) -> FeatureSourceInvalid:
        rows = "" if count is None else f" in {count} row{'s' if count > 1 else ''}"
        return FeatureSourceInvalid(
            f"Column {source!r} of the source of view {self._view.name!r} is {self._found[source]} and "
            f"cannot be read as {kind}{rows}.",
            hint="Correct the source, or the type in the view's schema, and take another snapshot.",
            view=self._view.name,
            column=source,
        )


def _with_every_key(view: ViewDefinition, relation: str) -> str:
    """The relation, with the key of a view without an entity in place of any column of its name."""
    if DUMMY_KEY not in view.keys:
        return relation
    others = f"COLUMNS(lambda name: name <> {quote_text(DUMMY_KEY.name)})"
    return f"(SELECT {others}, {quote_text(DUMMY_VALUE)} AS {quote_name(DUMMY_KEY.name)} FROM {relation})"  # noqa: S608


def _describe(connection: DuckDBPyConnection, relation: str) -> dict[str, str]:
    rows = fetch_rows(connection, f"DESCRIBE SELECT * FROM {relation}")  # noqa: S608
    return {str(row[0]): str(row[1]) for row in rows}


def _write(connection: DuckDBPyConnection, query: str, view: ViewDefinition, destination: Path) -> WrittenRows:
    arrow = load_arrow()
    with RowWriter(destination, row_columns(view)) as writer:
        for batch in fetch_batches(connection, query, ROW_GROUP):
            writer.write(arrow.Table.from_batches([batch]))
        return writer.finish()
