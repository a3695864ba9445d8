"""The stored form of a block as its difference to another one, version 1.

    delta = "FLD" version:u8 dtype:u8 key_bits:u8 plain_length:u32 granules:stream chunk... tail

Two blocks of equal length, bits read as integers in the order of the numbers they stand for, subtracted modulo their
range and zigzagged: a small change is a small number, whatever its sign. *Granules* of 64 elements without any change
are left out; `granules` is a bitmap of the others. What remains is sorted, stably, by the highest `key_bits` bits of
the base's elements after rotating a float's sign to the bottom: by the base's exponent, which says how large a change
is likely to be. The reader has the base, so the order costs nothing. Chunks and streams are those of a block; the
tail is what remains after whole elements, as it is.

Law: `decode_delta(encode_delta(b, base, d), base, digest=sha256(b), plain_length=len(b)) == b` for any bytes and any
dtype. Other bytes give `CorruptBlock`, never other plain bytes, and never take more memory than a small multiple of
the declared plain length and the stored bytes do.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fairlead.core.errors import CorruptBlock, InvalidInput
from fairlead.core.ids import Digest, sha256_digest
from fairlead.sync.store.codec import BLOCK_MAX_BYTES
from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.streams import Broken, choose, encode_stream, read_stream

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fairlead.sync.store.grouping import Grouping
    from fairlead.sync.store.planes import Words

    Flags = npt.NDArray[np.bool_]

DELTA_CODEC = 2
"""The codec number of this stored form in layouts and packs."""

_MAGIC = b"FLD"
_VERSION = 1
_HEADER = struct.Struct("<3sBBBI")
_DTYPE_CODES = frozenset(int(dtype) for dtype in Dtype)
_GRANULE = 64
_CHUNK_MAX_ELEMENTS = 128 * 2**10
_GROUP_MIN_ELEMENTS = 8 * 2**10
_KEY_BITS_MAX = 16
# All of the exponent; of wider floats also the first bits of the mantissa, with which the size of a change grows.
_KEY_BITS = {Dtype.BF16: 8, Dtype.F16: 6, Dtype.F32: 10, Dtype.F64: 13, Dtype.F8_E4M3: 4, Dtype.F8_E5M2: 5}


def encode_delta(plain: bytes | memoryview, base: bytes | memoryview, dtype: Dtype = Dtype.BYTES) -> bytes:
    """The stored form of 1 byte to 8 MiB as its difference to `base`, which has the same length.

    Raises:
        InvalidInput: if the lengths differ.
    """
    import numpy as np

    from fairlead.sync.store.chunks import encode_chunk
    from fairlead.sync.store.planes import words_of

    view, base_view = memoryview(plain), memoryview(base)
    if len(view) != len(base_view):
        raise InvalidInput(f"A block of {len(view)} bytes cannot be a difference to one of {len(base_view)} bytes.")
    even = len(view) - len(view) % dtype.width
    before, after = words_of(base_view[:even], dtype.width), words_of(view[:even], dtype.width)
    difference = _ordered(after, dtype)
    difference -= _ordered(before, dtype)
    zigzag = _zigzag(difference)
    changed = _changed(zigzag)
    kept = _spread(changed, len(zigzag))
    if kept is not None:
        zigzag, before = zigzag[kept], before[kept]
    key_bits = _KEY_BITS.get(dtype, 0)
    grouping = _grouping(before, dtype, key_bits)
    if grouping is not None:
        zigzag = grouping.group(zigzag)
    bitmap = np.packbits(changed, bitorder="little").data
    parts: list[bytes | memoryview] = [_HEADER.pack(_MAGIC, _VERSION, dtype, key_bits, len(view))]
    parts += encode_stream(bitmap, choose(bytes(bitmap)).coder) if even else []
    for start, end in _cut([len(zigzag)] if grouping is None else grouping.ends):
        parts += encode_chunk(zigzag[start:end], is_float=False)
    parts.append(view[even:])
    return b"".join(parts)


def decode_delta(stored: bytes | memoryview, base: bytes | memoryview, *, digest: Digest, plain_length: int) -> bytes:
    """The plain bytes of a block stored as a difference to `base`, checked against their digest.

    Raises:
        CorruptBlock: if the stored bytes are damaged, lie about their length, stand on another base, or hold other
            bytes than the digest's.
    """
    try:
        plain = decode_unchecked(memoryview(stored), memoryview(base), plain_length)
    except Broken as broken:
        raise CorruptBlock(f"The stored difference {digest} is damaged: {broken}.", block=digest) from None
    if sha256_digest(plain) != digest:
        raise CorruptBlock(f"The stored difference {digest} gives other bytes than its digest says.", block=digest)
    return plain


def decode_unchecked(stored: memoryview, base: memoryview, plain_length: int) -> bytes:
    """What `decode_delta` does but for the digest, for measuring.

    Raises:
        Broken: if the stored bytes are no difference of this length.
    """
    if len(stored) < _HEADER.size:
        raise Broken("it is shorter than its header")
    magic, version, dtype_code, key_bits, declared = _HEADER.unpack_from(stored)
    if magic != _MAGIC or version != _VERSION or dtype_code not in _DTYPE_CODES or key_bits > _KEY_BITS_MAX:
        raise Broken("its header is of no known version")
    if declared != plain_length or not 0 < declared <= BLOCK_MAX_BYTES:
        raise Broken("its header declares another length")
    if len(base) != plain_length:
        raise Broken("its base has another length")
    from fairlead.sync.store.planes import words_of

    dtype = Dtype(dtype_code)
    even = plain_length - plain_length % dtype.width
    before = words_of(base[:even], dtype.width)
    zigzag, position = _read_zigzag(stored, before, dtype, key_bits)
    tail = stored[position:]
    if len(tail) != plain_length - even:
        raise Broken("its last chunk does not end where it should")
    ordered = _ordered(before, dtype)
    ordered += _unzigzag(zigzag)
    return b"".join((_unordered(ordered, dtype).data, tail))


def _read_zigzag(stored: memoryview, before: Words, dtype: Dtype, key_bits: int) -> tuple[Words, int]:
    """The zigzagged differences in the order of the block, and where their chunks end."""
    import numpy as np

    from fairlead.sync.store.chunks import read_chunk
    from fairlead.sync.store.planes import words_of

    position, count = _HEADER.size, len(before)
    if not count:
        return before, position
    n_granules = -(-count // _GRANULE)
    bitmap, position = read_stream(stored, position, -(-n_granules // 8))
    changed = np.unpackbits(words_of(bitmap, 1), count=n_granules, bitorder="little").view(np.bool_)
    kept = _spread(changed, count)
    if kept is not None:
        before = before[kept]
    zigzag, done = np.empty_like(before), 0
    while done < len(zigzag):
        size, position = read_chunk(stored, position, zigzag[done:], is_float=False)
        done += size
    grouping = _grouping(before, dtype, key_bits)
    if grouping is not None:
        zigzag = grouping.ungroup(zigzag)
    if kept is not None:
        whole = np.zeros(count, zigzag.dtype)
        whole[kept] = zigzag
        zigzag = whole
    return zigzag, position


def _ordered(words: Words, dtype: Dtype) -> Words:
    """A copy of elements as unsigned integers that stand in the order of their numbers."""
    if not dtype.is_float:
        return words.copy()
    # The negative numbers, of which those with the larger bits come first, go below the others.
    sign = words.dtype.type(1 << (8 * words.itemsize - 1))
    ordered = words | sign
    ordered ^= _all_or_nothing(words, words.itemsize)
    return ordered


def _unordered(ordered: Words, dtype: Dtype) -> Words:
    if not dtype.is_float:
        return ordered
    sign = ordered.dtype.type(1 << (8 * ordered.itemsize - 1))
    flipped = _all_or_nothing(~ordered, ordered.itemsize)
    flipped &= ~sign
    ordered ^= flipped
    ordered ^= sign
    return ordered


def _all_or_nothing(words: Words, width: int) -> Words:
    """All bits where the highest one is set, and none elsewhere."""
    signed = words.view(f"<i{width}") >> (8 * width - 1)
    return signed.view(words.dtype)


def _zigzag(difference: Words) -> Words:
    """Small differences of either sign as small unsigned integers: 0, -1, 1, -2, 2 ..."""
    signs = _all_or_nothing(difference, difference.itemsize)
    signs ^= difference << 1
    return signs


def _unzigzag(zigzag: Words) -> Words:
    import numpy as np

    signs = zigzag & 1
    # In unsigned arithmetic 0 - 1 has all bits set.
    np.negative(signs, out=signs)
    signs ^= zigzag >> 1
    return signs


def _changed(zigzag: Words) -> Flags:
    """Which granules hold a difference that is not zero."""
    import numpy as np

    return np.logical_or.reduceat(zigzag != 0, np.arange(0, len(zigzag), _GRANULE)) if len(zigzag) else zigzag != 0


def _spread(changed: Flags, count: int) -> Flags | None:
    """Which elements are in a granule that changed, or None where all are."""
    import numpy as np

    return None if changed.all() else np.repeat(changed, _GRANULE)[:count]


def _grouping(before: Words, dtype: Dtype, key_bits: int) -> Grouping | None:
    """How the differences are sorted, or None where they stay in their order."""
    import numpy as np

    from fairlead.sync.store.grouping import Grouping
    from fairlead.sync.store.planes import rotate_left

    if not key_bits or not len(before):
        return None
    width_bits = 8 * dtype.width
    rotated = rotate_left(before) if dtype.is_float else before
    rotated = rotated >> max(0, width_bits - key_bits)
    # Sorting by one or two bytes counts them instead of comparing.
    return Grouping(rotated.astype(np.uint8 if key_bits <= 8 else np.uint16))


def _cut(ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Chunks that end where a group of equal keys does, except that small groups share one and large ones are cut."""
    start, count = 0, ends[-1] if ends else 0
    for end in ends:
        if end != count and (end - start < _GROUP_MIN_ELEMENTS or count - end < _GROUP_MIN_ELEMENTS):
            continue
        pieces = -(-(end - start) // _CHUNK_MAX_ELEMENTS)
        for piece in range(pieces):
            yield start + (end - start) * piece // pieces, start + (end - start) * (piece + 1) // pieces
        start = end
