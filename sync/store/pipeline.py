"""The stages that a file's blocks go through on their way into packs, each at work on other blocks at one time.

    read and cut -> hash -> look up what is known (in batches) -> encode -> pack -> upload

Blocks leave in the order in which they were read, so equal files make equal packs. What is in memory is a batch being
read, a batch being looked up, and the blocks and packs in flight behind them.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from fairlead.core.errors import InvalidInput
from fairlead.core.ids import Digest, sha256_digest
from fairlead.sync.store.bases import BaseBlock, BaseBook, EncodedBlock, encode_on
from fairlead.sync.store.blocks import Progress
from fairlead.sync.store.codec import CODEC, encode_block
from fairlead.sync.store.delta import DELTA_CODEC
from fairlead.sync.store.known import BlockFinder
from fairlead.sync.store.manifest import Content, FileEntry, open_content
from fairlead.sync.store.packing import PackWriter
from fairlead.sync.store.split import Span, iter_spans

_BATCH_BYTES = 32 * 2**20
_BATCH_BLOCKS = 1000


@dataclass(frozen=True, slots=True)
class _Piece:
    path: str
    span: Span
    plain: bytes | memoryview
    digest: Future[Digest]


@dataclass(frozen=True, slots=True)
class _Encoded:
    digest: Digest
    stored_digest: Digest
    plain_length: int
    form: EncodedBlock


@dataclass(frozen=True, slots=True)
class _Batch:
    pieces: deque[_Piece]
    lookup: Future[None]


class Pipeline:
    """Sends files, one after the other; what the finder knows, or what was sent before, is not sent again."""

    def __init__(
        self,
        finder: BlockFinder,
        book: BaseBook,
        packs: PackWriter,
        files: Mapping[str, Content],
        progress: Progress | None,
    ) -> None:
        self._finder = finder
        self._book = book
        self._packs = packs
        self._files = files
        self._progress = progress
        self._total = sum(_size(path, content) for path, content in files.items())
        self._done = 0
        threads = max(2, os.cpu_count() or 1)
        self._workers = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="block-encode")
        self._encoding_at_most = 2 * threads
        self._asker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="block-lookup")
        self._pieces: deque[_Piece] = deque()
        self._pieces_bytes = 0
        self._batch: _Batch | None = None
        self._encoding: deque[Future[_Encoded]] = deque()
        self._sent: set[Digest] = set()
        self._digests: dict[str, list[Digest]] = {path: [] for path in files}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in (self._asker, self._workers):
            pool.shutdown(wait=True, cancel_futures=True)

    def send(self, path: str) -> FileEntry:
        """Read one file and send what is missing of it, sooner or later.

        Raises:
            InvalidInput: if it cannot be read, or changes while it is read.
            LocationUnavailable, StorageFull, PermissionDenied: from the store.
        """
        hasher = hashlib.sha256()
        position = 0
        with open_content(path, self._files[path]) as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            before = _stamp(self._files[path])
            for span, view in iter_spans(stream, size):
                # Its bytes may be another's soon, unless they are a `bytes` of its own.
                plain = view if isinstance(view.obj, bytes) else bytes(view)
                self._pieces.append(_Piece(path, span, plain, self._workers.submit(sha256_digest, plain)))
                self._pieces_bytes += span.length
                hasher.update(plain)
                position += span.length
                if self._pieces_bytes >= _BATCH_BYTES or len(self._pieces) >= _BATCH_BLOCKS:
                    self._close_batch()
            if position != size or stream.read(1) or _stamp(self._files[path]) != before:
                raise InvalidInput(
                    f"The file {path!r} changed while it was read.",
                    hint="Let its writer finish, then run it again.",
                    file=path,
                )
        return FileEntry(path=path, size=size, digest=Digest("sha256:" + hasher.hexdigest()))

    def finish(self) -> dict[str, tuple[Digest, ...]]:
        """Send what is under way; the blocks of each file, in order.

        Raises:
            LocationUnavailable, StorageFull, PermissionDenied: from the store.
        """
        self._close_batch()
        self._close_batch()
        while self._encoding:
            self._pack_next()
        self._report()
        return {path: tuple(digests) for path, digests in self._digests.items()}

    def _close_batch(self) -> None:
        """Have the batch that was read looked up, and encode the one that was looked up meanwhile."""
        pieces, self._pieces, self._pieces_bytes = self._pieces, deque(), 0
        before, self._batch = self._batch, None
        if pieces:
            self._batch = _Batch(pieces, self._asker.submit(self._look_up, pieces))
        if before is not None:
            before.lookup.result()
            while before.pieces:
                self._encode(before.pieces.popleft())

    def _look_up(self, pieces: deque[_Piece]) -> None:
        self._finder.find({piece.digest.result(): piece.span.length for piece in tuple(pieces)})

    def _encode(self, piece: _Piece) -> None:
        digest = piece.digest.result()
        self._digests[piece.path].append(digest)
        if digest in self._sent or digest in self._finder.blocks:
            self._done += piece.span.length
            self._report()
            return
        self._sent.add(digest)
        while len(self._encoding) >= self._encoding_at_most:
            self._pack_next()
        found = self._book.find(piece.path, piece.span)
        self._encoding.append(self._workers.submit(self._encode_piece, piece, digest, found))

    def _encode_piece(self, piece: _Piece, digest: Digest, found: BaseBlock | None) -> _Encoded:
        base = None if found is None else self._book.read(found)
        if found is None or base is None:
            form = EncodedBlock(stored=encode_block(piece.plain, piece.span.dtype), base=None)
        else:
            form = encode_on(piece.plain, piece.span.dtype, base, found)
        return _Encoded(digest, sha256_digest(form.stored), len(piece.plain), form)

    def _pack_next(self) -> None:
        block = self._encoding.popleft().result()
        base = block.form.base
        self._packs.add(
            block.form.stored,
            digest=block.digest,
            plain_length=block.plain_length,
            codec=CODEC if base is None else DELTA_CODEC,
            base=None if base is None else base.digest,
            stored_digest=block.stored_digest,
        )
        self._done += block.plain_length
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total)


def _stamp(content: Content) -> tuple[int, int] | None:
    """What changes with a file: one that was read half before a change and half after it is nobody's."""
    if not isinstance(content, Path):
        return None
    try:
        status = content.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _size(path: str, content: Content) -> int:
    if isinstance(content, bytes):
        return len(content)
    with open_content(path, content) as stream:
        return stream.seek(0, 2)
