"""Byte planes: the same byte of every element side by side, where it repeats more.

A float's sign is rotated from the top bit to the bottom one first, so the highest plane holds exponents only, which
are few and skewed. Plane 0 holds the lowest bytes. All arithmetic is on unsigned integers: NaN payloads survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[Any]
"""Elements as little-endian unsigned integers of 1, 2, 4 or 8 bytes: (n_elements,)."""

_BY_WIDTH = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}


def words_of(plain: bytes | bytearray | memoryview, width: int) -> Words:
    """A view of bytes as elements of `width` bytes; the length is a whole number of them."""
    return np.frombuffer(plain, _BY_WIDTH[width])


def empty_bytes(length: int) -> memoryview:
    """Room for so many bytes, which are to be written before they are read."""
    return np.empty(length, np.uint8).data


def rotate_left(words: Words) -> Words:
    """Every element with its sign as the lowest bit."""
    rotated = words << 1
    rotated |= words >> (8 * words.itemsize - 1)
    return rotated


def split_planes(words: Words) -> list[Words]:
    """Cut elements into as many planes of (n_elements,) uint8 as one has bytes, lowest first."""
    # Halving passes over contiguous memory and is twice as fast as picking every k-th byte.
    parts = [words]
    while parts[0].itemsize > 1:
        half = _BY_WIDTH[parts[0].itemsize // 2]
        parts = [cut for part in parts for cut in (part.astype(half), (part >> (8 * half.itemsize)).astype(half))]
    return parts


def join_planes(planes: Sequence[bytes | memoryview], out: Words) -> None:
    """Put planes of equal length back into elements: the inverse of `split_planes`."""
    parts = [words_of(plane, 1) for plane in planes]
    if len(parts) == 1:
        out[:] = parts[0]
    while len(parts) > 1:
        shift = 8 * parts[0].itemsize
        wide = _BY_WIDTH[2 * parts[0].itemsize]
        joined: list[Words] = []
        for low, high in zip(parts[::2], parts[1::2], strict=True):
            word = out if len(parts) == 2 else np.empty(len(out), wide)
            word[:] = high
            word <<= shift
            word |= low
            joined.append(word)
        parts = joined


def rotate_right(words: Words) -> None:
    """Undo `rotate_left`, in place."""
    sign = words << (8 * words.itemsize - 1)
    words >>= 1
    words |= sign


def order_zero_bytes(sample: bytes | memoryview) -> float:
    """The size in bytes that an ideal coder of single bytes needs for the sample, without its table.

    Corrected for a sample's bias (Miller and Madow): noise must not look as if it could be squeezed.
    """
    counts = np.bincount(np.frombuffer(sample, dtype=np.uint8), minlength=256)
    seen = counts[counts > 0]
    size = len(sample)
    bits = float(size * np.log2(size) - (seen * np.log2(seen)).sum()) + (len(seen) - 1) / 2 * 1.4427
    return bits / 8
