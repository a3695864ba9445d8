"""Rows that somebody pushes: checked against a view's schema before any of them is kept, and named by event ids.

A push is taken whole or not at all. Each refused value is named by its row's index and its column, never by what it
holds. Values have to be of the type that the view states: nothing is read out of a text but times (RFC 3339) and bytes
(base64), whole numbers may come as floats without a fraction, and a float that is not a number is a missing value.

An event's id is what its producer calls it, in the column `event_id` or beside the rows. Without one, it is derived
from the row's content (see `derive_ids`), so that two rows that are equal are one event.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from fairlead.core.errors import FeatureRowsInvalid, InvalidInput, JsonValue
from fairlead.featurestore.definitions import DUMMY_KEY, DUMMY_VALUE, Column, ViewDefinition
from fairlead.featurestore.duck import ArrowTable, load_arrow
from fairlead.featurestore.rows import row_columns, rows_schema

EVENT_ID = "event_id"
"""The column that holds event ids, unless the view has a column of that name."""

ROWS_MAX = 100_000
"""Most rows of one push."""

CLOCK_SKEW = timedelta(minutes=5)
"""How far from the future an event may come: a row of next year would be the latest one until then."""

_ID_MAX_LENGTH = 255
_TOLD_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRows:
    """Rows of one view, of exactly its columns and types, and the id of each one's event."""

    view: ViewDefinition
    table: ArrowTable
    ids: Sequence[str]


Columns = Mapping[str, Any]
"""By name, a list of JSON values or an Arrow array; all of one length."""

Problems = dict[tuple[int, str], str]
"""What is wrong with a value, by the row's index (from 0) and the column."""


def columns_of_json(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Objects of JSON as columns; a member that an object lacks is a missing value."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def columns_of_arrow(table: ArrowTable) -> dict[str, Any]:
    """The columns of an Arrow table."""
    if len(set(table.column_names)) != len(table.column_names):
        raise InvalidInput("The rows have two columns of one name.", hint="Give each column its own name.")
    return {name: table.column(name).combine_chunks() for name in table.column_names}


def check_rows(
    views: Sequence[ViewDefinition], columns: Columns, *, ids: Sequence[str] | None, now: datetime
) -> list[CheckedRows]:
    """The rows as each of the views has them.

    Raises:
        InvalidInput: if there are no rows or too many, a column is unknown or missing, or ids do not fit the rows.
        FeatureRowsInvalid: naming the values that cannot be taken, by row and column.
    """
    count = len(next(iter(columns.values()), ()))
    if not 1 <= count <= ROWS_MAX:
        raise InvalidInput(f"A push of {count} rows is not taken.", hint=f"Send 1 to {ROWS_MAX} rows.")
    given, rest = _given_ids(views, columns, ids, count)
    problems: Problems = {}
    _check_names(views, rest, problems)
    if given is not None:
        _check_ids(given, problems)
    tables = [_convert(view, rest, count, now, problems) for view in views]
    if problems:
        raise _refusal(problems, count)
    return [
        CheckedRows(view=view, table=_fill_created(view, table, now), ids=given or derive_ids(view, table))
        for view, table in zip(views, tables, strict=True)
    ]


def derive_ids(view: ViewDefinition, table: ArrowTable) -> list[str]:
    """`sha256:` and the digest of each row's JSON: the view's columns by name, sorted, without white space, in UTF-8.

    Times are microseconds since 1970, bytes base64, missing values null.
    """
    arrow = load_arrow()
    names = sorted(column.name for column in row_columns(view))
    values: list[list[Any]] = []
    for name in names:
        column, kind = table.column(name), table.schema.field(name).type
        if arrow.types.is_timestamp(kind):
            column = column.cast(arrow.int64())
        elif arrow.types.is_list(kind) and arrow.types.is_timestamp(kind.value_type):
            column = column.cast(arrow.list_(arrow.int64()))
        values.append(column.to_pylist())
    encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=_base64).encode
    return [
        "sha256:" + hashlib.sha256(encode(dict(zip(names, row, strict=True))).encode()).hexdigest()
        for row in zip(*values, strict=True)
    ]


