"""The stored form of a block as its difference to another one, version 1.

    delta = "FLD" version:u8 dtype:u8 order:u8 plain_length:u32 chunk...

The difference of two blocks of equal length: bits as integers in the order of the numbers they stand for, subtracted
modulo their range, zigzagged, and stored in chunks like those of a block. With `order` 1, elements are grouped by the
exponent of the base first: the reader has the base, so the permutation costs nothing.

Law: `decode_delta(encode_delta(b, base, d), base, digest=sha256(b), plain_length=len(b)) == b` for any bytes and any
dtype. Other bytes give `CorruptBlock`, never other plain bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from fairlead.core.errors import CorruptBlock, InvalidInput
from fairlead.core.ids import Digest, sha256_digest
from fairlead.sync.store import codec
from fairlead.sync.store.dtype import Dtype

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Words = npt.NDArray[np.unsignedinteger]

DELTA_CODEC = 2
"""The codec number of this stored form in layouts and packs."""

_MAGIC = b"FLD"
_VERSION = 1
_HEADER = struct.Struct("<3sBBBI")
_AS_THEY_ARE, _GROUPED = 0, 1
_WORDS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_INTEGERS = {1: Dtype.BYTES, 2: Dtype.INT16, 4: Dtype.INT32, 8: Dtype.INT64}


def encode_delta(plain: bytes | memoryview, base: bytes | memoryview, dtype: Dtype = Dtype.BYTES) -> bytes:
    """The stored form of 1 byte to 8 MiB as its difference to `base`, which has the same length.

    Raises:
        InvalidInput: if the lengths differ.
    """
    view, base_view = memoryview(plain), memoryview(base)
    if len(view) != len(base_view):
        raise InvalidInput(f"A block of {len(view)} bytes cannot be a difference to one of {len(base_view)} bytes.")
    body, order = _difference(view, base_view, dtype)
    stored = codec.encode_block(body, _INTEGERS[dtype.width])
    return _HEADER.pack(_MAGIC, _VERSION, dtype, order, len(view)) + stored


def decode_delta(
    stored: bytes | memoryview, base: bytes | memoryview, *, digest: Digest, plain_length: int
) -> bytes:
    """The plain bytes of a block stored as a difference to `base`, checked against their digest.

    Raises:
        CorruptBlock: if the stored bytes are damaged, lie about their length, stand on another base, or hold other
            bytes than the digest's.
    """
    view = memoryview(stored)
    try:
        plain = _decode(view, memoryview(base), plain_length)
    except codec._Broken as broken:
        raise CorruptBlock(f"The stored difference {digest} is damaged: {broken}.", block=digest) from None
    if sha256_digest(plain) != digest:
        raise CorruptBlock(f"The stored difference {digest} gives other bytes than its digest says.", block=digest)
    return plain


def _decode(stored: memoryview, base: memoryview, plain_length: int) -> bytes:
    if len(stored) < _HEADER.size:
        raise codec._Broken("it is shorter than its header")
    magic, version, dtype_code, order, declared = _HEADER.unpack_from(stored)
    if magic != _MAGIC or version != _VERSION or dtype_code not in iter(Dtype) or order not in (0, 1):
        raise codec._Broken("its header is of no known version")
    if declared != plain_length or len(base) != plain_length:
        raise codec._Broken("its header or its base is of another length")
    body = codec._decode(stored[_HEADER.size :], plain_length)
    return _apply(memoryview(body), base, Dtype(dtype_code), is_grouped=order == _GROUPED)


def _difference(plain: memoryview, base: memoryview, dtype: Dtype) -> tuple[bytes, int]:
    import numpy as np

    even = len(plain) - len(plain) % dtype.width
    before, after = _ordered(base[:even], dtype), _ordered(plain[:even], dtype)
    zigzag = _zigzag(after - before, dtype)
    order = _AS_THEY_ARE
    if dtype.is_float and dtype.width > 1:
        zigzag = zigzag[_grouping(base[:even], dtype)]
        order = _GROUPED
    tail = (np.frombuffer(plain[even:], "u1") - np.frombuffer(base[even:], "u1")).tobytes()
    return zigzag.tobytes() + tail, order


def _apply(body: memoryview, base: memoryview, dtype: Dtype, *, is_grouped: bool) -> bytes:
    import numpy as np

    even = len(base) - len(base) % dtype.width
    zigzag = np.frombuffer(body[:even], _WORDS[dtype.width])
    if is_grouped:
        scattered = np.empty_like(zigzag)
        scattered[_grouping(base[:even], dtype)] = zigzag
        zigzag = scattered
    ordered = _ordered(base[:even], dtype) + _unzigzag(zigzag, dtype)
    plain = _unordered(ordered, dtype).tobytes()
    return plain + (np.frombuffer(body[even:], "u1") + np.frombuffer(base[even:], "u1")).tobytes()


def _ordered(plain: memoryview, dtype: Dtype) -> Words:
    """Elements as unsigned integers that stand in the order of their numbers."""
    import numpy as np

    words: Words = np.frombuffer(plain, _WORDS[dtype.width])
    if not dtype.is_float:
        return words
    bits = 8 * dtype.width
    sign = words.dtype.type(1 << (bits - 1))
    # The lower half holds the negative numbers, the larger ones of which come first.
    return np.where(words & sign, ~words, words | sign)


def _unordered(ordered: Words, dtype: Dtype) -> Words:
    import numpy as np

    if not dtype.is_float:
        return ordered
    sign = ordered.dtype.type(1 << (8 * dtype.width - 1))
    return np.where(ordered & sign, ordered ^ sign, ~ordered)


def _zigzag(difference: Words, dtype: Dtype) -> Words:
    """Small differences of either sign as small unsigned integers: 0, -1, 1, -2, 2 ..."""
    import numpy as np

    signed = difference.view(difference.dtype.str.replace("u", "i"))
    return (difference << 1) ^ (signed >> (8 * dtype.width - 1)).view(difference.dtype)


def _unzigzag(zigzag: Words, dtype: Dtype) -> Words:
    return (zigzag >> 1) ^ (~(zigzag & 1) + zigzag.dtype.type(1))


def _grouping(base: memoryview, dtype: Dtype) -> npt.NDArray[np.intp]:
    """The places of the base's elements in order of their exponents, equal ones in the order they have."""
    import numpy as np

    words = np.frombuffer(base, _WORDS[dtype.width])
    top = (words >> (8 * dtype.width - 9)).astype("u1")
    return np.argsort(top, kind="stable")
