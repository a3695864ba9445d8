"""The directory of a zip archive, and the places of the members that are stored as they are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fairlead.sync.store.formats.numpy_file import MAGIC as NPY_MAGIC
from fairlead.sync.store.formats.numpy_file import read_npy
from fairlead.sync.store.formats.structure import Cursor, Tensor, Unrecognised

MAGIC = b"PK\x03\x04"
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_LOCATOR64 = b"PK\x06\x07"
_ENTRY_MAGIC = b"PK\x01\x02"
_END_BYTES = 22
_LOCATOR64_BYTES = 20
_COMMENT_MAX_BYTES = 2**16
_MEMBERS_MAX = 100_000
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_NOT_HERE = 0xFFFFFFFF
_ZIP64_EXTRA = 1
_STORED = 0
_ENCRYPTED = 1


@dataclass(frozen=True, slots=True)
class Member:
    """A stored member: its name, and the place of its bytes in the archive."""

    name: str
    offset: int
    length: int


def read_stored_members(cursor: Cursor) -> list[Member]:
    """The members of an archive that are neither compressed nor encrypted, in the order of its directory.

    Raises:
        Unrecognised: if the directory lies, or there is none.
    """
    position, count = _find_directory(cursor)
    if count > _MEMBERS_MAX:
        raise Unrecognised
    headers: list[tuple[str, int, int]] = []
    for _ in range(count):
        cursor.seek(position)
        name, header_offset, length, is_stored, position = _read_entry(cursor)
        if is_stored:
            headers.append((name, header_offset, length))
    return [_place(cursor, *header) for header in headers]


def read_arrays(cursor: Cursor, members: list[Member]) -> Iterator[Tensor]:
    """The arrays of an archive of .npy files (an .npz).

    Raises:
        Unrecognised: if one of them lies.
    """
    for member in members:
        cursor.seek(member.offset)
        if member.name.endswith(".npy") and member.length > len(NPY_MAGIC):
            yield read_npy(cursor, member.name.removesuffix(".npy"), member.offset + member.length)


def _find_directory(cursor: Cursor) -> tuple[int, int]:
    """Where the directory begins, and how many entries it has."""
    length = min(cursor.size, _END_BYTES + _COMMENT_MAX_BYTES)
    cursor.seek(cursor.size - length)
    tail = cursor.take(length)
    found = tail.rfind(_END)
    if found < 0 or found + _END_BYTES > length:
        raise Unrecognised
    count, _, offset = struct.unpack_from("<HII", tail, found + 10)
    if found < _LOCATOR64_BYTES or tail[found - _LOCATOR64_BYTES :][:4] != _LOCATOR64:
        return offset, count
    (end64,) = struct.unpack_from("<Q", tail, found - _LOCATOR64_BYTES + 8)
    cursor.seek(end64)
    if cursor.take(4) != _END64:
        raise Unrecognised
    cursor.seek(end64 + 32)
    count, _ = cursor.number(8), cursor.number(8)
    return cursor.number(8), count


def _read_entry(cursor: Cursor) -> tuple[str, int, int, bool, int]:
    fields = _ENTRY.unpack(cursor.take(_ENTRY.size))
    magic, flags, method = fields[0], fields[3], fields[4]
    packed, plain = fields[8], fields[9]
    name_length, extra_length, comment_length, header_offset = fields[10], fields[11], fields[12], fields[16]
    if magic != _ENTRY_MAGIC:
        raise Unrecognised
    name = cursor.take(name_length).decode("utf-8", "replace")
    extra = cursor.take(extra_length)
    plain, packed, header_offset = _from_extra(extra, plain, packed, header_offset)
    is_stored = method == _STORED and not flags & _ENCRYPTED and plain == packed
    return name, header_offset, plain, is_stored, cursor.position + comment_length


def _from_extra(extra: bytes, *numbers: int) -> list[int]:
    """The numbers that did not fit into 32 bits, from the ZIP64 part of an entry's extra field."""
    found = list(numbers)
    position = 0
    while _NOT_HERE in found and position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind == _ZIP64_EXTRA:
            longs = [number for (number,) in struct.iter_unpack("<Q", extra[position + 4 :][: length // 8 * 8])]
            return [longs.pop(0) if number == _NOT_HERE and longs else number for number in found]
        position += 4 + length
    return found


def _place(cursor: Cursor, name: str, header_offset: int, length: int) -> Member:
    cursor.seek(header_offset)
    fields = _LOCAL.unpack(cursor.take(_LOCAL.size))
    if fields[0] != MAGIC:
        raise Unrecognised
    cursor.skip(fields[9] + fields[10])
    offset = cursor.position
    cursor.skip(length)
    return Member(name, offset, length)
