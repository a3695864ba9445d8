"""Streams: runs of bytes, each stored in the way that a sample of it favours.

    stream = method:u8 length:u32 body     method 0 as is, 1 one zstd frame, 2 one byte that repeats

zstd is used in two ways, which a reader need not tell apart: for its Huffman coder alone, where bytes are skewed but do
not repeat (the exponents of weights), and with its search for matches, where they do.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import Any, Protocol

import zstandard

STREAM = struct.Struct("<BI")
SAMPLE_BYTES = 8 * 2**10
"""How many bytes of a stream are looked at to choose how it is stored."""

_RAW, _ZSTD, _FILL = 0, 1, 2
# A gain below this is not worth the time of the reader.
_WORTHWHILE = 0.985
# Huffman's whole bits and its table, against the ideal coder that the sample estimates.
_HUFFMAN_LOSS = 1.01
# Matches cost the reader time: they have to gain something.
_MATCHES_GAIN = 0.97

# The acceleration of zstd's fast search (ZSTD_TARGETLENGTH_MAX) that skips whole blocks, and ZSTD_ps_enable.
_NO_SEARCH = 128 * 2**10
_ALWAYS = 1

_threads = threading.local()


class Broken(Exception):
    """The stored bytes are not what they should be; the message says where."""


class Coder(Enum):
    """How a stream is written."""

    AS_IS = 0
    HUFFMAN = 1
    MATCHES = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """A coder, and the part of the plain bytes that it is expected to store."""

    coder: Coder
    ratio: float


def choose(sample: bytes) -> Choice:
    """The coder that a sample of 1 to some thousand bytes favours."""
    from fairlead.sync.store.planes import order_zero_bytes

    size = len(sample)
    # No symbol of a Huffman code takes less than a bit, however often it comes.
    huffman = max(size / 8, order_zero_bytes(sample) * _HUFFMAN_LOSS)
    matches = len(_compressor(Coder.MATCHES).compress(sample))
    best = Choice(Coder.HUFFMAN, huffman / size)
    if matches < huffman * _MATCHES_GAIN:
        best = Choice(Coder.MATCHES, matches / size)
    return best if best.ratio < _WORTHWHILE else Choice(Coder.AS_IS, 1.0)


def encode_stream(plain: memoryview, coder: Coder) -> list[bytes | memoryview]:
    """The stored form of a stream, as parts to be joined."""
    if coder is Coder.AS_IS or not plain:
        return [STREAM.pack(_RAW, len(plain)), plain]
    body = _compressor(coder).compress(plain)
    if len(body) < 64 and bytes(plain) == bytes(plain[:1]) * len(plain):
        return [STREAM.pack(_FILL, 1), plain[:1]]
    # The sample may have been wrong about the rest.
    if len(body) >= len(plain):
        return [STREAM.pack(_RAW, len(plain)), plain]
    return [STREAM.pack(_ZSTD, len(body)), body]


def read_stream(stored: memoryview, position: int, length: int) -> tuple[bytes | memoryview, int]:
    """The `length` plain bytes of the stream at `position`, and where it ends.

    Raises:
        Broken: if it ends early, or holds another number of bytes.
    """
    if position + STREAM.size > len(stored):
        raise Broken("a stream is missing")
    method, size = STREAM.unpack_from(stored, position)
    start, end = position + STREAM.size, position + STREAM.size + size
    if end > len(stored):
        raise Broken("a stream ends early")
    body = stored[start:end]
    if method == _RAW:
        plain = body
    elif method == _ZSTD:
        plain = _read_zstd(body, length)
    elif method == _FILL and size == 1:
        plain = bytes(body) * length
    else:
        raise Broken("a stream is of no known method")
    if len(plain) != length:
        raise Broken("a stream holds another number of bytes than it should")
    return plain, end


def _read_zstd(body: memoryview, length: int) -> bytes:
    found: zstandard.ZstdDecompressor | None = getattr(_threads, "decompressor", None)
    if found is None:
        found = _threads.decompressor = zstandard.ZstdDecompressor()
    try:
        # The library allocates what the frame declares, whatever limit it is given: look at that first.
        if zstandard.frame_content_size(body) != length:
            raise Broken("a zstd frame declares another length")
        return found.decompress(body, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError:
        raise Broken("a zstd frame does not decode") from None


def _compressor(coder: Coder) -> _Compressor:
    # A context of zstd serves one thread at a time and is dear to make.
    found: dict[Coder, _Compressor] | None = getattr(_threads, "compressors", None)
    if found is None:
        found = _threads.compressors = {
            Coder.HUFFMAN: _huffman_compressor(),
            Coder.MATCHES: zstandard.ZstdCompressor(level=1),
        }
    return found[coder]


def _huffman_compressor() -> _Compressor:
    try:
        return _HuffmanOnly()
    except (ImportError, AttributeError):
        # A table of 64 places for 7 bytes each finds few matches: what remains is nearly the Huffman coder alone.
        few_matches = zstandard.ZstdCompressionParameters(
            window_log=17, hash_log=6, chain_log=6, search_log=1, min_match=7, strategy=zstandard.STRATEGY_FAST
        )
        return zstandard.ZstdCompressor(compression_params=few_matches)


class _Compressor(Protocol):
    def compress(self, data: bytes | memoryview, /) -> bytes: ...


class _HuffmanOnly:
    """zstd without its search for matches, which finds chance ones in weights that cost more than they save.

    The library can leave the search out and still code literals; of the two bindings in the wheel only the one through
    cffi reaches that setting.

    Raises:
        ImportError, AttributeError: where the wheel has no such binding or setting.
    """

    def __init__(self) -> None:
        binding: Any = import_module("zstandard.backend_cffi")
        self._lib, self._ffi = binding.lib, binding.ffi
        self._context = self._ffi.gc(self._lib.ZSTD_createCCtx(), self._lib.ZSTD_freeCCtx)
        settings = (
            (self._lib.ZSTD_c_compressionLevel, -_NO_SEARCH),
            (self._lib.ZSTD_c_literalCompressionMode, _ALWAYS),
        )
        for parameter, value in settings:
            if self._lib.ZSTD_isError(self._lib.ZSTD_CCtx_setParameter(self._context, parameter, value)):
                raise AttributeError(parameter)
        self._room = self._ffi.new("char[]", 0)

    def compress(self, data: bytes | memoryview, /) -> bytes:
        """One frame that declares its content size."""
        bound = self._lib.ZSTD_compressBound(len(data))
        if len(self._room) < bound:
            self._room = self._ffi.new("char[]", bound)
        size = self._lib.ZSTD_compress2(
            self._context, self._room, len(self._room), self._ffi.from_buffer(data), len(data)
        )
        if self._lib.ZSTD_isError(size):
            raise MemoryError
        return bytes(self._ffi.buffer(self._room, size))
