"""Training rows from Feast's own definitions: entity rows in, the same rows with features out.

The rule is that of `fairlead.featurestore.joins`, over sources as they are: of each view, an entity row gets the last
row up to its time, by event timestamp, then by created timestamp, then by the greatest features; and nothing if that
row is older than the view's TTL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from feast.feature_view import DUMMY_ENTITY_ID, FeatureView

from fairlead.core.errors import InvalidInput
from fairlead.featurestore.asof import ROW, TIME, History, Pairs, create_pairs, join_asof
from fairlead.featurestore.duck import ArrowTable, load_arrow, quote_name
from fairlead.featurestore.feast_rows import Columns, SourceReader

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_ARROW_KEYS = {
    "TINYINT": "int8",
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "UTINYINT": "uint8",
    "USMALLINT": "uint16",
    "UINTEGER": "uint32",
    "UBIGINT": "uint64",
    "VARCHAR": "string",
}
_PAIRS = "__pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedView:
    """A feature view and what is taken of it: features with the names of their columns, in order."""

    view: FeatureView
    features: tuple[tuple[str, str], ...]

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """The view's join keys, each with the entity rows' column for it; none where the view has no entity."""
        renamed: Mapping[str, str] = self.view.projection.join_key_map
        names = [column.name for column in self.view.entity_columns if column.name != DUMMY_ENTITY_ID]
        return tuple((name, renamed.get(name, name)) for name in names)

    @property
    def ttl(self) -> timedelta | None:
        """How long a value is given out; None is for ever."""
        return self.view.ttl or None

    @property
    def needed(self) -> list[str]:
        """The columns that are read, by the view's names."""
        source: Any = self.view.batch_source
        times = [source.timestamp_field, source.created_timestamp_column]
        return [*(key for key, _ in self.keys), *(name for name, _ in self.features), *(name for name in times if name)]

    @property
    def ordered(self) -> list[str]:
        """All of the view's features, in the order in which they settle which of two rows counts."""
        return sorted({feature.name for feature in self.view.features})


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of the views: the entity rows' column of times, and whether late rows count.

    Where `is_known`, a row counts only if it had been created at the entity row's time.
    """

    views: tuple[WantedView, ...]
    time_column: str
    is_known: bool = False


def join_here(reader: SourceReader, entity_rows: ArrowTable, question: Question) -> Mapping[str, Any]:
    """The columns of the views' features, by their names, in the order of the entity rows.

    Raises:
        InvalidInput: if the entity rows lack a key, or it is of another kind than the view's.
        FeatureSourceInvalid: if a source cannot be read, or lacks a column.
    """
    columns: dict[str, Any] = {}
    with reader.open() as connection:
        for wanted in question.views:
            found = _join_view(connection, reader, entity_rows, wanted, question)
            columns |= {name: found.column(name) for _, name in wanted.features}
    return columns


def _join_view(
    connection: DuckDBPyConnection,
    reader: SourceReader,
    entity_rows: ArrowTable,
    wanted: WantedView,
    question: Question,
) -> ArrowTable:
    arrow = load_arrow()
    columns = read_view(connection, reader, wanted)
    numbers = arrow.array(range(entity_rows.num_rows), arrow.int64())
    keys = {name: _cast_key(entity_rows.column(name), columns.type(key), name) for key, name in wanted.keys}
    create_pairs(connection, _PAIRS, arrow.table({ROW: numbers, TIME: entity_rows.column(question.time_column)} | keys))
    return join_asof(
        connection,
        Pairs(table=_PAIRS, keys=tuple(keys)),
        history_of(columns, wanted, is_known=question.is_known),
    )


def read_view(connection: DuckDBPyConnection, reader: SourceReader, wanted: WantedView) -> Columns:
    """The rows of a view's source."""
    return reader.columns(
        connection,
        _source(wanted.view),
        owner=wanted.view.name,
        needed=wanted.needed,
        useful=wanted.ordered,
        is_mapped=True,
    )


