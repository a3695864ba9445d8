"""Bases: artifacts that a location holds, on whose blocks those of a new version may stand as differences.

A block of the new version and one of a base belong together when their spans have one label (the same tensor, of the
same shape, cut the same way), in the same file if there is one, else in any. Base bytes are used only when they have
the block's digest, so a local copy that changed, or a location that lies, costs a saving and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

from fairlead.core.errors import FairleadError, InvalidInput
from fairlead.core.ids import sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.chains import CHAIN_MAX
from fairlead.sync.store.codec import encode_block
from fairlead.sync.store.delta import encode_delta
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.fetch import BlockReader
from fairlead.sync.store.known import BlockFinder
from fairlead.sync.store.manifest import Content, open_content
from fairlead.sync.store.split import Span, plan_spans, tensor_signature

if TYPE_CHECKING:
    from fairlead.sync.store.reader import ArtifactReader

_WORTHWHILE = 0.9
"""A difference that is not at least this much smaller than the block itself is not worth its reader's time."""

_SAMPLED_BYTES = 2**20
_SAMPLE_PIECE_BYTES = 64 * 2**10
_SAMPLE_PIECES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """An artifact that new blocks may stand on, as the location holds it that is written to.

    Its plain bytes are taken from `files`, by path, where they are at hand, and otherwise from the location, unless
    `reads_location` is False (because reading from there is dear).
    """

    reader: ArtifactReader
    files: Mapping[str, Content] | None = None
    reads_location: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseBlock:
    """A block that another may stand on; `full_length` is about what a block like it takes that stands alone."""

    block: StoredBlock
    full_length: int
    content: Content | None
    offset: int
    path: str
    reads_location: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedBlock:
    """The stored form of a block, and the block it stands on, if any."""

    stored: bytes
    base: StoredBlock | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    base: Base
    block: StoredBlock
    path: str
    offset: int


class BaseBook:
    """Finds the block that a span of a new version may stand on, and its bytes.

    What the finder then knows includes the blocks of all bases that are there, which are not sent again either.
    """

    def __init__(self, store: ObjectStore, domain: DedupDomain, bases: Sequence[Base], finder: BlockFinder) -> None:
        self._finder = finder
        self._by_path: dict[tuple[str, str], _Place] = {}
        self._by_label: dict[str, _Place] = {}
        for base in bases:
            finder.adopt(base.reader.layout.blocks)
        self._reader = BlockReader(store, domain, finder.blocks)
        for base in bases:
            for entry in base.reader.manifest.files:
                self._enter(base, entry.path, entry.size)

    def find(self, path: str, span: Span) -> BaseBlock | None:
        """The block that a span may stand on, low enough that no chain gets too long."""
        if span.label is None:
            return None
        place = self._by_path.get((path, span.label)) or self._by_label.get(span.label)
        if place is None or place.block.plain_length != span.length:
            return None
        chain = self._finder.chain_of(place.block)
        if chain is None:
            return None
        # From the top of a chain that is as long as may be, one steps down to what that stands on.
        steps = max(0, len(chain) - CHAIN_MAX)
        files = place.base.files
        return BaseBlock(
            block=chain[steps],
            full_length=chain[-1].stored_length,
            content=None if steps or files is None else files.get(place.path),
            offset=place.offset,
            path=place.path,
            reads_location=place.base.reads_location,
        )

    def read(self, found: BaseBlock) -> bytes | None:
        """The plain bytes of a base, or None where they cannot be had as they should be."""
        block = found.block
        if found.content is not None:
            try:
                with open_content(found.path, found.content) as stream:
                    stream.seek(found.offset)
                    plain = stream.read(block.plain_length)
            except (InvalidInput, OSError):
                plain = b""
            if sha256_digest(plain) == block.digest:
                return plain
        if not found.reads_location:
            return None
        try:
            return self._reader.read_one(block)
        except FairleadError:
            # A base is a chance to send less. Whatever is wrong with it is found by those who look after it.
            return None

    def _enter(self, base: Base, path: str, size: int) -> None:
        blocks = base.reader.layout.files[path]
        by_offset = dict(zip(accumulate((block.plain_length for block in blocks), initial=0), blocks, strict=False))
        try:
            with self._open(base, path) as stream:
                spans = plan_spans(stream, size) or []
        except (FairleadError, OSError):
            return
        for span in spans:
            block = by_offset.get(span.offset)
            is_usable = block is not None and block.plain_length == span.length and block.digest in self._finder.blocks
            if span.label is not None and block is not None and is_usable:
                place = _Place(base=base, block=self._finder.blocks[block.digest], path=path, offset=span.offset)
                self._by_path.setdefault((path, span.label), place)
                self._by_label.setdefault(span.label, place)

    def _open(self, base: Base, path: str) -> BinaryIO:
        content = None if base.files is None else base.files.get(path)
        return base.reader.open_file(path) if content is None else open_content(path, content)


def encode_on(plain: bytes | memoryview, dtype: Dtype, base: bytes, found: BaseBlock) -> EncodedBlock:
    """The smaller of a block's stored forms: as a difference to its base if that is worth it, else alone."""
    if not _promises_less(memoryview(plain), memoryview(base), dtype, found):
        return EncodedBlock(stored=encode_block(plain, dtype), base=None)
    delta = encode_delta(plain, base, dtype)
    # So far below what its base takes that encoding it alone would only confirm it.
    if 2 * len(delta) <= found.full_length:
        return EncodedBlock(stored=delta, base=found.block)
    alone = encode_block(plain, dtype)
    if len(delta) <= len(alone) * _WORTHWHILE:
        return EncodedBlock(stored=delta, base=found.block)
    return EncodedBlock(stored=alone, base=None)


def signature_of_files(files: Mapping[str, Content]) -> str | None:
    """The tensor signature of files (see `split.tensor_signature`), by reading their headers only."""
    return _signature({path: partial(open_content, path, content) for path, content in files.items()})


def signature_of_artifact(reader: ArtifactReader) -> str | None:
    """The tensor signature of an artifact at a location, by reading the blocks of its files' headers only."""
    return _signature({path: partial(reader.open_file, path) for path in reader.layout.files})


def _signature(openers: Mapping[str, Callable[[], BinaryIO]]) -> str | None:
    spans_by_path: dict[str, list[Span]] = {}
    for path, open_file in openers.items():
        with open_file() as stream:
            spans_by_path[path] = plan_spans(stream, stream.seek(0, 2)) or []
    return tensor_signature(spans_by_path)


def _promises_less(plain: memoryview, base: memoryview, dtype: Dtype, found: BaseBlock) -> bool:
    """Whether some pieces of a large block are smaller as a difference than blocks like it are alone."""
    if len(plain) < _SAMPLED_BYTES:
        return True
    step = (len(plain) - _SAMPLE_PIECE_BYTES) // (_SAMPLE_PIECES - 1)
    starts = [index * step - index * step % 8 for index in range(_SAMPLE_PIECES)]
    sample, base_sample = (
        b"".join(view[start : start + _SAMPLE_PIECE_BYTES] for start in starts) for view in (plain, base)
    )
    return len(encode_delta(sample, base_sample, dtype)) / len(sample) <= found.full_length / len(plain)