def _base64(value: object) -> str:
    assert isinstance(value, bytes)  # noqa: S101  (all else that a row holds has a form in JSON)
    return base64.b64encode(value).decode()


def _given_ids(
    views: Sequence[ViewDefinition], columns: Columns, ids: Sequence[str] | None, count: int
) -> tuple[Sequence[Any] | None, Columns]:
    """The ids that came with the rows, if any did, and the other columns."""
    is_ours = all(column.name != EVENT_ID for view in views for column in row_columns(view))
    if EVENT_ID in columns and is_ours:
        if ids is not None:
            raise InvalidInput("The rows come with event ids twice.", hint=f"Leave out the column {EVENT_ID!r}.")
        said = columns[EVENT_ID]
        rest = {name: values for name, values in columns.items() if name != EVENT_ID}
        return cast("list[Any]", said if isinstance(said, list) else said.to_pylist()), rest
    if ids is not None and len(ids) != count:
        raise InvalidInput(f"There are {len(ids)} event ids for {count} rows.", hint="Send one for each row.")
    return ids, columns


def _check_ids(ids: Sequence[Any], problems: Problems) -> None:
    for row, each in enumerate(ids):
        if not isinstance(each, str) or not 1 <= len(each) <= _ID_MAX_LENGTH or not each.isprintable():
            problems[row, EVENT_ID] = f"is no printable text of 1 to {_ID_MAX_LENGTH} characters"


def _check_names(views: Sequence[ViewDefinition], columns: Columns, problems: Problems) -> None:
    """Note members that no view has of rows in JSON; a table has to have the views' columns and no others."""
    known = {column.name for view in views for column in row_columns(view)}
    whose = " and ".join(repr(view.name) for view in views)
    unknown = sorted(set(columns) - known)
    if all(isinstance(values, list) for values in columns.values()):
        for name in unknown:
            for row, value in enumerate(columns[name]):
                if value is not None:
                    problems[row, name[:80]] = "is no column"
        return
    if unknown:
        raise InvalidInput(
            f"The rows have a column {unknown[0][:80]!r}, and view {whose} has none of that name.",
            hint=f"Its columns are: {', '.join(sorted(known))[:400]}.",
            column=unknown[0][:80],
        )
    # A created timestamp may be left to whoever takes the rows, and nobody is asked for the key of no entity.
    optional = {DUMMY_KEY.name, *(view.source.created_timestamp_column for view in views)}
    if missing := sorted(known - set(columns) - optional):
        raise InvalidInput(
            f"The rows have no column {missing[0]!r}, which view {whose} has.",
            hint="Send all of the view's columns; a feature may be null.",
            column=missing[0],
        )


def _convert(view: ViewDefinition, columns: Columns, count: int, now: datetime, problems: Problems) -> ArrowTable:
    arrow = load_arrow()
    schema = rows_schema(view)
    needed = {key.name for key in view.keys} | {view.source.timestamp_field}
    times = {view.source.timestamp_field, view.source.created_timestamp_column}
    arrays: list[Any] = []
    for column, field in zip(row_columns(view), schema, strict=True):
        given = [DUMMY_VALUE] * count if column == DUMMY_KEY else columns.get(column.name, [None] * count)
        array = _to_array(column, field.type, given, problems)
        if column.name in needed and array.null_count:
            for row in arrow.compute.indices_nonzero(array.is_null()).to_pylist():
                problems.setdefault((row, column.name), "is missing")
        if column.name in times:
            limit = arrow.scalar(now + CLOCK_SKEW, field.type)
            for row in arrow.compute.indices_nonzero(arrow.compute.greater(array, limit)).to_pylist():
                problems[row, column.name] = "lies in the future"
        arrays.append(array)
    return arrow.table(arrays, schema=schema)


