"""safetensors: a JSON header that says where each tensor is."""

from __future__ import annotations

import json
from typing import cast

from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.formats.structure import DTYPES, Cursor, Tensor, Unrecognised, element_count

_HEADER_MAX_BYTES = 16 * 2**20


def read_safetensors(cursor: Cursor) -> list[Tensor]:
    """The tensors of a safetensors file in the order of their places; they cover all that follows the header.

    Raises:
        Unrecognised: if the header lies, or there is none.
    """
    header_length = cursor.number(8)
    if not 2 <= header_length <= _HEADER_MAX_BYTES:
        raise Unrecognised
    record = cast("dict[str, dict[str, object]]", json.loads(cursor.take(header_length)))
    start = cursor.position
    tensors = [_read_tensor(name, entry, start, cursor.size) for name, entry in record.items() if name[:2] != "__"]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.length))
    position = start
    for tensor in tensors:
        if tensor.offset != position:
            raise Unrecognised
        position += tensor.length
    if position != cursor.size:
        raise Unrecognised
    return tensors


def _read_tensor(name: str, entry: dict[str, object], start: int, end: int) -> Tensor:
    first, last = cast("list[object]", entry["data_offsets"])
    shape, kind = cast("list[object]", entry["shape"]), str(entry["dtype"])
    if type(first) is not int or type(last) is not int or not 0 <= first <= last <= end - start:
        raise Unrecognised
    if type(shape) is not list:
        raise Unrecognised
    count = element_count(shape, end)
    dtype = DTYPES.get(kind)
    if dtype is not None and count * dtype.width != last - first:
        raise Unrecognised
    if dtype is None and kind == "C64":
        dtype = Dtype.F32
    return Tensor(start + first, last - first, dtype or Dtype.BYTES, name, kind, tuple(cast("list[int]", shape)))
