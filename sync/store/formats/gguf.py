"""GGUF: metadata, then a directory of tensors, then their data at aligned places."""

from __future__ import annotations

from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.formats.structure import Cursor, Tensor, Unrecognised, element_count

MAGIC = b"GGUF"
_TENSORS_MAX = 1_000_000
_NAME_MAX_BYTES = 64 * 2**10
_NESTING_MAX = 4
_DEFAULT_ALIGNMENT = 32
_UINT32, _STRING, _ARRAY = 4, 8, 9
_VALUE_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
# Tensor type: its name, how to look at it, and the elements and bytes of one of its blocks.
_TYPES: dict[int, tuple[str, Dtype, int, int]] = {
    0: ("F32", Dtype.F32, 1, 4),
    1: ("F16", Dtype.F16, 1, 2),
    2: ("Q4_0", Dtype.BYTES, 32, 18),
    3: ("Q4_1", Dtype.BYTES, 32, 20),
    6: ("Q5_0", Dtype.BYTES, 32, 22),
    7: ("Q5_1", Dtype.BYTES, 32, 24),
    8: ("Q8_0", Dtype.BYTES, 32, 34),
    9: ("Q8_1", Dtype.BYTES, 32, 36),
    10: ("Q2_K", Dtype.BYTES, 256, 84),
    11: ("Q3_K", Dtype.BYTES, 256, 110),
    12: ("Q4_K", Dtype.BYTES, 256, 144),
    13: ("Q5_K", Dtype.BYTES, 256, 176),
    14: ("Q6_K", Dtype.BYTES, 256, 210),
    15: ("Q8_K", Dtype.BYTES, 256, 292),
    24: ("I8", Dtype.INT8, 1, 1),
    25: ("I16", Dtype.INT16, 1, 2),
    26: ("I32", Dtype.INT32, 1, 4),
    27: ("I64", Dtype.INT64, 1, 8),
    28: ("F64", Dtype.F64, 1, 8),
    30: ("BF16", Dtype.BF16, 1, 2),
}


def read_gguf(cursor: Cursor) -> list[Tensor]:
    """The tensors of a little-endian GGUF file of version 2 or 3, in the order of their places.

    A tensor of a type that is not known here is taken to end where the next one begins.

    Raises:
        Unrecognised: if it is none, or its directory lies.
    """
    if cursor.take(4) != MAGIC or cursor.number(4) not in (2, 3):
        raise Unrecognised
    tensor_count, entry_count = cursor.number(8), cursor.number(8)
    alignment = _DEFAULT_ALIGNMENT
    if tensor_count > _TENSORS_MAX:
        raise Unrecognised
    for _ in range(entry_count):
        key, kind = _text(cursor), cursor.number(4)
        if key == "general.alignment" and kind == _UINT32:
            alignment = cursor.number(4)
        else:
            _skip_value(cursor, kind)
    directory = [_read_entry(cursor) for _ in range(tensor_count)]
    if not 0 < alignment <= 2**20:
        raise Unrecognised
    start = -(-cursor.position // alignment) * alignment
    directory.sort(key=lambda entry: entry[3])
    ends = [*(entry[3] for entry in directory[1:]), cursor.size - start]
    return [_place(entry, start, end, cursor.size) for entry, end in zip(directory, ends, strict=False)]


def _read_entry(cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, dimensions = _text(cursor), cursor.number(4)
    if dimensions > 8:
        raise Unrecognised
    shape = tuple(cursor.number(8) for _ in range(dimensions))
    return name, shape, cursor.number(4), cursor.number(8)


def _place(entry: tuple[str, tuple[int, ...], int, int], start: int, end: int, size: int) -> Tensor:
    name, shape, kind, offset = entry
    known = _TYPES.get(kind)
    if known is None:
        return Tensor(start + offset, end - offset, Dtype.BYTES, name, f"type {kind}", shape)
    word, dtype, elements, block_bytes = known
    count = element_count(shape, size * 8)
    if count % elements or start + offset + count // elements * block_bytes > size:
        raise Unrecognised
    return Tensor(start + offset, count // elements * block_bytes, dtype, name, word, shape)


def _text(cursor: Cursor) -> str:
    length = cursor.number(8)
    if length > _NAME_MAX_BYTES:
        raise Unrecognised
    return cursor.take(length).decode("utf-8", "replace")


def _skip_value(cursor: Cursor, kind: int, nesting: int = 0) -> None:
    if kind == _STRING:
        cursor.skip(cursor.number(8))
    elif kind == _ARRAY:
        inner, count = cursor.number(4), cursor.number(8)
        if nesting > _NESTING_MAX:
            raise Unrecognised
        if inner in _VALUE_WIDTHS:
            cursor.skip(_VALUE_WIDTHS[inner] * count)
        else:
            for _ in range(count):
                _skip_value(cursor, inner, nesting + 1)
    elif kind in _VALUE_WIDTHS:
        cursor.skip(_VALUE_WIDTHS[kind])
    else:
        raise Unrecognised
