"""Gzipped objects unpacked within bounds: what a location answers may be damaged, or made to fill the memory."""

from __future__ import annotations

import zlib

_GZIP = 31


def gunzip(data: bytes, *, max_bytes: int) -> bytes:
    """The plain bytes of one gzip member with nothing behind it.

    Raises:
        ValueError: if it is not whole, or holds more than `max_bytes`.
    """
    inflate = zlib.decompressobj(_GZIP)
    try:
        plain = inflate.decompress(data, max_bytes + 1)
    except zlib.error:
        raise ValueError("damaged") from None
    if not inflate.eof or inflate.unused_data or len(plain) > max_bytes:
        raise ValueError("cut short, too long, or followed by something")
    return plain
