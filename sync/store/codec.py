"""The stored form of a block, version 1.

    block   = "FLB" version:u8 dtype:u8 plain_length:u32 chunk...
    chunk   = form:u8 stream...           one stream (form 0), or one for each byte of an element (form 1) and a tail
    stream  = method:u8 length:u32 bytes  method 0 as is, 1 zstd, 2 raw DEFLATE with Huffman coding only

A chunk holds 256 KiB of plain bytes, the last one what remains. Numbers are little-endian. How a chunk is stored is
chosen from a sample of it and written beside it, so a reader never guesses, and a better choice needs no new version.

Law: `decode_block(encode_block(b, d), digest=sha256(b), plain_length=len(b)) == b` for any bytes and any dtype. Other
bytes give `CorruptBlock`, never other plain bytes, and never take more memory than the declared plain length and the
stored bytes do.
"""

from __future__ import annotations

import struct
import threading
from typing import cast

import zstandard
from isal import isal_zlib
from zlib_ng import zlib_ng

from fairlead.core.errors import CorruptBlock
from fairlead.core.ids import Digest, sha256_digest
from fairlead.sync.store.dtype import Dtype

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
_STREAM = struct.Struct("<BI")
_WHOLE, _PLANES = 0, 1
_RAW, _ZSTD, _HUFFMAN = 0, 1, 2
_SAMPLE_BYTES = 8 * 2**10
_SAMPLE_PIECES = 4
# A gain below this is not worth the time of the reader.
_WORTHWHILE = 0.985
# Huffman's whole bits and its table, against the ideal coder that the sample estimates.
_HUFFMAN_LOSS = 1.01

_threads = threading.local()
# The stub of isal declares an instance where the module holds the class.
_INFLATE_ERROR = cast("type[Exception]", isal_zlib.error)


class _Broken(Exception):
    """The stored bytes are no block; the message says where."""


def encode_block(plain: bytes | memoryview, dtype: Dtype = Dtype.BYTES) -> bytes:
    """The stored form of 1 byte to 8 MiB. The same bytes may be stored differently by another release."""
    view = memoryview(plain)
    parts: list[bytes] = [_HEADER.pack(_MAGIC, _VERSION, dtype, len(view))]
    for start in range(0, len(view), _CHUNK_BYTES):
        parts.extend(_encode_chunk(view[start : start + _CHUNK_BYTES], dtype))
    return b"".join(parts)


def decode_block(stored: bytes | memoryview, *, digest: Digest, plain_length: int) -> bytes:
    """The plain bytes of a stored block, checked against their digest.

    Raises:
        CorruptBlock: if the stored bytes are damaged, lie about their length, or hold other bytes than the digest's.
    """
    try:
        plain = _decode(memoryview(stored), plain_length)
    except _Broken as broken:
        raise CorruptBlock(f"The stored block {digest} is damaged: {broken}.", block=digest) from None
    if sha256_digest(plain) != digest:
        raise CorruptBlock(f"The stored block {digest} holds other bytes than its digest says.", block=digest)
    return plain


def _encode_chunk(plain: memoryview, dtype: Dtype) -> list[bytes]:
    from fairlead.sync.store import planes

    whole_method, whole_size = _choose(plain, has_huffman=dtype.width == 1)
    even = len(plain) - len(plain) % dtype.width
    if dtype.width == 1 or not even:
        return [bytes([_WHOLE]), *_encode_stream(plain, whole_method)]
    split = planes.split_planes(plain[:even], dtype)
    choices = [_choose(plane, has_huffman=True) for plane in split]
    if sum(size for _, size in choices) > whole_size * _WORTHWHILE:
        return [bytes([_WHOLE]), *_encode_stream(plain, whole_method)]
    parts = [bytes([_PLANES])]
    for plane, (method, _) in zip(split, choices, strict=True):
        parts.extend(_encode_stream(plane, method))
    parts.append(bytes(plain[even:]))
    return parts


def _choose(plain: memoryview, *, has_huffman: bool) -> tuple[int, float]:
    """The method that a sample of the stream favours, and the size in bytes it should come to."""
    from fairlead.sync.store import planes

    size = len(plain)
    if size <= _SAMPLE_BYTES:
        sample = bytes(plain)
    else:
        piece, step = _SAMPLE_BYTES // _SAMPLE_PIECES, (size - _SAMPLE_BYTES // _SAMPLE_PIECES) // (_SAMPLE_PIECES - 1)
        sample = b"".join(plain[index * step : index * step + piece] for index in range(_SAMPLE_PIECES))
    zstd_size: float = len(_compressor().compress(sample))
    huffman_size = float("inf")
    if has_huffman:
        # No symbol of a Huffman code takes less than a bit, however often it comes.
        huffman_size = max(len(sample) / 8, planes.order_zero_bytes(sample) * _HUFFMAN_LOSS)
    method, best = min(((_ZSTD, zstd_size), (_HUFFMAN, huffman_size)), key=lambda choice: choice[1])
    if best > len(sample) * _WORTHWHILE:
        method, best = _RAW, float(len(sample))
    return method, best * size / len(sample)


