"""Image layers whose bytes depend on nothing but paths and contents (see docs/reference/images.md).

A layer is a tar archive that is never written: it is a list of headers and of files that lie somewhere, and any range
of it can be read. It is not compressed, because then no release of a compression library decides what an image's digest
is; weights would hardly get smaller, and an image that is pulled has nothing to inflate.

Every entry belongs to user and group 0 and was changed at the beginning of 1970; entries come in the order of their
paths' bytes, each folder before what is in it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fairlead.core.errors import IntegrityError
from fairlead.core.ids import Digest

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_BLOCK = 512
_NAME_BYTES = 100
_SIZE_MAX = 8**11
_PIECE_BYTES = 2**20
_FOLDER_MODE, _FILE_MODE, _PROGRAM_MODE = 0o755, 0o644, 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFile:
    """A file of a layer: its path without a leading slash, and its bytes or where they lie."""

    path: str
    content: bytes | Path
    is_program: bool = False


class _Segment(NamedTuple):
    start: int
    length: int
    content: bytes | Path


class Layer:
    """A layer that can be read from any byte on. Its files must not change while it is used."""

    def __init__(self, files: Iterable[LayerFile]) -> None:
        """Lay the files out, and read all of them once to find the digest.

        Raises:
            IntegrityError: if a file changes meanwhile.
        """
        self._segments = tuple(_lay_out(files))
        last = self._segments[-1]
        self.size = last.start + last.length
        digest = hashlib.sha256()
        for piece in self.read():
            digest.update(piece)
        self.digest = Digest(f"sha256:{digest.hexdigest()}")

    def read(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `end` (None: the last one), in pieces of at most 1 MiB."""
        stop = self.size if end is None else end
        number = bisect_right(self._segments, start, key=lambda each: each.start) - 1
        for segment in self._segments[number:]:
            if segment.start >= stop:
                return
            low, high = max(start - segment.start, 0), min(stop - segment.start, segment.length)
            if low < high:
                yield from _read(segment, low, high)


def files_below(folder: Path, prefix: str, *, skip: Iterable[str] = ()) -> list[LayerFile]:
    """Every file below a folder as a file of a layer below `prefix`, but what lies below the paths of `skip`."""
    skipped = tuple(f"{each}/" for each in skip)
    found: list[LayerFile] = []
    for file in folder.rglob("*"):
        path = file.relative_to(folder).as_posix()
        if file.is_file() and not path.startswith(skipped):
            is_program = bool(file.stat().st_mode & 0o100)
            found.append(LayerFile(path=f"{prefix}/{path}", content=file, is_program=is_program))
    return found


def _lay_out(files: Iterable[LayerFile]) -> Iterator[_Segment]:
    by_path = {each.path: each for each in files}
    folders = {
        "/".join(parts[:count]) for path in by_path for parts in [path.split("/")] for count in range(1, len(parts))
    }
    offset = 0
    for path in sorted({*by_path, *folders}, key=str.encode):
        file = by_path.get(path)
        if file is None:
            parts: list[bytes | Path] = [_headers(f"{path}/", 0, _FOLDER_MODE, b"5")]
            size = 0
        else:
            size = len(file.content) if isinstance(file.content, bytes) else file.content.stat().st_size
            mode = _PROGRAM_MODE if file.is_program else _FILE_MODE
            parts = [_headers(path, size, mode, b"0"), file.content, bytes(-size % _BLOCK)]
        for part in parts:
            length = len(part) if isinstance(part, bytes) else size
            if length:
                yield _Segment(offset, length, part)
                offset += length
    yield _Segment(offset, 2 * _BLOCK, bytes(2 * _BLOCK))


def _headers(path: str, size: int, mode: int, kind: bytes) -> bytes:
    """The header of an entry; before it, where the header has no room for its path or size, a pax header."""
    name = path.encode()
    records = b""
    if len(name) > _NAME_BYTES or not path.isascii():
        records += _record("path", path)
    if size >= _SIZE_MAX:
        records += _record("size", str(size))
    before = b""
    if records:
        before = _header(b"././@PaxHeader", len(records), _FILE_MODE, b"x") + records + bytes(-len(records) % _BLOCK)
    plain = path.encode("ascii", "replace")[:_NAME_BYTES]
    return before + _header(plain, size if size < _SIZE_MAX else 0, mode, kind)


def _header(name: bytes, size: int, mode: int, kind: bytes) -> bytes:
    zero = b"0000000\0"
    fields = [
        name.ljust(_NAME_BYTES, b"\0"),
        b"%07o\0" % mode,
        zero,  # user
        zero,  # group
        b"%011o\0" % size,
        b"00000000000\0",  # time
        b" " * 8,  # checksum
        kind,
        bytes(100),  # link
        b"ustar\x0000",
        bytes(64),  # names of user and group
        zero,
        zero,  # device
        bytes(155 + 12),
    ]
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _record(key: str, value: str) -> bytes:
    """A pax record: its own length in decimal, counted with itself."""
    rest = f" {key}={value}\n".encode()
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _read(segment: _Segment, low: int, high: int) -> Iterator[bytes]:
    if isinstance(segment.content, bytes):
        yield segment.content[low:high]
        return
    with segment.content.open("rb") as stream:
        stream.seek(low)
        left = high - low
        while left:
            piece = stream.read(min(left, _PIECE_BYTES))
            if not piece:
                raise IntegrityError(f"The file {segment.content.name!r} of a layer became shorter meanwhile.")
            left -= len(piece)
            yield piece
