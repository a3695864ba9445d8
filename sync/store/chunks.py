"""Chunks: runs of elements that are coded alike.

    chunk = form:u8 count:u32 stream...

| form | streams |
|---|---|
| 0 whole | one, of the elements' bytes |
| 1 planes | one for each byte of an element, lowest first |
| 2 sparse | a bitmap of which elements are not zero, and the planes of those |

Numbers are little-endian. The elements of float dtypes have their sign rotated to the lowest bit in forms 1 and 2.
How a chunk is stored is chosen from a sample of it and written beside it, so a reader never guesses, and a better
choice needs no new version.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from fairlead.sync.store.planes import Words, join_planes, rotate_left, rotate_right, split_planes, words_of
from fairlead.sync.store.streams import SAMPLE_BYTES, Broken, Choice, Coder, choose, encode_stream, read_stream

CHUNK_MIN_ELEMENTS = 4096
"""The fewest elements of a chunk that is not the last: a reader's time is bounded by a block's length."""

_CHUNK = struct.Struct("<BI")
_WHOLE, _PLANES, _SPARSE = 0, 1, 2
_SAMPLE_PIECES = 4
# With fewer zeros than this, saying where they are costs more than they do.
_SPARSE_FROM = 0.25
# Reading a sparse chunk takes time: it has to gain something.
_SPARSE_GAIN = 0.97


@dataclass(frozen=True, slots=True)
class _Plan:
    form: int
    ratio: float
    choices: tuple[Choice, ...]


def encode_chunk(words: Words, *, is_float: bool) -> list[bytes | memoryview]:
    """The stored form of some elements, as parts to be joined: at most some bytes more than they have."""
    plan = _plan(_sample(words), is_float=is_float)
    parts = _encode(words, plan, is_float=is_float)
    # A sample may miss everything that a bitmap makes larger.
    if plan.form == _SPARSE and sum(map(len, parts)) > words.nbytes:
        parts = _encode(words, _Plan(_WHOLE, 1.0, (Choice(Coder.AS_IS, 1.0),)), is_float=is_float)
    return parts


def _encode(words: Words, plan: _Plan, *, is_float: bool) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = [_CHUNK.pack(plan.form, len(words))]
    if plan.form == _WHOLE:
        return parts + encode_stream(words.view(np.uint8).data, plan.choices[0].coder)
    if is_float:
        words = rotate_left(words)
    choices = plan.choices
    if plan.form == _SPARSE:
        present = words != 0
        bitmap = np.packbits(present, bitorder="little")
        parts += encode_stream(bitmap.data, choices[0].coder)
        words, choices = words[present], choices[1:]
    for plane, choice in zip(split_planes(words), choices, strict=True):
        parts += encode_stream(plane.data, choice.coder)
    return parts


def read_chunk(stored: memoryview, position: int, out: Words, *, is_float: bool) -> tuple[int, int]:
    """Read the chunk at `position` into the beginning of `out`; how many elements it has, and where it ends.

    Raises:
        Broken: if it is damaged, or has more elements than there is room for.
    """
    if position + _CHUNK.size > len(stored):
        raise Broken("a chunk is missing")
    form, count = _CHUNK.unpack_from(stored, position)
    position += _CHUNK.size
    if not min(CHUNK_MIN_ELEMENTS, len(out)) <= count <= len(out):
        raise Broken("a chunk has another number of elements than it may")
    words = out[:count]
    if form == _WHOLE:
        plain, position = read_stream(stored, position, words.nbytes)
        words[:] = words_of(plain, words.itemsize)
        return count, position
    if form not in (_PLANES, _SPARSE):
        raise Broken("a chunk is of no known form")
    present = None
    if form == _SPARSE:
        bitmap, position = read_stream(stored, position, -(-count // 8))
        present = np.unpackbits(words_of(bitmap, 1), count=count, bitorder="little").view(np.bool_)
        words = np.empty(int(np.count_nonzero(present)), words.dtype)
    planes: list[bytes | memoryview] = []
    for _ in range(words.itemsize):
        plane, position = read_stream(stored, position, len(words))
        planes.append(plane)
    join_planes(planes, words)
    if is_float:
        rotate_right(words)
    if present is not None:
        out[:count] = 0
        out[:count][present] = words
    return count, position


def _sample(words: Words) -> Words:
    """Some thousand elements from all over, or all where there are no more."""
    if len(words) <= SAMPLE_BYTES:
        return words
    piece = SAMPLE_BYTES // _SAMPLE_PIECES
    step = (len(words) - piece) // (_SAMPLE_PIECES - 1)
    return np.concatenate([words[index * step : index * step + piece] for index in range(_SAMPLE_PIECES)])


def _plan(sample: Words, *, is_float: bool) -> _Plan:
    width = sample.itemsize
    if width == 1:
        choice = choose(sample.tobytes())
        best = _Plan(_WHOLE, choice.ratio, (choice,))
    else:
        if is_float:
            sample = rotate_left(sample)
        best = _plan_planes(sample)
        if best.ratio == 1.0:
            return _Plan(_WHOLE, 1.0, (Choice(Coder.AS_IS, 1.0),))
    present = sample != 0
    filled = float(np.count_nonzero(present)) / len(sample)
    if not 0 < filled <= 1 - _SPARSE_FROM:
        return best
    bitmap = choose(np.packbits(present, bitorder="little").tobytes())
    rest = _plan_planes(sample[present])
    sparse = _Plan(_SPARSE, bitmap.ratio / 8 / width + rest.ratio * filled, (bitmap, *rest.choices))
    return sparse if sparse.ratio < best.ratio * _SPARSE_GAIN else best


def _plan_planes(sample: Words) -> _Plan:
    choices = tuple(choose(plane.tobytes()) for plane in split_planes(sample))
    return _Plan(_PLANES, sum(choice.ratio for choice in choices) / len(choices), choices)