def _encode_stream(plain: memoryview, method: int) -> tuple[bytes, bytes]:
    if method == _ZSTD:
        body = _compressor().compress(plain)
    elif method == _HUFFMAN:
        deflate = zlib_ng.compressobj(1, zlib_ng.DEFLATED, -15, 9, zlib_ng.Z_HUFFMAN_ONLY)
        body = deflate.compress(plain) + deflate.flush()
    else:
        body = bytes(plain)
    # The sample may have been wrong about the rest.
    if len(body) >= len(plain):
        method, body = _RAW, bytes(plain)
    return _STREAM.pack(method, len(body)), body


def _decode(stored: memoryview, plain_length: int) -> bytes:
    if len(stored) < _HEADER.size:
        raise _Broken("it is shorter than its header")
    magic, version, dtype_code, declared = _HEADER.unpack_from(stored)
    if magic != _MAGIC or version != _VERSION or dtype_code not in _DTYPE_CODES:
        raise _Broken("its header is of no known version")
    if declared != plain_length or not 0 < declared <= BLOCK_MAX_BYTES:
        raise _Broken("its header declares another length")
    dtype, position = Dtype(dtype_code), _HEADER.size
    parts: list[bytes] = []
    for start in range(0, plain_length, _CHUNK_BYTES):
        part, position = _decode_chunk(stored, position, min(_CHUNK_BYTES, plain_length - start), dtype)
        parts.append(part)
    if position != len(stored):
        raise _Broken("bytes follow its last chunk")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decode_chunk(stored: memoryview, position: int, length: int, dtype: Dtype) -> tuple[bytes, int]:
    if position >= len(stored):
        raise _Broken("a chunk is missing")
    form, position = stored[position], position + 1
    if form == _WHOLE:
        return _decode_stream(stored, position, length)
    if form != _PLANES or dtype.width == 1:
        raise _Broken("a chunk is of no known form")
    from fairlead.sync.store import planes

    count, rest = divmod(length, dtype.width)
    split: list[bytes] = []
    for _ in range(dtype.width):
        plane, position = _decode_stream(stored, position, count)
        split.append(plane)
    tail = bytes(stored[position : position + rest])
    if len(tail) != rest:
        raise _Broken("a chunk ends early")
    return planes.join_planes(split, dtype) + tail, position + rest


def _decode_stream(stored: memoryview, position: int, length: int) -> tuple[bytes, int]:
    if position + _STREAM.size > len(stored):
        raise _Broken("a stream is missing")
    method, size = _STREAM.unpack_from(stored, position)
    position += _STREAM.size
    body = stored[position : position + size]
    if len(body) != size:
        raise _Broken("a stream ends early")
    if method == _RAW:
        plain = bytes(body)
    elif method == _ZSTD:
        plain = _read_zstd(body, length)
    elif method == _HUFFMAN:
        plain = _read_deflate(body, length)
    else:
        raise _Broken("a stream is of no known method")
    if len(plain) != length:
        raise _Broken("a stream holds another number of bytes than it should")
    return plain, position + size


def _read_zstd(body: memoryview, length: int) -> bytes:
    try:
        # The library allocates what the frame declares, whatever limit it is given: look at that first.
        if zstandard.frame_content_size(body) != length:
            raise _Broken("a zstd frame declares another length")
        return _decompressor().decompress(body, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError:
        raise _Broken("a zstd frame does not decode") from None


def _read_deflate(body: memoryview, length: int) -> bytes:
    inflate = isal_zlib.decompressobj(-15)
    try:
        plain = inflate.decompress(body, length + 1)
    except _INFLATE_ERROR:
        raise _Broken("a DEFLATE stream does not decode") from None
    if not inflate.eof or inflate.unused_data:
        raise _Broken("a DEFLATE stream does not end where it should")
    return plain


def _compressor() -> zstandard.ZstdCompressor:
    # A context of zstd serves one thread at a time and is dear to make.
    found: zstandard.ZstdCompressor | None = getattr(_threads, "compressor", None)
    if found is None:
        found = _threads.compressor = zstandard.ZstdCompressor(level=1, write_content_size=True)
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_threads, "decompressor", None)
    if found is None:
        found = _threads.decompressor = zstandard.ZstdDecompressor()
    return found
