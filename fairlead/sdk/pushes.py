"""Pushing features: rows of a stream, in requests of a bounded size, each of which may be repeated at will."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from fairlead.core.errors import InvalidInput, JsonValue, MissingExtra
from fairlead.core.ids import parse_name

if TYPE_CHECKING:
    from fairlead.sdk.transport import JsonObject, Transport

ARROW_STREAM = "application/vnd.apache.arrow.stream"
ROWS_AT_ONCE = 20_000


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
    for body, content in _requests(rows, event_ids):
        if content is None:
            answer: Any = transport.request("POST", path, query=query, body=body)
        else:
            answer = transport.send("POST", path, query=query, content=content, content_type=ARROW_STREAM).json()
        for view in answer["views"]:
            found[view["view"]] = _add(found.get(view["view"]), view, answer["region"])
    return list(found.values())


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


def _requests(rows: Any, event_ids: Sequence[str] | None) -> Iterator[tuple[JsonObject, bytes | None]]:
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        for body in _json_requests(cast("Sequence[Mapping[str, Any]]", rows), event_ids):
            yield body, None
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
    for start in range(0, max(1, table.num_rows), ROWS_AT_ONCE):
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(start, ROWS_AT_ONCE))
        yield {}, sink.getvalue().to_pybytes()


def _json_requests(rows: Sequence[Mapping[str, Any]], event_ids: Sequence[str] | None) -> Iterator[JsonObject]:
    if event_ids is not None and len(event_ids) != len(rows):
        raise InvalidInput(f"There are {len(event_ids)} event ids for {len(rows)} rows.")
    for start in range(0, max(1, len(rows)), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        body: JsonObject = {"rows": [{name: _plain(value) for name, value in row.items()} for row in part]}
        if event_ids is not None:
            body["event_ids"] = list(event_ids[start : start + ROWS_AT_ONCE])
        yield body


def _plain(value: Any) -> JsonValue:
    if isinstance(value, datetime):
        return value.isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
