"""Parquet: the pages of every column, found from the footer and their own headers (Thrift's compact protocol)."""

from __future__ import annotations

from typing import cast

from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.formats.structure import Cursor, Tensor, Unrecognised, if_mostly

MAGIC = b"PAR1"
_FOOTER_END_BYTES = 8
_NESTING_MAX = 16
_UNCOMPRESSED = 0
_PLAIN = 0
_PHYSICAL: dict[int, tuple[str, Dtype]] = {
    1: ("INT32", Dtype.INT32),
    2: ("INT64", Dtype.INT64),
    4: ("FLOAT", Dtype.F32),
    5: ("DOUBLE", Dtype.F64),
}
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_VARINTS = (4, 5, 6)

Fields = dict[int, object]


def read_parquet(cursor: Cursor) -> list[Tensor]:
    """The pages of plain numbers that are not compressed, in the order of their places.

    A page begins where its first whole number does, counted from its end. There are none where most of the file is
    something else.

    Raises:
        Unrecognised: if the file is none, or its footer lies.
    """
    cursor.seek(max(0, cursor.size - _FOOTER_END_BYTES))
    footer_length, magic = cursor.number(4), cursor.take(4)
    if magic != MAGIC:
        raise Unrecognised
    cursor.seek(cursor.size - _FOOTER_END_BYTES - footer_length)
    pages: list[Tensor] = []
    for group, row_group in enumerate(_structs(_read_struct(cursor).get(4))):
        for column, chunk in enumerate(_structs(row_group.get(1))):
            pages.extend(_read_pages(cursor, cast("Fields", chunk[3]), f"column {column}.{group}"))
    return if_mostly(pages, cursor.size)


def _read_pages(cursor: Cursor, column: Fields, name: str) -> list[Tensor]:
    position = _number(column.get(11) or column[9])
    end = position + _number(column[7])
    kind, dtype = _PHYSICAL.get(_number(column[1]), ("", Dtype.BYTES))
    if not kind or column[4] != _UNCOMPRESSED:
        return []
    pages: list[Tensor] = []
    while position < end:
        cursor.seek(position)
        header = _read_struct(cursor)
        length = _number(header[3])
        about = cast("Fields", header.get(5) or header.get(7) or header.get(8) or {})
        position = cursor.position + length
        if about.get(4 if 8 in header else 2) == _PLAIN:
            whole = length - length % dtype.width
            shape = (_number(about.get(1, 0)),)
            pages.append(Tensor(position - whole, whole, dtype, f"{name}.{len(pages)}", kind, shape))
    if position != end:
        raise Unrecognised
    return pages


def _structs(value: object) -> list[Fields]:
    return cast("list[Fields]", value) if isinstance(value, list) else []


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise Unrecognised
    return value


def _read_struct(cursor: Cursor, nesting: int = 0) -> Fields:
    fields: Fields = {}
    number = 0
    while (head := cursor.number(1)) != 0:
        step, kind = head >> 4, head & 15
        number = number + step if step else _zigzag(cursor.varint())
        fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else _read_value(cursor, kind, nesting)
    return fields


def _read_value(cursor: Cursor, kind: int, nesting: int) -> object:
    if nesting > _NESTING_MAX:
        raise Unrecognised
    if kind in _VARINTS:
        return _zigzag(cursor.varint())
    if kind == _STRUCT:
        return _read_struct(cursor, nesting + 1)
    if kind in (_LIST, _SET):
        head = cursor.number(1)
        count = head >> 4 if head >> 4 != 15 else cursor.varint()
        inner = head & 15
        return [_read_value(cursor, _BYTE if inner == _TRUE else inner, nesting + 1) for _ in range(count)]
    # Texts and doubles say nothing about places, and there are no maps in a footer.
    if kind == _BINARY:
        cursor.skip(cursor.varint())
    elif kind in (_BYTE, _FALSE, _DOUBLE):
        cursor.skip(8 if kind == _DOUBLE else 1)
    else:
        raise Unrecognised
    return None


def _zigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)
