"""Where a file is cut into blocks, so that versions of it share what they have in common.

A file of tensors, told by its content and never by its name, is cut at its tensors: a changed tensor or a grown
header moves nothing else. A tensor over 8 MiB is cut every 8 MiB from its start, neighbouring small ones share a span,
and what lies between them is spans of its own. Any other file is cut where its content says (FastCDC), and a sample of
each piece says what kind of numbers it holds. How a file is cut never changes an artifact's name.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from fairlead.sync.store.codec import BLOCK_MAX_BYTES
from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.formats.structure import Cursor, Tensor, Unrecognised

_GROUP_BYTES = 64 * 2**10
_GROUP_LEAST_BYTES = 16 * 2**10
# One tensor in so many closes a group that is large enough.
_GROUP_END_EVERY = 4
_GAP_IN_GROUP_BYTES = 2**10
_LABEL_MAX = 240
# The parts of a tensor's name that stay when all of a model is put below another name.
_STABLE_NAME_PARTS = 4
# A plan of smaller spans than this on average is worse than none.
_SPAN_LEAST_BYTES = 8 * 2**10
_SPANS_ALWAYS_FINE = 4096
_CDC_MIN_BYTES = 256 * 2**10
_CDC_AVERAGE_BYTES = 2**20
# Room for the bytes that a piece takes over from the next one, so that elements stay whole.
_CDC_MAX_BYTES = BLOCK_MAX_BYTES - 8


@dataclass(frozen=True, slots=True)
class Span:
    """One block of a file: where it begins, how many bytes it has, and what they are.

    `label` is equal for the same place in two versions of a file: the name, kind and shape of its tensors and which cut
    of them it is. A span that holds no tensor has none.
    """

    offset: int
    length: int
    dtype: Dtype = Dtype.BYTES
    label: str | None = None


def plan_spans(stream: BinaryIO, size: int) -> list[Span] | None:
    """The spans of a file of tensors, or None for a file that is cut by its content.

    They follow each other and cover all `size` bytes. Only headers and directories are read, and stretches of more than
    a block's average size that hold no tensor. The stream is left anywhere.
    """
    try:
        tensors = _read_tensors(Cursor(stream, size))
        if not any(tensor.length for tensor in tensors):
            return None
        spans = list(_cover(stream, tensors, size))
    # What a file that lies can do to a reader of numbers, texts and JSON.
    except (
        Unrecognised,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        struct.error,
        SyntaxError,
        RecursionError,
        MemoryError,
    ):
        return None
    if len(spans) > max(_SPANS_ALWAYS_FINE, size // _SPAN_LEAST_BYTES):
        return None
    return spans


def iter_spans(stream: BinaryIO, size: int) -> Iterator[tuple[Span, memoryview]]:
    """Cut a seekable stream of `size` bytes; the spans follow each other and cover it.

    After a look at its structure, the stream is read once from its start. At most two spans are in memory at a time,
    and the bytes of one are valid until the next one is asked for. A stream that ends early ends the spans early:
    compare the lengths. An empty stream has no span.
    """
    spans = plan_spans(stream, size)
    stream.seek(0)
    if spans is None:
        yield from _content_defined(stream)
        return
    for span in spans:
        data = stream.read(span.length)
        if len(data) != span.length:
            return
        yield span, memoryview(data)


def tensor_signature(spans_by_path: Mapping[str, Iterable[Span]]) -> str | None:
    """The hex sha256 of the names, kinds and shapes of all tensors, or None where there are none.

    Versions of a model that differ in values only have the same one, wherever their files are called or stand.
    """
    labels = sorted(span.label for spans in spans_by_path.values() for span in spans if span.label is not None)
    if not labels:
        return None
    hasher = hashlib.sha256()
    for label in labels:
        hasher.update(label.encode("utf-8", "surrogatepass") + b"\n")
    return hasher.hexdigest()


def _read_tensors(cursor: Cursor) -> list[Tensor]:
    """What the reader of the format that the first bytes speak of finds; empty where they speak of none."""
    from fairlead.sync.store.formats import gguf, numpy_file, onnx, parquet, pickle_file, safetensors, zip_archive

    readers = {
        zip_archive.MAGIC: _read_archive,
        gguf.MAGIC: gguf.read_gguf,
        numpy_file.MAGIC: numpy_file.read_npy_file,
        parquet.MAGIC: parquet.read_parquet,
        **dict.fromkeys(pickle_file.MAGICS, pickle_file.read_pickled_arrays),
    }
    head = cursor.take(min(9, cursor.size))
    cursor.seek(0)
    for magic, read in readers.items():
        if head.startswith(magic):
            return read(cursor)
    if head[8:] == b"{":
        return safetensors.read_safetensors(cursor)
    return onnx.read_onnx(cursor) if head.startswith(onnx.FIRST_BYTE) else []


def _read_archive(cursor: Cursor) -> list[Tensor]:
    """The storages of PyTorch in a zip archive, or else the arrays of NumPy."""
    from fairlead.sync.store.formats import torch_zip, zip_archive

    members = zip_archive.read_stored_members(cursor)
    storages = torch_zip.find_storages(members)
    if storages:
        return torch_zip.read_storages(cursor, members, storages)
    return list(zip_archive.read_arrays(cursor, members))


def _cover(stream: BinaryIO, tensors: Sequence[Tensor], size: int) -> Iterator[Span]:
    """Spans for the tensors and for all that is between, before and behind them."""
    group = _Group()
    position = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.length)):
        if not tensor.length:
            continue
        gap = tensor.offset - position
        if gap < 0 or tensor.offset + tensor.length > size:
            raise Unrecognised
        is_small = tensor.length <= _GROUP_BYTES
        # What stands at the start of a file changes with its header: it is nobody's neighbour.
        if not group.has_room(position, gap, tensor) or not is_small:
            yield from group.close()
        if gap and not (is_small and (group.length or group.can_begin(position, gap, tensor))):
            yield from group.close()
            yield from _cut_gap(stream, position, gap)
            position, gap = tensor.offset, 0
        if is_small:
            group.add(position, gap, tensor)
        else:
            yield from _cut_tensor(tensor)
        position = tensor.offset + tensor.length
    yield from group.close()
    if position < size:
        yield from _cut_gap(stream, position, size - position)


class _Group:
    """Small tensors that follow each other, and the few bytes between them, on their way to one span."""

    def __init__(self) -> None:
        self.offset = self.length = 0
        self._dtype = Dtype.BYTES
        self._labels: list[str] = []
        self._is_complete = False

    def can_begin(self, position: int, gap: int, tensor: Tensor) -> bool:
        """Whether a group may begin with a gap: elements then still begin where their width says."""
        return bool(position) and gap <= _GAP_IN_GROUP_BYTES and gap % tensor.dtype.width == 0

    def has_room(self, position: int, gap: int, tensor: Tensor) -> bool:
        """Whether a tensor behind a gap may join, or there is nothing to join yet."""
        if not self.length:
            return True
        length = position + gap + tensor.length - self.offset
        return (
            not self._is_complete
            and gap <= _GAP_IN_GROUP_BYTES
            and length <= _GROUP_BYTES
            and tensor.dtype is self._dtype
            and (tensor.offset - self.offset) % tensor.dtype.width == 0
        )

    def add(self, position: int, gap: int, tensor: Tensor) -> None:
        """Take a tensor with the gap before it."""
        if not self.length:
            self.offset, self._dtype = position, tensor.dtype
        self.length += gap + tensor.length
        self._labels.append(_label(tensor))
        # Where a group ends depends on names near by, so that a tensor more or less moves the ends of few groups.
        stable = ".".join(tensor.name.split(".")[-_STABLE_NAME_PARTS:])
        ends_here = hashlib.sha256(stable.encode("utf-8", "surrogatepass")).digest()[0] % _GROUP_END_EVERY == 0
        self._is_complete = ends_here and self.length >= _GROUP_LEAST_BYTES

    def close(self) -> Iterator[Span]:
        """The span of what was taken, if anything was; the group is then empty again."""
        if not self.length:
            return
        label = self._labels[0] if len(self._labels) == 1 else _shorten("\n".join(self._labels))
        yield Span(self.offset, self.length, self._dtype, label)
        self.length, self._labels, self._is_complete = 0, [], False


def _cut_tensor(tensor: Tensor) -> Iterator[Span]:
    label = _label(tensor)
    for cut, start in enumerate(range(0, tensor.length, BLOCK_MAX_BYTES)):
        length = min(BLOCK_MAX_BYTES, tensor.length - start)
        yield Span(tensor.offset + start, length, tensor.dtype, f"{label} #{cut}")


def _label(tensor: Tensor) -> str:
    return _shorten(f"{tensor.name} {tensor.kind} {'x'.join(map(str, tensor.shape))}")


def _shorten(text: str) -> str:
    if len(text) <= _LABEL_MAX and "\n" not in text:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _cut_gap(stream: BinaryIO, offset: int, length: int) -> Iterator[Span]:
    """Spans for bytes without tensors: one, or where their content says if there are many."""
    if length <= _CDC_AVERAGE_BYTES:
        yield Span(offset, length)
        return
    stream.seek(offset)
    for span, _ in _content_defined(cast("BinaryIO", _Section(stream, length))):
        yield Span(offset + span.offset, span.length, span.dtype)


class _Section:
    """The next `length` bytes of a stream."""

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self._stream = stream
        self._left = length

    def read(self, count: int) -> bytes:
        """Up to `count` bytes."""
        data = self._stream.read(min(count, self._left))
        self._left -= len(data)
        return data


def _content_defined(stream: BinaryIO) -> Iterator[tuple[Span, memoryview]]:
    """Cut where the content says, moved by less than an element to where elements begin."""
    from pyfastcdc import BinaryStreamReader, FastCDC

    from fairlead.sync.store.formats.guess import guess_dtype

    chunker = FastCDC(_CDC_AVERAGE_BYTES, min_size=_CDC_MIN_BYTES, max_size=_CDC_MAX_BYTES)
    held, held_dtype = bytearray(), Dtype.BYTES
    offset = 0
    for chunk in chunker.cut_stream(cast("BinaryStreamReader", stream)):
        data = memoryview(chunk.data)
        dtype, phase = guess_dtype(data)
        if held:
            held += data[:phase]
            yield Span(offset, len(held), held_dtype), memoryview(held)
            offset += len(held)
            data = data[phase:]
        elif phase:
            # No piece is before the first one, to take the bytes.
            yield Span(0, phase), data[:phase]
            offset, data = phase, data[phase:]
        held, held_dtype = bytearray(data), dtype
    if held:
        yield Span(offset, len(held), held_dtype), memoryview(held)
