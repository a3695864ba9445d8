"""Pushing features: rows of a stream, in requests of a bounded size, each of which may be repeated at will."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from fairlead.core.errors import FeatureRowsInvalid, InvalidInput, JsonValue, MissingExtra
from fairlead.core.ids import parse_name

if TYPE_CHECKING:
    from fairlead.sdk.transport import Transport

ARROW_STREAM = "application/vnd.apache.arrow.stream"
ROWS_AT_ONCE = 20_000
JSON_BYTES_AT_ONCE, ARROW_BYTES_AT_ONCE = 4 * 2**20, 32 * 2**20
"""Half of what a server reads of each, unless it is set otherwise."""

_Request = tuple[int, bytes, str]
"""The index of its first row, and the body with its content type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedRows:
    """What became of pushed rows in one view. They are durable.

    `is_online` says whether the region's online stores have them all by now; None where they are not meant to.
    """

    view: str
    region: str
    accepted: int
    duplicates: int
    is_online: bool | None


def push_rows(
    transport: Transport, source: str, rows: Any, *, to: str, region: str | None, event_ids: Sequence[str] | None
) -> list[PushedRows]:
    """Push rows (see `Features.push`), in as many requests as it takes."""
    path, query = push_path(source), {"to": to, "region": region}
    found: dict[str, PushedRows] = {}
    for start, content, kind in _requests(rows, event_ids):
        try:
            answer: Any = transport.send("POST", path, query=query, content=content, content_type=kind).json()
        except FeatureRowsInvalid as error:
            raise _of_all_rows(error, start) from None
        for view in answer["views"]:
            found[view["view"]] = _add(found.get(view["view"]), view, answer["region"])
    return list(found.values())


def _of_all_rows(error: FeatureRowsInvalid, start: int) -> FeatureRowsInvalid:
    """The refusal of a request whose first row is the one at `start`, with the indices that the caller knows."""
    told = cast("list[dict[str, Any]]", error.attributes.get("rows", []))
    if not start or not told:
        return error
    rows: list[JsonValue] = [{**each, "row": each["row"] + start} for each in told]
    return FeatureRowsInvalid(
        f"The {start} rows before were taken. Of those after, {error.attributes.get('refused')} cannot be: in row "
        f"{told[0]['row'] + start}, {told[0]['column']!r} {told[0]['reason']}.",
        hint=error.hint,
        refused=error.attributes.get("refused"),
        rows=rows,
    )


def push_path(source: str) -> str:
    """The address of a push source."""
    return f"/api/v1/features/push/{quote(parse_name(source, what='push source'), safe='')}"


def _add(before: PushedRows | None, view: Mapping[str, Any], region: str) -> PushedRows:
    is_online = view["is_online"]
    if before is not None:
        is_online = None if is_online is None else is_online and bool(before.is_online)
    return PushedRows(
        view=view["view"],
        region=region,
        accepted=view["accepted"] + (0 if before is None else before.accepted),
        duplicates=view["duplicates"] + (0 if before is None else before.duplicates),
        is_online=is_online,
    )


def _requests(rows: Any, event_ids: Sequence[str] | None) -> Iterator[_Request]:
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        yield from _json_requests(cast("Sequence[Mapping[str, Any]]", rows), event_ids)
        return
    try:
        arrow: Any = import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise MissingExtra("Pushing frames needs Arrow.", hint="Run: pip install 'fairlead[features]'") from error
    table: Any = rows if isinstance(rows, arrow.Table) else arrow.Table.from_pandas(rows, preserve_index=False)
    if event_ids is not None:
        if len(event_ids) != table.num_rows:
            raise InvalidInput(f"There are {len(event_ids)} event ids for {table.num_rows} rows.")
        table = table.append_column("event_id", arrow.array(list(event_ids), arrow.string()))
    row_bytes = max(1, table.nbytes // max(1, table.num_rows))
    step = max(1, min(ROWS_AT_ONCE, ARROW_BYTES_AT_ONCE // row_bytes))
    for start in range(0, max(1, table.num_rows), step):
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(start, step))
        yield start, sink.getvalue().to_pybytes(), ARROW_STREAM


def _json_requests(rows: Sequence[Mapping[str, Any]], event_ids: Sequence[str] | None) -> Iterator[_Request]:
    if event_ids is not None and len(event_ids) != len(rows):
        raise InvalidInput(f"There are {len(event_ids)} event ids for {len(rows)} rows.")
    start, size, part = 0, 0, list[bytes]()
    for number, row in enumerate(rows):
        text = _to_json(row, number)
        if part and (len(part) == ROWS_AT_ONCE or size + len(text) > JSON_BYTES_AT_ONCE):
            yield start, _body(part, event_ids, start), "application/json"
            start, size, part = number, 0, []
        part.append(text)
        size += len(text)
    yield start, _body(part, event_ids, start), "application/json"


def _body(rows: Sequence[bytes], event_ids: Sequence[str] | None, start: int) -> bytes:
    named = None if event_ids is None else json.dumps(list(event_ids[start : start + len(rows)])).encode()
    return b'{"rows":[' + b",".join(rows) + b"]" + (b"" if named is None else b',"event_ids":' + named) + b"}"


def _to_json(row: Any, number: int) -> bytes:
    if not isinstance(row, Mapping):
        raise InvalidInput(f"Row {number} is no object with the view's columns.", hint="Push a list of objects.")
    members = cast("Mapping[str, Any]", row)
    # What is not a number is missing, as in a frame.
    plain = {name: None if isinstance(value, float) and value != value else value for name, value in members.items()}  # noqa: PLR0124
    try:
        return json.dumps(plain, allow_nan=False, ensure_ascii=False, default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"Row {number} has no JSON form: {error}.", hint="Push a frame or an Arrow table.") from None


def _plain(value: Any) -> JsonValue:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "item"):
        # A number of NumPy.
        return value.item()
    raise TypeError(f"a {type(value).__name__}")
