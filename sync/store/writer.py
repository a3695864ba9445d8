"""Files into a location: split, look up, encode what is missing, and publish.

The order is packs, then layout, then manifest: what a reader finds always has everything below it. Every step may be
repeated, so a writer that was killed is finished by running it again.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fairlead.core.errors import InvalidInput
from fairlead.core.ids import Digest, sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import KnownBlocks, Progress, StoredBlock
from fairlead.sync.store.codec import encode_block
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.fetch import find_damaged
from fairlead.sync.store.layout import Layout, blocks_of_newest_layout, write_layout
from fairlead.sync.store.manifest import FileEntry, Manifest, Source, list_files, open_content, write_manifest
from fairlead.sync.store.pack import PACK_TARGET_BYTES
from fairlead.sync.store.packing import PackWriter, find_known
from fairlead.sync.store.split import Span, iter_spans

_ENCODERS = 2
_BLOCKS_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenArtifact:
    """An artifact that a location now holds.

    `plain_bytes` is the size of its files, `sent_bytes` what was sent to the location (packs, layout and manifest);
    `new_blocks` were stored by this call, `reused_blocks` were there already.
    """

    manifest: Manifest
    layout: Layout
    layout_key: str
    plain_bytes: int
    sent_bytes: int
    new_blocks: int
    reused_blocks: int

    @property
    def digest(self) -> Digest:
        """The artifact's name."""
        return self.layout.artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class _ScannedFile:
    entry: FileEntry
    content: Path | bytes
    blocks: tuple[tuple[Span, Digest], ...]


def write_artifact(
    store: ObjectStore,
    domain: DedupDomain,
    source: Source,
    *,
    known_blocks: KnownBlocks | None = None,
    progress: Progress | None = None,
    repair: bool = False,
    pack_bytes: int = PACK_TARGET_BYTES,
) -> WrittenArtifact:
    """Store a file, a folder, or a mapping from path to file or bytes, as an artifact.

    `known_blocks` says which blocks the location holds in this domain; without it, the newest layout that the location
    has of the same artifact does. With `repair`, those are read back first and the bad ones stored again. A pack is
    closed when it has `pack_bytes`.

    Running it again, also after it was killed, is safe, and sends nothing where nothing changed. Memory is bounded by
    blocks and packs in flight, not by file size.

    Raises:
        InvalidManifest: if a path cannot stand in an artifact.
        InvalidInput: if a file is missing, or changes while it is read.
        LocationUnavailable, StorageFull, PermissionDenied: from the store.
    """
    scanned = [_scan(path, content) for path, content in sorted(list_files(source).items())]
    manifest = Manifest(files=tuple(file.entry for file in scanned))
    wanted = {digest: span.length for file in scanned for span, digest in file.blocks}
    known = find_known(store, domain, wanted, known_blocks or blocks_of_newest_layout(store, domain, manifest))
    if repair:
        for damaged in find_damaged(store, domain, known):
            del known[damaged]
    with PackWriter(store, domain, target_bytes=pack_bytes) as packs:
        _send_missing(scanned, known, packs, manifest.plain_bytes, progress)
        new = packs.finish()
    files = {file.entry.path: tuple(known.get(digest) or new[digest] for _, digest in file.blocks) for file in scanned}
    stored, layout_bytes = write_layout(store, domain, manifest, files)
    manifest_bytes = write_manifest(store, domain, manifest)
    return WrittenArtifact(
        manifest=manifest,
        layout=stored.layout,
        layout_key=stored.key,
        plain_bytes=manifest.plain_bytes,
        sent_bytes=packs.sent_bytes + layout_bytes + manifest_bytes,
        new_blocks=len(new),
        reused_blocks=len(known),
    )


def _scan(path: str, content: Path | bytes) -> _ScannedFile:
    """Read a file once: its digest, and where it is cut and the digest of each block."""
    hasher = hashlib.sha256()
    blocks: list[tuple[Span, Digest]] = []
    with open_content(path, content) as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        for span, data in iter_spans(stream, size):
            hasher.update(data)
            blocks.append((span, sha256_digest(data)))
        if sum(span.length for span, _ in blocks) != size or stream.read(1):
            raise _changed(path)
    entry = FileEntry(path=path, size=size, digest=Digest("sha256:" + hasher.hexdigest()))
    return _ScannedFile(entry=entry, content=content, blocks=tuple(blocks))


def _send_missing(
    scanned: Sequence[_ScannedFile],
    known: Mapping[Digest, StoredBlock],
    packs: PackWriter,
    total: int,
    progress: Progress | None,
) -> None:
    """Encode the blocks that are not known, two at a time, and add them in order."""
    sent: set[Digest] = set()
    done = 0

    def finish(future: Future[tuple[Digest, int, bytes]]) -> int:
        digest, plain_length, stored = future.result()
        packs.add(stored, digest=digest, plain_length=plain_length)
        return plain_length

    def report() -> None:
        if progress is not None:
            progress(done, total)

    in_flight: deque[Future[tuple[Digest, int, bytes]]] = deque()
    pool = ThreadPoolExecutor(max_workers=_ENCODERS, thread_name_prefix="block-encode")
    try:
        for file in scanned:
            missing: list[tuple[Span, Digest]] = []
            for span, digest in file.blocks:
                if digest in known or digest in sent:
                    done += span.length
                else:
                    sent.add(digest)
                    missing.append((span, digest))
            for span, digest, plain in _read_spans(file, missing):
                in_flight.append(pool.submit(_encode, file.entry.path, plain, span.dtype, digest))
                if len(in_flight) >= _BLOCKS_IN_FLIGHT:
                    done += finish(in_flight.popleft())
                    report()
        while in_flight:
            done += finish(in_flight.popleft())
            report()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    report()


def _read_spans(file: _ScannedFile, wanted: Sequence[tuple[Span, Digest]]) -> Iterator[tuple[Span, Digest, bytes]]:
    if not wanted:
        return
    with open_content(file.entry.path, file.content) as stream:
        for span, digest in wanted:
            stream.seek(span.offset)
            yield span, digest, stream.read(span.length)


def _encode(path: str, plain: bytes, dtype: Dtype, digest: Digest) -> tuple[Digest, int, bytes]:
    if sha256_digest(plain) != digest:
        raise _changed(path)
    return digest, len(plain), encode_block(plain, dtype)


def _changed(path: str) -> InvalidInput:
    return InvalidInput(
        f"The file {path!r} changed while it was read.", hint="Let its writer finish, then run it again.", file=path
    )
