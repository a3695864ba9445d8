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

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.core.clock import format_time
from fairlead.core.errors import FeatureSourceInvalid
from fairlead.featurestore.definitions import DUCKDB_TYPES, Column, ViewDefinition
from fairlead.featurestore.duck import (
    ArrowSchema,
    ArrowTable,
    fetch_batches,
    fetch_number,
    fetch_rows,
    load_arrow,
    open_duckdb,
    quote_name,
    quote_text,
)
from fairlead.featurestore.source_queries import Needs
from fairlead.featurestore.sources import Sources, unreadable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROWS_FILE = "rows.parquet"
"""The one file of a snapshot's artifact."""

ROWS_FORMAT = 1
"""The version of the form that this module writes; the file says it in its metadata as `fairlead.rows`."""

_ROW_GROUP = 131_072
_TIMES = ("TIMESTAMP", "DATE", "VARCHAR")
_FLOATS = ("FLOAT", "DOUBLE")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowStatistics:
    """What a snapshot says of a view's rows. Times are RFC 3339; `nulls` counts missing values by feature."""

    rows: int
    left_out: int
    min_event_time: str | None
    max_event_time: str | None
    nulls: Mapping[str, int]

    def counts(self) -> dict[str, Any]:
        """Only how many rows there are, as plain JSON."""
        return {"rows": self.rows, "left_out": self.left_out}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"nulls": dict(self.nulls)}


def write_rows(
    view: ViewDefinition, *, as_of: datetime, sources: Sources, destination: Path, scratch: Path
) -> RowStatistics:
    """Write the view's rows up to `as_of` to a Parquet file; `scratch` is a folder for what does not fit in memory.

    A row counts when its event timestamp, and its created timestamp where there is one, are not after `as_of`.

    Raises:
        FeatureSourceInvalid: if a file or column is missing, or holds what the definition's type cannot.
        PermissionDenied: if the source is outside the folders that may be read.
        Unavailable: if the source does not answer.
    """
    import duckdb

    with open_duckdb(scratch) as connection:
        try:
            relation = sources.relation(connection, view.source, view=view.name, needs=Needs.of(view, until=as_of))
            found = _describe(connection, relation)
            plan = _Plan(view, found)
            plan.check_columns()
            plan.check_whole_numbers(connection, relation)
            left_out = fetch_number(connection, plan.count_left_out(relation))
            try:
                _write_parquet(connection, plan.select(relation, as_of), view, destination)
            except (duckdb.ConversionException, duckdb.BinderException, duckdb.OutOfRangeException) as error:
                raise plan.explain(connection, relation) from error
        except (duckdb.InvalidInputException, duckdb.IOException) as error:
            raise unreadable(view.name) from error
        return _measure(connection, view, destination, left_out=left_out)


