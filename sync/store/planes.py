"""Byte planes: the same byte of every element side by side, where it repeats more.

A float's sign is rotated from the top bit to the bottom one first, so the highest plane holds exponents only, which
are few and skewed. Plane 0 holds the lowest bytes. All arithmetic is on unsigned integers: NaN payloads survive.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairlead.sync.store.dtype import Dtype

_WORDS: dict[int, str] = {2: "<u2", 4: "<u4", 8: "<u8"}


def split_planes(plain: memoryview, dtype: Dtype) -> list[memoryview]:
    """Cut elements into `dtype.width` planes of (n_elements,) uint8, lowest first; the length is a whole number."""
    width = dtype.width
    if width == 1:
        return [plain]
    words = np.frombuffer(plain, dtype=_WORDS[width])
    if dtype.is_float:
        words = (words << 1) | (words >> (8 * width - 1))
    planes = words.view(np.uint8).reshape(-1, width)
    return [planes[:, index].copy().data for index in range(width)]


def join_planes(planes: Sequence[bytes | memoryview], dtype: Dtype) -> bytes:
    """Put planes of equal length back into elements: the inverse of `split_planes`."""
    width = dtype.width
    if width == 1:
        return bytes(planes[0])
    joined = np.empty((len(planes[0]), width), dtype=np.uint8)
    for index, plane in enumerate(planes):
        joined[:, index] = np.frombuffer(plane, dtype=np.uint8)
    words = joined.view(_WORDS[width])
    if dtype.is_float:
        words = (words >> 1) | (words << (8 * width - 1))
    return words.tobytes()


def order_zero_bytes(sample: bytes) -> float:
    """The size in bytes that an ideal coder of single bytes needs for the sample, without its table.

    Corrected for a sample's bias (Miller and Madow): noise must not look as if it could be squeezed.
    """
    counts = np.bincount(np.frombuffer(sample, dtype=np.uint8), minlength=256)
    seen = counts[counts > 0]
    size = len(sample)
    bits = float(size * np.log2(size) - (seen * np.log2(seen)).sum()) + (len(seen) - 1) / 2 * 1.4427
    return bits / 8
