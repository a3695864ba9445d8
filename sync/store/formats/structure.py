"""What the readers of file formats share: the tensor they find, and a cursor with limits of its own.

A reader looks at headers and directories only. It takes nothing of what it reads on trust: whatever does not fit
raises `Unrecognised`, and the file is then one of opaque bytes. How a file is recognised never changes what is stored,
only where it is cut and how small it gets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from fairlead.sync.store.dtype import Dtype

DTYPES: dict[str, Dtype] = {
    "BOOL": Dtype.BYTES,
    "U8": Dtype.BYTES,
    "I8": Dtype.INT8,
    "F8_E4M3": Dtype.F8_E4M3,
    "F8_E5M2": Dtype.F8_E5M2,
    "F16": Dtype.F16,
    "BF16": Dtype.BF16,
    "F32": Dtype.F32,
    "F64": Dtype.F64,
    "I16": Dtype.INT16,
    "U16": Dtype.INT16,
    "I32": Dtype.INT32,
    "U32": Dtype.INT32,
    "I64": Dtype.INT64,
    "U64": Dtype.INT64,
}
"""The kinds of element that are numbers of whole bytes, by the names that safetensors gives them."""

_STEPS_MAX = 2_000_000
_READ_MAX_BYTES = 512 * 2**20
_TAKE_MAX_BYTES = 64 * 2**20
_NEAR_BYTES = 4 * 2**10
_AHEAD_BYTES = 64 * 2**10


class Unrecognised(Exception):
    """The file is not of the format, or says something that cannot be."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A run of equal elements in a file: where it is in bytes, what it is called there, and what it holds.

    `kind` is the format's own word for an element; two versions of a tensor are told by name, kind and shape.
    """

    offset: int
    length: int
    dtype: Dtype
    name: str
    kind: str
    shape: tuple[int, ...]


class Cursor:
    """A place in a seekable stream of `size` bytes, read through a small window.

    All steps and all bytes read are counted: a file that asks for too many is not recognised, however large it is.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.size = size
        self.position = 0
        self._stream = stream
        self._window = b""
        self._window_start = 0
        self._steps_left = _STEPS_MAX
        self._bytes_left = _READ_MAX_BYTES

    def seek(self, position: int) -> None:
        """Go to a place in the file.

        Raises:
            Unrecognised: if it is outside, or too many steps were taken.
        """
        self._steps_left -= 1
        if not 0 <= position <= self.size or self._steps_left < 0:
            raise Unrecognised
        self.position = position

    def skip(self, count: int) -> None:
        """Pass over `count` bytes; as `seek`."""
        if count < 0:
            raise Unrecognised
        self.seek(self.position + count)

    def take(self, count: int) -> bytes:
        """Read exactly `count` bytes.

        Raises:
            Unrecognised: if the file ends before, or more was read than any file's structure needs.
        """
        start = self.position
        self.seek(start + count)
        if count < 0 or count > _TAKE_MAX_BYTES:
            raise Unrecognised
        begin = start - self._window_start
        if not 0 <= begin <= begin + count <= len(self._window):
            self._load(start, count)
            begin = 0
        return self._window[begin : begin + count]

    def number(self, width: int) -> int:
        """An unsigned little-endian number of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def varint(self) -> int:
        """The next number of seven bits a byte, the lowest first; at most ten bytes."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise Unrecognised

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """The numbers of a fixed record."""
        return layout.unpack(self.take(layout.size))

    def _load(self, start: int, count: int) -> None:
        # Who goes on where the window ends is reading a directory; who jumped wants a few bytes.
        is_next = start <= self._window_start + len(self._window) and start >= self._window_start
        wanted = min(max(count, _AHEAD_BYTES if is_next else _NEAR_BYTES), self.size - start)
        self._bytes_left -= wanted
        if self._bytes_left < 0:
            raise Unrecognised
        self._stream.seek(start)
        self._window, self._window_start = self._stream.read(wanted), start
        if len(self._window) < count:
            raise Unrecognised


def element_count(shape: Sequence[object], limit: int) -> int:
    """How many elements an array of this shape has.

    Raises:
        Unrecognised: if a length is no number of elements, or there are more than `limit`.
    """
    count = 1
    if any(type(length) is not int or not 0 <= length <= limit for length in shape):
        raise Unrecognised
    if 0 in shape:
        return 0
    # Not one product of all: a header may hold millions of lengths.
    for length in cast("Sequence[int]", shape):
        count *= length
        if count > limit:
            raise Unrecognised
    return count


def if_mostly(tensors: Iterable[Tensor], size: int) -> list[Tensor]:
    """These tensors in the order of their places, or none where most of a file of `size` bytes is something else.

    What is no tensor squeezes better in the larger pieces that are cut by content.
    """
    found = sorted(tensors, key=lambda tensor: tensor.offset)
    return found if sum(tensor.length for tensor in found) * 2 >= size else []
