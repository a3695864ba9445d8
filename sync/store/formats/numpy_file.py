"""NumPy's .npy: a header that says what the rest is. Archives of them (.npz) are read by `zip_archive`."""

from __future__ import annotations

import ast
import re
from typing import cast

from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.formats.structure import Cursor, Tensor, Unrecognised, element_count

MAGIC = b"\x93NUMPY"
_HEADER_MAX_BYTES = 64 * 2**10
_DESCR = re.compile(r"[<>|=]?([a-zA-Z?])(\d{0,6})")
_KINDS: dict[str, Dtype] = {
    "f2": Dtype.F16,
    "f4": Dtype.F32,
    "f8": Dtype.F64,
    "c8": Dtype.F32,
    "c16": Dtype.F64,
    "i2": Dtype.INT16,
    "u2": Dtype.INT16,
    "i4": Dtype.INT32,
    "u4": Dtype.INT32,
    "i8": Dtype.INT64,
    "u8": Dtype.INT64,
    "m8": Dtype.INT64,
    "M8": Dtype.INT64,
    "i1": Dtype.INT8,
    "u1": Dtype.INT8,
    # What ml_dtypes calls bfloat16, NumPy saves as two bytes of nothing.
    "V2": Dtype.BF16,
}
_SWAPPED = {2: Dtype.INT16, 4: Dtype.INT32, 8: Dtype.INT64}


def read_npy_file(cursor: Cursor) -> list[Tensor]:
    """The one array of an .npy file.

    Raises:
        Unrecognised: as `read_npy`.
    """
    return [read_npy(cursor, "array", cursor.size)]


def read_npy(cursor: Cursor, name: str, end: int) -> Tensor:
    """The array of an .npy file that begins at the cursor and ends at `end`.

    Raises:
        Unrecognised: if it is none, or its header and its length do not agree.
    """
    if cursor.take(6) != MAGIC:
        raise Unrecognised
    major, _ = cursor.take(2)
    header_length = cursor.number(2 if major == 1 else 4)
    if major not in (1, 2, 3) or header_length > _HEADER_MAX_BYTES:
        raise Unrecognised
    header = cast("dict[str, object]", ast.literal_eval(cursor.take(header_length).decode("utf-8").strip()))
    shape, descr = cast("tuple[int, ...]", header["shape"]), header["descr"]
    length = end - cursor.position
    if type(shape) is not tuple or length < 0:
        raise Unrecognised
    dtype, width = numpy_dtype(descr) if isinstance(descr, str) else (Dtype.BYTES, 0)
    count = element_count(shape, end)
    if width and count * width != length:
        raise Unrecognised
    return Tensor(cursor.position, length, dtype, name, str(descr), shape)


def numpy_dtype(descr: str) -> tuple[Dtype, int]:
    """What NumPy's array-protocol text says of an element: how to look at it, and its width in bytes (0: unknown).

    Numbers whose highest byte comes first are taken for integers: their bytes are told apart, their signs are not.
    """
    found = _DESCR.fullmatch(descr)
    if found is None:
        return Dtype.BYTES, 0
    letter, digits = found.groups()
    width = int(digits) if digits else 1
    if letter == "U":
        return Dtype.INT32, 4 * width
    dtype = _KINDS.get(f"{letter}{width}", Dtype.BYTES)
    if descr.startswith(">"):
        dtype = _SWAPPED.get(dtype.width, dtype)
    return dtype, 0 if letter == "O" else width
