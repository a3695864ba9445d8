"""A reader of the Parquet files that `docs/reference/format.md` describes, with the standard library alone.

It knows flat columns in PLAIN encoding without compression or dictionary, and refuses anything else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TYPES = {1: "INT32", 2: "INT64", 5: "DOUBLE", 6: "BYTE_ARRAY"}
_PLAIN, _DATA_PAGE = 0, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFile:
    """What a file holds; `schema` has (name, physical type, logical type), in the order of `rows`."""

    metadata: dict[str, str]
    schema: list[tuple[str, str, str | None]]
    row_groups: list[int]
    codecs: set[str]
    rows: list[tuple[Any, ...]]


def read_parquet(path: Path) -> ParquetFile:
    """Read a whole file."""
    data = path.read_bytes()
    assert (data[:4], data[-4:]) == (b"PAR1", b"PAR1")
    footer = _Thrift(data, len(data) - 8 - int.from_bytes(data[-8:-4], "little")).struct()
    columns: list[dict[int, Any]] = footer[2][1:]
    chunks: list[list[dict[int, Any]]] = [[chunk[3] for chunk in group[1]] for group in footer[4]]
    rows: list[tuple[Any, ...]] = []
    for group in chunks:
        rows += zip(
            *(_read_column(data, chunk, column) for chunk, column in zip(group, columns, strict=True)), strict=True
        )
    return ParquetFile(
        metadata={pair[1].decode(): pair[2].decode() for pair in footer[5]},
        schema=[(column[4].decode(), _TYPES[column[1]], _logical(column.get(10))) for column in columns],
        row_groups=[group[3] for group in footer[4]],
        codecs={"UNCOMPRESSED" if chunk[4] == 0 else str(chunk[4]) for group in chunks for chunk in group},
        rows=rows,
    )


def _logical(union: dict[int, Any] | None) -> str | None:
    if not union:
        return None
    ((kind, members),) = union.items()
    if kind == 8:
        (unit,) = members[2]
        return f"TIMESTAMP({'UTC' if members[1] else 'local'}, {('MILLIS', 'MICROS', 'NANOS')[unit - 1]})"
    return {1: "STRING"}[kind]


def _read_column(data: bytes, chunk: dict[int, Any], column: dict[int, Any]) -> list[Any]:
    assert 11 not in chunk, "a dictionary"
    values: list[Any] = []
    position = chunk[9]
    while len(values) < chunk[5]:
        thrift = _Thrift(data, position)
        header = thrift.struct()
        page = header[5]
        assert (header[1], page[2]) == (_DATA_PAGE, _PLAIN)
        values += _read_page(data[thrift.position : thrift.position + header[3]], page[1], column)
        position = thrift.position + header[3]
    return values


def _read_page(page: bytes, count: int, column: dict[int, Any]) -> list[Any]:
    length = int.from_bytes(page[:4], "little")
    is_there = _levels(page[4 : 4 + length], count)
    position, found = 4 + length, list[Any]()
    for there in is_there:
        if not there:
            found.append(None)
        elif column[1] == 6:
            size = int.from_bytes(page[position : position + 4], "little")
            found.append(page[position + 4 : position + 4 + size])
            position += 4 + size
        else:
            form, size = {1: ("<i", 4), 2: ("<q", 8), 5: ("<d", 8)}[column[1]]
            found += struct.unpack_from(form, page, position)
            position += size
    assert position == len(page)
    return found


def _levels(data: bytes, count: int) -> list[int]:
    """Definition levels of one bit, in Parquet's hybrid of runs and packed bits."""
    thrift, levels = _Thrift(data, 0), list[int]()
    while len(levels) < count:
        header = thrift.varint()
        if header & 1:
            packed = [thrift.byte() for _ in range(header >> 1)]
            levels += [byte >> bit & 1 for byte in packed for bit in range(8)]
        else:
            levels += [thrift.byte()] * (header >> 1)
    return levels[:count]


class _Thrift:
    """Thrift's compact protocol: a struct becomes a dictionary by field number."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self.position = position

    def byte(self) -> int:
        self.position += 1
        return self._data[self.position - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 15
            fields[number] = kind == 1 if kind in {1, 2} else self._value(kind)
        return fields

    def _zigzag(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def _value(self, kind: int) -> Any:
        if kind in {1, 2}:
            return self.byte() == 1
        if kind == 3:
            return self.byte()
        if kind in {4, 5, 6}:
            return self._zigzag()
        if kind == 8:
            length = self.varint()
            self.position += length
            return self._data[self.position - length : self.position]
        if kind == 9:
            head = self.byte()
            count = self.varint() if head >> 4 == 15 else head >> 4
            return [self._value(head & 15) for _ in range(count)]
        assert kind == 12, kind
        return self.struct()