def _fill_created(view: ViewDefinition, table: ArrowTable, now: datetime) -> ArrowTable:
    """With the time of taking where a row does not say when it was created; its id does not depend on that."""
    name = view.source.created_timestamp_column
    if name is None:
        return table
    position = table.schema.get_field_index(name)
    field = table.schema.field(position)
    return table.set_column(position, field, table.column(name).fill_null(load_arrow().scalar(now, field.type)))


def _to_array(column: Column, kind: Any, values: Any, problems: Problems) -> Any:
    """Values as one Arrow array of the type; those that cannot be are missing in it, and are noted."""
    arrow = load_arrow()
    if not isinstance(values, list):
        converted = _cast(values, kind)
        if converted is not None:
            return converted
        values = values.to_pylist()
    read = _READERS[column.type.removesuffix("_LIST")]
    if column.type.endswith("_LIST"):
        read = _read_list(read)
    found: list[Any] = []
    for row, value in enumerate(cast("list[Any]", values)):
        try:
            found.append(None if value is None else read(value))
        except (ValueError, TypeError, OverflowError):
            found.append(None)
            problems[row, column.name] = f"is no {column.type}"
    return arrow.array(found, kind)


def _cast(values: Any, kind: Any) -> Any:
    """An Arrow array as one of another type of the same family, or None where a value does not fit or has none."""
    arrow = load_arrow()
    types = arrow.types
    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    have = values.type
    families: list[Callable[[Any], bool]] = [
        lambda each: types.is_integer(each) or types.is_floating(each),
        lambda each: types.is_string(each) or types.is_large_string(each),
        lambda each: types.is_binary(each) or types.is_large_binary(each),
        types.is_boolean,
        types.is_null,
    ]
    try:
        if types.is_null(have) or any(is_of(have) and is_of(kind) for is_of in families):
            if types.is_floating(kind):
                # A missing value and one that is not a number are the same thing.
                values = values.cast(kind, safe=types.is_floating(have))
                return arrow.compute.if_else(arrow.compute.is_nan(values), arrow.scalar(None, kind), values)
            return values.cast(kind)
        if types.is_timestamp(have) and types.is_timestamp(kind):
            if have.tz is None:
                values = values.cast(arrow.timestamp(have.unit, tz="UTC"))
            return values.cast(kind, safe=False)
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError):
        pass
    return None


def _read_whole(bits: int) -> Callable[[Any], int]:
    limit = 2 ** (bits - 1)

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or int(value) != value:
            raise ValueError
        if not -limit <= value < limit:
            raise OverflowError
        return int(value)

    return read


def _read_float(limit: float) -> Callable[[Any], float | None]:
    def read(value: Any) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError
        number = float(value)
        if math.isfinite(number) and abs(number) > limit:
            raise OverflowError
        return None if math.isnan(number) else number

    return read


def _read_as(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError
        return value

    return read


def _read_list(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def read_all(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise TypeError
        return [None if each is None else read(each) for each in cast("list[Any]", value)]

    return read_all


def _read_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else base64.b64decode(value, validate=True)


def _read_time(value: Any) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    # A time without a zone means UTC, as everywhere.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "INT32": _read_whole(32),
    "INT64": _read_whole(64),
    "FLOAT": _read_float(3.4028234663852886e38),
    "DOUBLE": _read_float(math.inf),
    "STRING": _read_as(str),
    "BOOL": _read_as(bool),
    "BYTES": _read_bytes,
    "UNIX_TIMESTAMP": _read_time,
}


def _refusal(problems: Problems, count: int) -> FeatureRowsInvalid:
    rows = sorted({row for row, _ in problems})
    first = min(problems)
    told: list[JsonValue] = [
        {"row": row, "column": column, "reason": problems[row, column]} for row, column in sorted(problems)[:_TOLD_MAX]
    ]
    return FeatureRowsInvalid(
        f"{len(rows)} of {count} rows cannot be taken, and so none was: in row {first[0]}, {first[1]!r} "
        f"{problems[first]}.",
        hint="Correct or leave out the rows that `rows` names, counted from 0, and send the others again.",
        refused=len(rows),
        rows=told,
    )
