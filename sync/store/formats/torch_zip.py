"""PyTorch's zip archives: storages as stored members, and a pickle that says what they are."""

from __future__ import annotations

import re
from typing import cast

from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.formats.guess import guess_dtype
from fairlead.sync.store.formats.pickle_stream import Global, Node, iter_nodes, read_pickle
from fairlead.sync.store.formats.structure import Cursor, Tensor, Unrecognised
from fairlead.sync.store.formats.zip_archive import Member

_STORAGE = re.compile(r"(?:.*/)?data/(\d{1,9})")
_GUESS_BYTES = 64 * 2**10
_STORAGE_DTYPES: dict[str, Dtype] = {
    "DoubleStorage": Dtype.F64,
    "FloatStorage": Dtype.F32,
    "HalfStorage": Dtype.F16,
    "BFloat16Storage": Dtype.BF16,
    "LongStorage": Dtype.INT64,
    "IntStorage": Dtype.INT32,
    "ShortStorage": Dtype.INT16,
    "CharStorage": Dtype.INT8,
    "ByteStorage": Dtype.BYTES,
    "BoolStorage": Dtype.BYTES,
    "ComplexFloatStorage": Dtype.F32,
    "ComplexDoubleStorage": Dtype.F64,
    "QInt8Storage": Dtype.INT8,
    "QUInt8Storage": Dtype.BYTES,
    "QInt32Storage": Dtype.INT32,
}
# `_rebuild_tensor_v3` names the dtype of a storage without one.
_DTYPES: dict[str, Dtype] = {
    "float64": Dtype.F64,
    "float32": Dtype.F32,
    "float16": Dtype.F16,
    "bfloat16": Dtype.BF16,
    "float8_e4m3fn": Dtype.F8_E4M3,
    "float8_e4m3fnuz": Dtype.F8_E4M3,
    "float8_e5m2": Dtype.F8_E5M2,
    "float8_e5m2fnuz": Dtype.F8_E5M2,
    "uint64": Dtype.INT64,
    "uint32": Dtype.INT32,
    "uint16": Dtype.INT16,
}


def find_storages(members: list[Member]) -> dict[str, Member]:
    """The members that are storages, by their keys."""
    found: dict[str, Member] = {}
    for member in members:
        match = _STORAGE.fullmatch(member.name)
        if match and member.length:
            found[match[1]] = member
    return found


def read_storages(cursor: Cursor, members: list[Member], storages: dict[str, Member]) -> list[Tensor]:
    """The storages of an archive; where its pickle does not tell what one is, a sample of it does."""
    pickled = next((member for member in members if member.name.rpartition("/")[2] == "data.pkl"), None)
    described: dict[str, Tensor] = {}
    if pickled is not None:
        cursor.seek(pickled.offset)
        try:
            described = _described(read_pickle(cursor), storages)
        except (Unrecognised, ValueError, TypeError, IndexError, OverflowError):
            described = {}
    return [described.get(key) or _guessed(cursor, key, member) for key, member in storages.items()]


def _described(root: object, storages: dict[str, Member]) -> dict[str, Tensor]:
    """Storages by key, each called after the first tensor that stands on it."""
    found: dict[str, Tensor] = {}
    for name, node in iter_nodes(root):
        if not node.is_call("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_tensor_v3"):
            continue
        arguments = list(cast("tuple[object, ...]", node.arguments)) if isinstance(node.arguments, tuple) else []
        storage = _storage(arguments[0]) if len(arguments) >= 3 else None
        if storage is None or storage[1] in found or storage[1] not in storages:
            continue
        kind, key = storage
        dtype = _STORAGE_DTYPES.get(kind, Dtype.BYTES)
        if len(arguments) >= 7 and isinstance(arguments[6], Global):
            kind = arguments[6].name
            dtype = _DTYPES.get(kind, Dtype.BYTES)
        shape = cast("tuple[int, ...]", arguments[2]) if isinstance(arguments[2], tuple) else ()
        if not all(type(length) is int for length in shape):
            shape = ()
        member = storages[key]
        found[key] = Tensor(member.offset, member.length, dtype, name, kind, shape)
    return found


def _storage(value: object) -> tuple[str, str] | None:
    """The type and key of a storage, from its persistent id `("storage", type, key, place, count)`."""
    if not isinstance(value, Node) or not value.is_call("persistent") or not isinstance(value.arguments, tuple):
        return None
    fields = list(cast("tuple[object, ...]", value.arguments))
    if len(fields) < 3 or fields[0] != "storage":
        return None
    kind, key = fields[1:3]
    return (kind.name, key) if isinstance(kind, Global) and isinstance(key, str) else None


def _guessed(cursor: Cursor, key: str, member: Member) -> Tensor:
    cursor.seek(member.offset)
    dtype, phase = guess_dtype(memoryview(cursor.take(min(member.length, _GUESS_BYTES))))
    return Tensor(
        member.offset, member.length, Dtype.BYTES if phase else dtype, f"storage {key}", "?", (member.length,)
    )
