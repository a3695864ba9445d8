"""Arrow tables that callers send: read where what they unfold to is bounded by what was sent."""

from __future__ import annotations

import struct
from typing import Annotated, Any

from fastapi import Depends, Request

from fairlead.core.errors import InvalidInput
from fairlead.featurestore.duck import ArrowTable, load_arrow

ARROW_STREAM = "application/vnd.apache.arrow.stream"
_UNFOLDED_BYTES = 1 << 30
# Places in Arrow's messages (Message.fbs): which fields hold the header, and in it the compression of its buffers.
_HEADER, _BATCH_OF_DICTIONARY, _COMPRESSION = 2, 1, 3


async def read_body(request: Request) -> bytes:
    """The bytes of a request's body; a thread reads them, for megabytes would hold up every other request."""
    return await request.body()


def read_arrow_body(body: Annotated[bytes, Depends(read_body)]) -> ArrowTable:
    """The table that a request's body holds as an Arrow IPC stream.

    Raises:
        InvalidInput: if it is not a whole and valid stream, is compressed, has more rows than bytes, or columns that
            unfold to far more than was sent.
    """
    arrow = load_arrow()
    try:
        _refuse_compressed(arrow, body)
        table = arrow.ipc.open_stream(body).read_all()
        if table.num_rows > len(body):
            raise InvalidInput(
                f"The table claims {table.num_rows} rows in {len(body)} bytes.", hint="Send rows that have columns."
            )
        table.validate(full=True)
    except (arrow.ArrowException, ValueError, OSError, struct.error):
        raise InvalidInput("The body is not an Arrow IPC stream.", hint=f"Send the rows as {ARROW_STREAM}.") from None
    for name, column in zip(table.column_names, table.columns, strict=True):
        if _unfolds(arrow, column):
            raise InvalidInput(
                f"Column {name[:80]!r} ({str(column.type)[:80]}) unfolds to far more than was sent.",
                hint="Send the values themselves, not references to them.",
            )
    return table


def _refuse_compressed(arrow: Any, body: bytes) -> None:
    # A few megabytes of zeros, compressed, would be unpacked to gigabytes before anything could count them.
    messages = arrow.ipc.MessageReader.open_stream(body)
    while True:
        try:
            message = messages.read_next_message()
        except StopIteration:
            return
        if message.type in {"record batch", "dictionary"} and _is_compressed(message):
            raise InvalidInput("The Arrow stream is compressed.", hint="Send it without compression.")


def _is_compressed(message: Any) -> bool:
    data = memoryview(message.metadata)
    batch = _table(data, _place(data, _number(data, "<I", 0), _HEADER))
    if message.type == "dictionary":
        batch = _table(data, _place(data, batch, _BATCH_OF_DICTIONARY))
    return _place(data, batch, _COMPRESSION) != 0


def _place(data: memoryview, table: int, field: int) -> int:
    """Where a flatbuffer's table keeps a field; 0 where it has none."""
    layout = table - _number(data, "<i", table)
    entry = 4 + 2 * field
    if entry >= _number(data, "<H", layout):
        return 0
    offset = _number(data, "<H", layout + entry)
    return table + offset if offset else 0


def _table(data: memoryview, place: int) -> int:
    return place + _number(data, "<I", place)


def _number(data: memoryview, form: str, place: int) -> int:
    (number,) = struct.unpack_from(form, data, place)
    return number


def _unfolds(arrow: Any, column: Any) -> bool:
    types = arrow.types
    if types.is_dictionary(column.type):
        values = column.type.value_type
        if types.is_primitive(values):
            return False
        if not (types.is_string(values) or types.is_large_string(values)):
            return True
        longest = max((_longest(arrow, chunk.dictionary) for chunk in column.chunks), default=0)
        return longest * len(column) > _UNFOLDED_BYTES
    return _has_references(types, column.type)


def _longest(arrow: Any, texts: Any) -> int:
    return arrow.compute.max(arrow.compute.binary_length(texts)).as_py() or 0


def _has_references(types: Any, kind: Any) -> bool:
    """Whether values of a type may stand for the same bytes many times."""
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return True
    if types.is_string_view(kind) or types.is_binary_view(kind) or "list_view" in str(kind):
        return True
    return any(_has_references(types, kind.field(each).type) for each in range(kind.num_fields))
