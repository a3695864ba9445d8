"""The stored form of a block, version 1.

    block = "FLB" version:u8 dtype:u8 plain_length:u32 chunk... tail

The chunks hold as many whole elements of the dtype as there are, the tail the bytes that remain. Numbers are
little-endian. See `chunks` and `streams` for what those are.

Law: `decode_block(encode_block(b, d), digest=sha256(b), plain_length=len(b)) == b` for any bytes and any dtype. Other
bytes give `CorruptBlock`, never other plain bytes, and never take more memory than a small multiple of the declared
plain length and the stored bytes do.
"""

from __future__ import annotations

import struct

from fairlead.core.errors import CorruptBlock
from fairlead.core.ids import Digest, sha256_digest
from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.streams import STREAM, Broken

BLOCK_MAX_BYTES = 8 * 2**20
"""The most plain bytes of one block."""

STORED_MAX_BYTES = BLOCK_MAX_BYTES + 64 * 2**10
"""The most bytes that a block takes in its stored form."""

CODEC = 1
"""The codec number of this stored form in layouts and packs."""

_CHUNK_BYTES = 256 * 2**10
_DTYPE_CODES = frozenset(int(dtype) for dtype in Dtype)
_MAGIC = b"FLB"
_VERSION = 1
_HEADER = struct.Struct("<3sBBI")
_AS_IS_CHUNK = struct.Struct("<BI")

AS_IS_BYTES = _HEADER.size + _AS_IS_CHUNK.size + STREAM.size
"""What `store_as_is` adds to a block's plain bytes."""


def encode_block(plain: bytes | memoryview, dtype: Dtype = Dtype.BYTES) -> bytes:
    """The stored form of 1 byte to 8 MiB. The same bytes may be stored differently by another release."""
    from fairlead.sync.store.chunks import encode_chunk
    from fairlead.sync.store.planes import words_of

    view = memoryview(plain)
    even = len(view) - len(view) % dtype.width
    words = words_of(view[:even], dtype.width)
    parts: list[bytes | memoryview] = [_HEADER.pack(_MAGIC, _VERSION, dtype, len(view))]
    step = _CHUNK_BYTES // dtype.width
    for start in range(0, len(words), step):
        parts += encode_chunk(words[start : start + step], is_float=dtype.is_float)
    parts.append(view[even:])
    return b"".join(parts)


def store_as_is(plain: bytes) -> bytes:
    """The stored form that holds 1 byte to 8 MiB as they are, for what is stored nowhere."""
    head = _HEADER.pack(_MAGIC, _VERSION, Dtype.BYTES, len(plain)) + _AS_IS_CHUNK.pack(0, len(plain))
    return b"".join((head, STREAM.pack(0, len(plain)), plain))


def decode_block(stored: bytes | memoryview, *, digest: Digest, plain_length: int) -> bytes:
    """The plain bytes of a stored block, checked against their digest.

    Raises:
        CorruptBlock: if the stored bytes are damaged, lie about their length, or hold other bytes than the digest's.
    """
    try:
        plain = decode_unchecked(memoryview(stored), plain_length)
    except Broken as broken:
        raise CorruptBlock(f"The stored block {digest} is damaged: {broken}.", block=digest) from None
    if sha256_digest(plain) != digest:
        raise CorruptBlock(f"The stored block {digest} holds other bytes than its digest says.", block=digest)
    return bytes(plain)


def decode_unchecked(stored: memoryview, plain_length: int) -> memoryview:
    """What `decode_block` does but for the digest, for measuring.

    Raises:
        Broken: if the stored bytes are no block of this length.
    """
    if len(stored) < _HEADER.size:
        raise Broken("it is shorter than its header")
    magic, version, dtype_code, declared = _HEADER.unpack_from(stored)
    if magic != _MAGIC or version != _VERSION or dtype_code not in _DTYPE_CODES:
        raise Broken("its header is of no known version")
    if declared != plain_length or not 0 < declared <= BLOCK_MAX_BYTES:
        raise Broken("its header declares another length")
    from fairlead.sync.store.chunks import read_chunk
    from fairlead.sync.store.planes import empty_bytes, words_of

    dtype, position = Dtype(dtype_code), _HEADER.size
    plain = empty_bytes(plain_length)
    even = plain_length - plain_length % dtype.width
    words, done = words_of(plain[:even], dtype.width), 0
    while done < len(words):
        count, position = read_chunk(stored, position, words[done:], is_float=dtype.is_float)
        done += count
    if len(stored) - position != plain_length - even:
        raise Broken("its last chunk does not end where it should")
    plain[even:] = stored[position:]
    return plain