def rows_schema(view: ViewDefinition) -> ArrowSchema:
    """The schema of a view's rows."""
    pa = load_arrow()

    scalars: dict[str, Any] = {
        "INT32": pa.int32(),
        "INT64": pa.int64(),
        "FLOAT": pa.float32(),
        "DOUBLE": pa.float64(),
        "STRING": pa.string(),
        "BOOL": pa.bool_(),
        "BYTES": pa.binary(),
        "UNIX_TIMESTAMP": pa.timestamp("us", tz="UTC"),
    }
    fields: list[Any] = [
        pa.field(
            column.name,
            pa.list_(scalars[column.type.removesuffix("_LIST")])
            if column.type.endswith("_LIST")
            else scalars[column.type],
        )
        for column in row_columns(view)
    ]
    schema: ArrowSchema = pa.schema(fields)
    return schema


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
                query = f"SELECT count(*) FROM {relation} WHERE NOT isnan({name}) AND {name} <> trunc({name})"  # noqa: S608
                if count := fetch_number(connection, query):
                    raise self._not_castable(source, column.type, count=count)

    def count_left_out(self, relation: str) -> str:
        needed = {column.name for column in self._view.keys} | {self._view.source.timestamp_field}
        is_null = " OR ".join(f"{self._cast(c, s)} IS NULL" for c, s in self._columns if c.name in needed)
        # A value that cannot be read is reported by name when the rows are written.
        return f"SELECT count(*) FROM {relation} WHERE {is_null.replace('CAST(', 'TRY_CAST(')}"  # noqa: S608

    def select(self, relation: str, as_of: datetime) -> str:
        view = self._view
        moment = f"TIMESTAMPTZ {quote_text(format_time(as_of))}"
        event, created = quote_name(view.source.timestamp_field), view.source.created_timestamp_column
        casts = ", ".join(
            f"{self._cast(column, source)} AS {quote_name(column.name)}" for column, source in self._columns
        )
        conditions = [f"{quote_name(key.name)} IS NOT NULL" for key in view.keys] + [f"{event} <= {moment}"]
        order = [quote_name(key.name) for key in view.keys] + [event]
        if created:
            conditions.append(f"({quote_name(created)} IS NULL OR {quote_name(created)} <= {moment})")
            order.append(f"{quote_name(created)} NULLS FIRST")
        for feature in sorted(view.features, key=lambda column: column.name):
            order.append(f"{quote_name(feature.name)} NULLS FIRST")
            if feature.type in _FLOATS:
                # 0.0 and -0.0 compare as equal and are different bytes.
                order.append(f"signbit({quote_name(feature.name)}) DESC")
        return (
            f"SELECT * FROM (SELECT {casts} FROM {relation}) "  # noqa: S608  (every name and text is quoted)
            f"WHERE {' AND '.join(conditions)} ORDER BY {', '.join(order)}"
        )

    def explain(self, connection: DuckDBPyConnection, relation: str) -> FeatureSourceInvalid:
        """Which column could not be read as its type, and in how many rows; never what it held."""
        import duckdb

        for column, source in self._columns:
            name = quote_name(source)
            tried = self._cast(column, source).replace("CAST(", "TRY_CAST(")
            query = f"SELECT count(*) FROM {relation} WHERE {name} IS NOT NULL AND {tried} IS NULL"  # noqa: S608
            if column.type in _FLOATS and self._found[source].startswith(_FLOATS):
                query += f" AND NOT isnan({name})"
            try:
                count = fetch_number(connection, query)
            except duckdb.Error:
                return self._not_castable(source, column.type)
            if count:
                return self._not_castable(source, column.type, count=count)
        return unreadable(self._view.name)

    def _cast(self, column: Column, source: str) -> str:
        name, target = quote_name(source), DUCKDB_TYPES[column.type]
        if self._found[source].startswith(_FLOATS) and not self._found[source].endswith("]"):
            name = f"nullif({name}, 'nan'::DOUBLE)"
        if column.type in _FLOATS:
            return f"nullif(CAST({name} AS {target}), 'nan'::{target})"
        return f"CAST({name} AS {target})"

    def _not_castable(self, source: str, kind: str, count: int | None = None) -> FeatureSourceInvalid:
        rows = "" if count is None else f" in {count} row{'s' if count > 1 else ''}"
        return FeatureSourceInvalid(
            f"Column {source!r} of the source of view {self._view.name!r} is {self._found[source]} and "
            f"cannot be read as {kind}{rows}.",
            hint="Correct the source, or the type in the view's schema, and take another snapshot.",
            view=self._view.name,
            column=source,
        )


def _describe(connection: DuckDBPyConnection, relation: str) -> dict[str, str]:
    rows = fetch_rows(connection, f"DESCRIBE SELECT * FROM {relation}")  # noqa: S608
    return {str(row[0]): str(row[1]) for row in rows}


def _write_parquet(connection: DuckDBPyConnection, query: str, view: ViewDefinition, destination: Path) -> None:
    schema: ArrowSchema = rows_schema(view).with_metadata({"fairlead.rows": str(ROWS_FORMAT)})
    # Plain and uncompressed: the content store cuts, deduplicates and compresses better than pages of Parquet would.
    with load_arrow().parquet.ParquetWriter(
        destination, schema, compression="none", use_dictionary=False, version="2.6"
    ) as writer:
        for table in _iter_groups(connection, query, schema):
            writer.write_table(table, row_group_size=_ROW_GROUP)


def _iter_groups(connection: DuckDBPyConnection, query: str, schema: ArrowSchema) -> Iterator[ArrowTable]:
    """The result in tables of exactly `_ROW_GROUP` rows, the last one shorter: batches come in any size."""
    pa = load_arrow()

    waiting: list[Any] = []
    count = 0
    for batch in fetch_batches(connection, query, _ROW_GROUP):
        rest = batch
        while count + rest.num_rows >= _ROW_GROUP:
            head, rest = rest.slice(0, _ROW_GROUP - count), rest.slice(_ROW_GROUP - count)
            yield pa.Table.from_batches([*waiting, head]).cast(schema).combine_chunks()
            waiting, count = [], 0
        if rest.num_rows:
            waiting.append(rest)
            count += rest.num_rows
    if waiting:
        yield pa.Table.from_batches(waiting).cast(schema).combine_chunks()


def _measure(connection: DuckDBPyConnection, view: ViewDefinition, path: Path, *, left_out: int) -> RowStatistics:
    event = quote_name(view.source.timestamp_field)
    nulls = "".join(f", count(*) - count({quote_name(feature.name)})" for feature in view.features)
    query = f"SELECT count(*), min({event}), max({event}){nulls} FROM read_parquet({quote_text(str(path))})"  # noqa: S608
    rows, first, last, *counts = fetch_rows(connection, query)[0]
    return RowStatistics(
        rows=rows,
        left_out=left_out,
        min_event_time=None if first is None else format_time(first),
        max_event_time=None if last is None else format_time(last),
        nulls={feature.name: count for feature, count in zip(view.features, counts, strict=True)},
    )
