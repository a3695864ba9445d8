"""The point-in-time join: for each entity row, the values that were known of that entity at that row's time.

Of each view, an entity row gets the last row in canonical order (see `fairlead.featurestore.rows`) whose event
timestamp is not after the entity row's; if that one is older than the view's TTL, it gets nothing, however many older
ones there are. Every entity row is kept, in its place, duplicates included, and a row without a time gets no values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import InvalidInput
from fairlead.featurestore.asof import ROW, TIME, History, Pairs, create_pairs, join_asof
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.duck import ArrowTable, load_arrow, open_duckdb, quote_name, quote_text
from fairlead.featurestore.services import Projection, ServiceDefinition

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

EVENT_TIMESTAMP = "event_timestamp"
"""The column of the entity rows that says as of when."""

_PAIRS = "__pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRows:
    """A view, or one class's part of it, and the Parquet file that holds its rows in canonical order."""

    view: ViewDefinition
    path: Path


def output_names(service: ServiceDefinition) -> list[tuple[Projection, str, str]]:
    """The columns a service gives, in order: projection, feature, and the name of the column.

    That is the feature's name, or `view__feature` where two views of the service have a feature of that name. What is
    hidden is always called so, and changes the name of nothing else.
    """
    named = [(projection, feature) for projection in service.projections for feature in projection.features]
    names = [feature for projection, feature in named if feature not in projection.hidden]
    names += [feature for each in service.on_demand for feature in each.features]
    return [
        (
            projection,
            feature,
            feature
            if feature not in projection.hidden and names.count(feature) == 1
            else f"{projection.alias}__{feature}",
        )
        for projection, feature in named
    ]


def ttl_microseconds(view: ViewDefinition) -> int | None:
    """How long a value of the view is given out, or None for ever."""
    return None if view.ttl_seconds is None else int(Decimal(view.ttl_seconds) * 1_000_000)


def join_point_in_time(
    entity_rows: ArrowTable, service: ServiceDefinition, views: Mapping[str, Sequence[ViewRows]], *, scratch: Path
) -> ArrowTable:
    """The entity rows with the service's features as further columns, as far as there are rows that hold them.

    Args:
        entity_rows: an Arrow table with the join keys, `event_timestamp` (without a zone: UTC), and any other columns.
        service: which features, in which order.
        views: by the view's name its rows, in parts that have its features among them.
        scratch: a folder for what does not fit into memory.

    Raises:
        InvalidInput: if a key or the time is missing or of the wrong type, or a column has a feature's name.
    """
    arrow = load_arrow()
    outputs = output_names(service)
    _check_columns(entity_rows, service, [name for _, _, name in outputs])
    keys = _key_columns(entity_rows, service, views)
    numbers = arrow.array(range(entity_rows.num_rows), arrow.int64())
    pairs = arrow.table({ROW: numbers, TIME: _time_column(entity_rows)} | keys)
    result = entity_rows
    with open_duckdb(scratch) as connection:
        create_pairs(connection, _PAIRS, pairs)
        for projection in service.projections:
            joined: dict[str, Any] = {}
            for rows in views.get(projection.view, ()):
                wanted = [
                    (feature, name)
                    for owner, feature, name in outputs
                    if owner is projection and rows.view.feature(feature) is not None
                ]
                if wanted:
                    table = _join_view(connection, projection, rows, wanted)
                    joined |= {name: table.column(name) for _, name in wanted}
            for owner, _, name in outputs:
                if owner is projection and name in joined:
                    result = result.append_column(name, joined[name])
    return result


def _join_view(
    connection: DuckDBPyConnection, projection: Projection, rows: ViewRows, features: Sequence[tuple[str, str]]
) -> ArrowTable:
    history = History(
        relation=f"read_parquet({quote_text(str(rows.path))}, file_row_number = true)",
        keys=tuple(quote_name(key.name) for key in rows.view.asked_keys),
        event=quote_name(rows.view.source.timestamp_field),
        order=("file_row_number",),
        values=tuple((quote_name(feature), name) for feature, name in features),
        ttl=ttl_microseconds(rows.view),
    )
    pairs = Pairs(table=_PAIRS, keys=tuple(_key_alias(projection, key) for key in rows.view.asked_keys))
    return join_asof(connection, pairs, history)


def _check_columns(entity_rows: ArrowTable, service: ServiceDefinition, outputs: Sequence[str]) -> None:
    columns: list[str] = list(entity_rows.column_names)
    if repeated := sorted({name for name in columns if columns.count(name) > 1}):
        raise InvalidInput(f"The entity rows have two columns {repeated[0]!r}.", hint="Give each its own name.")
    if EVENT_TIMESTAMP not in columns:
        raise InvalidInput(
            f"The entity rows have no column {EVENT_TIMESTAMP!r}, which says as of when each row is meant.",
            hint=f"They have: {', '.join(columns)[:400]}.",
        )
    if taken := sorted(set(columns) & set(outputs)):
        raise InvalidInput(
            f"The entity rows already have a column {taken[0]!r}, which is a feature of {service.name!r}.",
            hint="Leave it out or rename it.",
        )


def _key_columns(
    entity_rows: ArrowTable, service: ServiceDefinition, views: Mapping[str, Sequence[ViewRows]]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for projection in service.projections:
        for key in {key: None for rows in views.get(projection.view, ()) for key in rows.view.asked_keys}:
            name = projection.join_key_map.get(key.name, key.name)
            if name not in entity_rows.column_names:
                raise InvalidInput(
                    f"The entity rows have no column {name!r}, the join key of view {projection.view!r}.",
                    hint=f"They have: {', '.join(entity_rows.column_names)[:400]}.",
                )
            found[_key_alias(projection, key)] = _cast_key(entity_rows.column(name), name, key)
    return found


def _key_alias(projection: Projection, key: Column) -> str:
    # One caller's column may be a number to one view and text to another.
    return f"{key.type}:{projection.join_key_map.get(key.name, key.name)}"


def _cast_key(column: Any, name: str, key: Column) -> Any:
    arrow = load_arrow()
    compute = arrow.compute
    targets = {"INT32": arrow.int32(), "INT64": arrow.int64(), "STRING": arrow.string()}
    try:
        if arrow.types.is_floating(column.type):
            # pandas turns whole numbers with a gap into floats, the gap into "not a number".
            column = compute.if_else(compute.is_nan(column), None, column)
        return column.cast(targets[key.type])
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError):
        raise InvalidInput(
            f"The column {name!r} of the entity rows is {column.type} and holds what is no {key.type} key.",
            hint="Give the keys as the entity defines them.",
        ) from None


def _time_column(entity_rows: ArrowTable) -> Any:
    arrow = load_arrow()
    column = entity_rows.column(EVENT_TIMESTAMP)
    if not (arrow.types.is_timestamp(column.type) or arrow.types.is_date(column.type)):
        raise InvalidInput(
            f"The column {EVENT_TIMESTAMP!r} of the entity rows is {column.type}, not a time.",
            hint="Give timestamps, such as pandas.to_datetime(..., utc=True).",
        )
    return column
