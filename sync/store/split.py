"""Where a file is cut into blocks, so that versions of it share what they have in common.

A safetensors file is cut at its tensors, so a changed tensor or a grown header moves nothing else: the header is a span
of its own, a tensor over 8 MiB is cut every 8 MiB from its start, and neighbouring small tensors of one dtype share a
span. Any other file is cut where its content says (FastCDC). How a file is cut never changes an artifact's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from fairlead.sync.store.codec import BLOCK_MAX_BYTES
from fairlead.sync.store.dtype import Dtype

_GROUP_BYTES = 64 * 2**10
_HEADER_MAX_BYTES = 64 * 2**20
_LENGTH_BYTES = 8
_CDC_MIN_BYTES = 256 * 2**10
_CDC_AVERAGE_BYTES = 2**20

_DTYPES: dict[str, tuple[int, Dtype]] = {
    "BOOL": (1, Dtype.BYTES),
    "U8": (1, Dtype.BYTES),
    "I8": (1, Dtype.BYTES),
    "F8_E4M3": (1, Dtype.BYTES),
    "F8_E5M2": (1, Dtype.BYTES),
    "F16": (2, Dtype.F16),
    "BF16": (2, Dtype.BF16),
    "F32": (4, Dtype.F32),
    "F64": (8, Dtype.F64),
    "I16": (2, Dtype.INT16),
    "U16": (2, Dtype.INT16),
    "I32": (4, Dtype.INT32),
    "U32": (4, Dtype.INT32),
    "I64": (8, Dtype.INT64),
    "U64": (8, Dtype.INT64),
}


@dataclass(frozen=True, slots=True)
class Span:
    """One block of a file: where it begins, how many bytes it has, and what they are."""

    offset: int
    length: int
    dtype: Dtype = Dtype.BYTES


def iter_spans(stream: BinaryIO, size: int) -> Iterator[tuple[Span, memoryview]]:
    """Cut a seekable stream of `size` bytes; the spans follow each other and cover it.

    One span is in memory at a time, and its bytes are valid until the next one is asked for. A stream that ends early
    ends the spans early: compare the lengths. An empty stream has no span.
    """
    tensors = _safetensors_spans(stream, size)
    stream.seek(0)
    if tensors is None:
        yield from _content_defined(stream)
        return
    for span in tensors:
        data = stream.read(span.length)
        if len(data) != span.length:
            return
        yield span, memoryview(data)


def _content_defined(stream: BinaryIO) -> Iterator[tuple[Span, memoryview]]:
    from pyfastcdc import BinaryStreamReader, FastCDC

    chunker = FastCDC(_CDC_AVERAGE_BYTES, min_size=_CDC_MIN_BYTES, max_size=BLOCK_MAX_BYTES)
    for chunk in chunker.cut_stream(cast("BinaryStreamReader", stream)):
        yield Span(chunk.offset, chunk.length), chunk.data


def _safetensors_spans(stream: BinaryIO, size: int) -> list[Span] | None:
    """The spans of a safetensors file, or None where the stream is not one that can be trusted."""
    header_length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
    data_start = _LENGTH_BYTES + header_length
    if not 2 <= header_length <= _HEADER_MAX_BYTES or data_start > size or stream.read(1) != b"{":
        return None
    try:
        tensors = _read_tensors(b"{" + stream.read(header_length - 1), size - data_start)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    if tensors is None:
        return None
    return [*_cut(0, data_start, Dtype.BYTES), *_group(tensors, data_start)]


def _read_tensors(header: bytes, data_length: int) -> list[Span] | None:
    """The tensors in order of their place in the data, or None unless they cover all of it without overlap."""
    record = cast("dict[str, dict[str, object]]", json.loads(header))
    tensors: list[Span] = []
    for name, entry in record.items():
        if name == "__metadata__":
            continue
        begin, end = cast("list[object]", entry["data_offsets"])
        width, dtype = _DTYPES.get(str(entry["dtype"]), (0, Dtype.BYTES))
        shape = cast("list[object]", entry["shape"])
        if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= data_length:
            return None
        if width and _tensor_bytes(shape, width, data_length) != end - begin:
            return None
        tensors.append(Span(begin, end - begin, dtype))
    tensors.sort(key=lambda span: (span.offset, span.length))
    position = 0
    for span in tensors:
        if span.offset != position:
            return None
        position += span.length
    return tensors if position == data_length else None


def _tensor_bytes(shape: list[object], width: int, limit: int) -> int | None:
    """The bytes of a tensor of this shape, or None where it has no sense or is larger than `limit`."""
    if any(type(length) is not int or not 0 <= length <= limit for length in shape):
        return None
    # Not one product of all: a header may hold millions of lengths.
    size = 0 if 0 in shape else width
    for length in cast("list[int]", shape):
        size *= length
        if size > limit:
            return None
    return size


def _group(tensors: list[Span], start: int) -> Iterator[Span]:
    """Spans for tensors that follow each other: small neighbours of one dtype together, large ones on their own."""
    offset, length, dtype = 0, 0, Dtype.BYTES
    for tensor in tensors:
        if not tensor.length:
            continue
        if length and (tensor.dtype != dtype or length + tensor.length > _GROUP_BYTES):
            yield from _cut(start + offset, length, dtype)
            length = 0
        if not length:
            offset, dtype = tensor.offset, tensor.dtype
        length += tensor.length
    yield from _cut(start + offset, length, dtype)


def _cut(offset: int, length: int, dtype: Dtype) -> Iterator[Span]:
    for start in range(0, length, BLOCK_MAX_BYTES):
        yield Span(offset + start, min(BLOCK_MAX_BYTES, length - start), dtype)
