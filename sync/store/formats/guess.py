"""What kind of numbers opaque bytes are, by a look at a sample: a guess that can only cost size, never bytes.

Numbers of one kind show in the bytes that stand one element apart: an exponent repeats, a mantissa does not. So the
sample is laid out as the codec would do it for each width of element, with and without the sign turned out of the way
of the exponent, and the smallest layout is the answer, with the place at which elements begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import zstandard

from fairlead.sync.store.dtype import Dtype

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

_SAMPLE_BYTES = 32 * 2**10
_LEAST_BYTES = 4 * 2**10
# Planes must win by this much over the bytes as they are (and by so much of these), and over a layout before them.
_CLEARLY = 0.97
_AT_LEAST = 0.005
_BETTER = 0.998
# What an exponent of 8 bits and what one of 5 bits with 3 of the mantissa take in weights, a byte: the middle of both.
_BFLOAT_EXPONENT_BITS = 5.0
_INTEGERS = {2: Dtype.INT16, 4: Dtype.INT32, 8: Dtype.INT64}
_FLOATS = {2: Dtype.F16, 4: Dtype.F32, 8: Dtype.F64}


def guess_dtype(plain: memoryview) -> tuple[Dtype, int]:
    """The likely kind of elements, and how many bytes stand before the first whole one (less than its width)."""
    import numpy as np

    sample = np.frombuffer(_sample(plain), np.uint8)
    if len(sample) < _LEAST_BYTES:
        return Dtype.BYTES, 0
    ideal, with_matches = _ideal_bytes(sample), _zstd_bytes(sample)
    has_matches = with_matches < ideal * _CLEARLY
    best = min(ideal, with_matches, len(sample)) * _CLEARLY - len(sample) * _AT_LEAST
    found = Dtype.BYTES, 0
    for width in (2, 4, 8):
        planes = sample.reshape(-1, width)
        costs = [_ideal_bytes(planes[:, place]) for place in range(width)]
        # A float's highest byte is mostly exponent, and says less than the others.
        phase = (costs.index(min(costs)) + 1) % width
        size = _layout_bytes(planes, has_matches=has_matches)
        if size < best * _BETTER:
            best, found = size, (_INTEGERS[width], 0)
        words = sample[phase : len(sample) - (width - phase) % width].view(f"<u{width}")
        turned = ((words << 1) | (words >> (8 * width - 1))).view(np.uint8).reshape(-1, width)
        size = _layout_bytes(turned, has_matches=has_matches)
        if size < best * _BETTER:
            is_bfloat = width == 2 and _ideal_bytes(turned[:, 1]) * 8 < _BFLOAT_EXPONENT_BITS * len(turned)
            best, found = size, (Dtype.BF16 if is_bfloat else _FLOATS[width], phase)
    return found


def _layout_bytes(planes: Bytes, *, has_matches: bool) -> float:
    """What (n_elements, width) bytes come to, plane by plane."""
    total = 0.0
    for place in range(planes.shape[1]):
        plane = planes[:, place]
        size = _ideal_bytes(plane)
        total += min(size, _zstd_bytes(plane)) if has_matches else size
    return total


def _ideal_bytes(plane: Bytes) -> float:
    """The size in bytes that an ideal coder of single bytes needs, without its table.

    Corrected for the bias of a sample (Miller and Madow): noise must not look as if it could be squeezed.
    """
    import numpy as np

    counts = np.bincount(plane, minlength=256)
    seen = counts[counts > 0]
    bits = len(plane) * np.log2(len(plane)) - (seen * np.log2(seen)).sum() + (len(seen) - 1) / 2 * 1.4427
    return float(bits) / 8


def _zstd_bytes(plane: Bytes) -> int:
    return len(zstandard.ZstdCompressor(level=1).compress(plane.tobytes()))


def _sample(plain: memoryview) -> bytes:
    """Up to 32 KiB from the middle: in one piece, for elsewhere elements may begin elsewhere."""
    start = max(0, len(plain) - _SAMPLE_BYTES) // 2 // 8 * 8
    return bytes(plain[start : start + min(_SAMPLE_BYTES, len(plain) // 8 * 8)])