def history_of(columns: Columns, wanted: WantedView, *, is_known: bool) -> History:
    """A view's source as a history to join with."""
    source = _source(wanted.view)
    created = source.created_timestamp_column or None
    features = [columns.ranked(name) for name in wanted.ordered if columns.has(name)]
    return History(
        relation=columns.relation,
        keys=tuple(columns.sql(key) for key, _ in wanted.keys),
        event=columns.time(source.timestamp_field),
        order=tuple([columns.time(created), *features] if created else features),
        values=tuple((columns.sql(feature), name) for feature, name in wanted.features),
        ttl=None if wanted.ttl is None else wanted.ttl // timedelta(microseconds=1),
        known=columns.time(created) if is_known and created else None,
    )


def keys_between(
    reader: SourceReader, views: Sequence[WantedView], *, start: datetime, end: datetime, time_column: str
) -> ArrowTable:
    """Entity rows for nobody in particular: every entity with a row between two times, at the later one.

    Raises:
        InvalidInput: if the views are about different entities.
    """
    keys = {tuple(name for _, name in wanted.keys) for wanted in views} - {()}
    if len(keys) > 1:
        raise InvalidInput(
            "The features are of views with different join keys, so there are no entities that all of them have.",
            hint="Give entity rows, or ask for the views of one entity at a time.",
        )
    arrow = load_arrow()
    names = next(iter(keys), ())
    if not names:
        return arrow.table({time_column: arrow.array([end], arrow.timestamp("us", tz="UTC"))})
    with reader.open() as connection:
        parts: list[str] = []
        for wanted in views:
            if wanted.keys:
                columns = read_view(connection, reader, wanted)
                event = columns.time(_source(wanted.view).timestamp_field)
                selected = ", ".join(f"{columns.sql(key)} AS {quote_name(name)}" for key, name in wanted.keys)
                parts.append(f"SELECT {selected} FROM {columns.relation} WHERE {event} BETWEEN $start AND $end")  # noqa: S608
        order = ", ".join(quote_name(name) for name in names)
        relation: Any = connection.sql(
            f"SELECT DISTINCT * FROM ({' UNION ALL '.join(parts)}) ORDER BY {order}",  # noqa: S608
            params={"start": start, "end": end},
        )
        found = relation.to_arrow_table()
    return found.append_column(time_column, arrow.array([end] * found.num_rows, arrow.timestamp("us", tz="UTC")))


def _source(view: FeatureView) -> Any:
    source: Any = view.batch_source
    if source is None:
        raise InvalidInput(
            f"View {view.name!r} has no batch source, so it has no history.", hint="Give it source=FileSource(...)."
        )
    return source


def _cast_key(column: Any, kind: str, name: str) -> Any:
    """A column of the entity rows as the view's key is of DuckDB's type `kind`, so that equal keys are equal."""
    arrow = load_arrow()
    target = getattr(arrow, _ARROW_KEYS[kind])() if kind in _ARROW_KEYS else None
    if arrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if target is None:
        return column
    try:
        if arrow.types.is_floating(column.type):
            # pandas turns whole numbers with a gap into floats, the gap into "not a number".
            column = arrow.compute.if_else(arrow.compute.is_nan(column), None, column)
        return column.cast(target)
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError):
        raise InvalidInput(
            f"The column {name!r} of the entity rows is {column.type} and holds what is no {kind} key.",
            hint="Give the keys as the view's source has them.",
        ) from None


def check_rows(entity_rows: ArrowTable, wanted: WantedView) -> None:
    """Refuse entity rows that a view cannot be joined to.

    Raises:
        InvalidInput: naming the column that is missing, or is there already.
    """
    for _, name in wanted.keys:
        if name not in entity_rows.column_names:
            raise InvalidInput(
                f"The entity rows have no column {name!r}, a join key of view {wanted.view.name!r}.",
                hint=f"They have: {', '.join(entity_rows.column_names)[:400]}.",
            )
    taken = sorted({name for _, name in wanted.features} & set(entity_rows.column_names))
    if taken:
        raise InvalidInput(
            f"The entity rows already have a column {taken[0]!r}, which is a feature of view {wanted.view.name!r}.",
            hint="Leave it out, rename it, or ask for full_feature_names=True.",
        )
