"""ONNX: protocol-buffer messages, walked by their wire format alone to the raw data of constants and initializers."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.formats.structure import Cursor, Tensor, Unrecognised

FIRST_BYTE = b"\x08"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NESTING_MAX = 16
# Below this, a node's attributes are not worth a look.
_NODE_LEAST_BYTES = 4 * 2**10
_NAME_MAX_BYTES = 64 * 2**10
_FIELD_NUMBER_MAX = 100

# Which fields of a message hold which messages, as far as they lead to tensors.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_DIMS, _DATA_TYPE, _NAME = 1, 2, 8
# Fields of a tensor that hold its elements: raw, and packed numbers of a fixed width.
_ELEMENTS: dict[int, Dtype | None] = {9: None, 4: Dtype.F32, 10: Dtype.F64}
_DATA_TYPES: dict[int, tuple[str, Dtype]] = {
    1: ("F32", Dtype.F32),
    2: ("U8", Dtype.INT8),
    3: ("I8", Dtype.INT8),
    4: ("U16", Dtype.INT16),
    5: ("I16", Dtype.INT16),
    6: ("I32", Dtype.INT32),
    7: ("I64", Dtype.INT64),
    10: ("F16", Dtype.F16),
    11: ("F64", Dtype.F64),
    12: ("U32", Dtype.INT32),
    13: ("U64", Dtype.INT64),
    14: ("C64", Dtype.F32),
    15: ("C128", Dtype.F64),
    16: ("BF16", Dtype.BF16),
    17: ("F8_E4M3", Dtype.F8_E4M3),
    19: ("F8_E5M2", Dtype.F8_E5M2),
}


def read_onnx(cursor: Cursor) -> list[Tensor]:
    """The tensors whose elements stand in the file, in the order of their places.

    Raises:
        Unrecognised: if the file is not a sequence of protocol-buffer fields from end to end, or has no graph.
    """
    tensors: list[Tensor] = []
    pending: list[tuple[str, int, int, int]] = [("model", 0, cursor.size, 0)]
    has_graph = False
    while pending:
        message, start, end, nesting = pending.pop()
        if message == "tensor":
            tensors.extend(_read_tensor(cursor, start, end, len(tensors)))
            continue
        children = _CHILDREN[message]
        for number, wire, at, length in _fields(cursor, start, end):
            child = children.get(number)
            if child is None or wire != _BYTES or (child == "node" and length < _NODE_LEAST_BYTES):
                continue
            if nesting > _NESTING_MAX:
                raise Unrecognised
            has_graph = has_graph or child == "graph"
            pending.append((child, at, at + length, nesting + 1))
    if not has_graph:
        raise Unrecognised
    return sorted(tensors, key=lambda tensor: tensor.offset)


def _read_tensor(cursor: Cursor, start: int, end: int, count: int) -> Iterator[Tensor]:
    shape: list[int] = []
    name, kind, dtype = f"tensor {count}", "?", Dtype.BYTES
    data: list[tuple[int, int, int]] = []
    for number, wire, at, length in _fields(cursor, start, end):
        if number == _DIMS and wire == _VARINT:
            shape.append(length)
        elif number == _DATA_TYPE and wire == _VARINT:
            kind, dtype = _DATA_TYPES.get(length, (f"type {length}", Dtype.BYTES))
        elif number == _NAME and wire == _BYTES and length <= _NAME_MAX_BYTES:
            name = _peek(cursor, at, length).decode("utf-8", "replace")
        elif number in _ELEMENTS and wire == _BYTES:
            data.append((number, at, length))
        elif number == _DIMS and wire == _BYTES:
            shape.extend(_packed(cursor, at, length))
    for number, at, length in data:
        yield Tensor(at, length, _ELEMENTS[number] or dtype, name, kind, tuple(shape))


def _fields(cursor: Cursor, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message: number, wire type, place, and length (or the value, where it is a varint)."""
    position = start
    while position < end:
        cursor.seek(position)
        key = cursor.varint()
        number, wire = key >> 3, key & 7
        if not 0 < number <= _FIELD_NUMBER_MAX:
            raise Unrecognised
        if wire == _VARINT:
            length, at = cursor.varint(), cursor.position
            position = at
        elif wire == _BYTES:
            length, at = cursor.varint(), cursor.position
            position = at + length
        elif wire in (_FIXED64, _FIXED32):
            length, at = 8 if wire == _FIXED64 else 4, cursor.position
            position = at + length
        else:
            raise Unrecognised
        if position > end:
            raise Unrecognised
        yield number, wire, at, length


def _packed(cursor: Cursor, start: int, length: int) -> Iterator[int]:
    cursor.seek(start)
    while cursor.position < start + length:
        yield cursor.varint()


def _peek(cursor: Cursor, start: int, length: int) -> bytes:
    cursor.seek(start)
    return cursor.take(length)
