"""What kind of numbers opaque bytes are, by a look at a sample: a guess that can only cost size, never bytes.

Numbers of one kind show in the bytes that stand one element apart: an exponent repeats, a mantissa does not. The sample
is counted per byte of an element, for each width, and the kind that an ideal coder would make smallest is the answer,
with the place at which elements begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlead.sync.store.dtype import Dtype

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SAMPLE_BYTES = 64 * 2**10
_PIECES = 4
_LEAST_BYTES = 4 * 2**10
# Planes must win by this much over the bytes as they are, and a wider element over a narrower one.
_CLEARLY = 0.97
_WIDER = 0.985
# The bits of a float's highest byte: an exponent of 8 bits leaves it few values, one of 5 bits shares it.
_BFLOAT_EXPONENT_BITS = 5.0
_FLOATS = {4: Dtype.F32, 8: Dtype.F64}
_INTEGERS = {2: Dtype.INT16, 4: Dtype.INT32, 8: Dtype.INT64}


def guess_dtype(plain: memoryview) -> tuple[Dtype, int]:
    """The likely kind of elements, and how many bytes stand before the first whole one (less than its width)."""
    import numpy as np

    sample = _sample(plain)
    if len(sample) < _LEAST_BYTES:
        return Dtype.BYTES, 0
    places = np.frombuffer(sample, np.uint8).reshape(-1, 8)
    histograms = np.stack([np.bincount(places[:, place], minlength=256) for place in range(8)])
    costs = {width: _cost(histograms.reshape(-1, width, 256).sum(axis=0)) for width in (1, 2, 4, 8)}
    width = 1
    for wider in (2, 4, 8):
        if costs[wider] < costs[width] * _WIDER:
            width = wider
    if width == 1 or costs[width] > costs[1] * _CLEARLY or costs[width] > _zstd_bytes(sample) * 8 * _CLEARLY:
        return Dtype.BYTES, 0
    return _kind(sample, width, costs[width])


def _kind(sample: bytes, width: int, plain_cost: float) -> tuple[Dtype, int]:
    """Float or integer, and where elements begin: where turning the sign out of the way of the exponent wins most."""
    import numpy as np

    best, dtype, phase = plain_cost * 0.998, _INTEGERS[width], 0
    for start in range(width):
        words = np.frombuffer(sample[start : len(sample) - (width - start) % width], f"<u{width}")
        turned = (words << 1) | (words >> (8 * width - 1))
        planes = turned.view(np.uint8).reshape(-1, width)
        histograms = np.stack([np.bincount(planes[:, index], minlength=256) for index in range(width)])
        cost = _cost(histograms)
        if cost < best:
            best, phase = cost, start
            dtype = _FLOATS.get(width) or _half(histograms[-1])
    return dtype, phase


def _half(exponents: npt.NDArray[np.int64]) -> Dtype:
    bits = _cost(exponents[None, :]) / int(exponents.sum())
    return Dtype.BF16 if bits < _BFLOAT_EXPONENT_BITS else Dtype.F16


def _cost(histograms: npt.NDArray[np.int64]) -> float:
    """The bits that an ideal coder of single bytes needs, with one code for each row of (n_codes, 256) counts.

    Corrected for the bias of a sample (Miller and Madow): noise must not look as if it could be squeezed.
    """
    import numpy as np

    totals = histograms.sum(axis=1)
    terms = histograms * np.log2(np.maximum(histograms, 1))
    seen = np.count_nonzero(histograms, axis=1)
    return float((totals * np.log2(np.maximum(totals, 1)) + (seen - 1) / 2 * 1.4427).sum() - terms.sum())


def _sample(plain: memoryview) -> bytes:
    """Up to 64 KiB from places all over, each a whole number of the widest elements from the start."""
    if len(plain) <= _SAMPLE_BYTES:
        return bytes(plain[: len(plain) // 8 * 8])
    piece = _SAMPLE_BYTES // _PIECES
    step = (len(plain) - piece) // (_PIECES - 1) // 8 * 8
    return b"".join(plain[index * step : index * step + piece] for index in range(_PIECES))


def _zstd_bytes(sample: bytes) -> int:
    import zstandard

    return len(zstandard.ZstdCompressor(level=1).compress(sample))
