"""An artifact from one location to another: stored bytes travel as they are, and only those that are missing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.core.errors import IntegrityError, ObjectNotFound
from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import KnownBlocks, Progress, StoredBlock
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.fetch import BlockUse, decode_use, group_uses, iter_blocks, read_range
from fairlead.sync.store.layout import Layout, blocks_of_newest_layout, write_layout
from fairlead.sync.store.manifest import write_manifest
from fairlead.sync.store.pack import read_pack_index
from fairlead.sync.store.packing import PackWriter, find_known
from fairlead.sync.store.reader import ArtifactReader


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport:
    """What a copy did. `bytes_moved` is what was sent to the destination: packs, layout and manifest."""

    bytes_moved: int
    blocks_moved: int
    blocks_reused: int
    layout: Layout
    layout_key: str
    plain_bytes: int


def copy_artifact(
    source: ObjectStore,
    destination: ObjectStore,
    domain: DedupDomain,
    digest: Digest,
    *,
    source_layout_key: str | None = None,
    known_blocks: KnownBlocks | None = None,
    progress: Progress | None = None,
    repair: bool = False,
) -> CopyReport:
    """Bring an artifact to another location, in the same dedup domain.

    Stored bytes are checked on their way and never decoded. Interrupted anywhere, it can be run again by anyone.
    `known_blocks` says what the destination holds; without it, its newest layout of the same artifact does. With
    `repair`, those are read back first and the bad ones sent again, into packs that a newer layout names.

    Raises:
        ObjectNotFound, CorruptManifest, CorruptLayout, CorruptPack, CorruptBlock: about the source.
        LocationUnavailable, StorageFull, PermissionDenied: from either store.
    """
    reader = ArtifactReader.open(source, domain, digest, source_layout_key)
    blocks = reader.layout.blocks
    wanted = {block.digest: block.plain_length for block in blocks.values()}
    known = find_known(
        destination, domain, wanted, known_blocks or blocks_of_newest_layout(destination, domain, reader.manifest)
    )
    if repair:
        for damaged in find_damaged(destination, domain, known):
            del known[damaged]
    missing = sorted(
        (block for block in blocks.values() if block.digest not in known), key=lambda block: (block.pack, block.offset)
    )
    done, total = sum(block.plain_length for block in known.values()), sum(wanted.values())
    with PackWriter(destination, domain) as packs:
        stream = iter_blocks(source, domain, (BlockUse(block) for block in missing), is_decoded=False)
        with contextlib.closing(stream):
            for block, stored in zip(missing, stream, strict=True):
                packs.add(stored, digest=block.digest, plain_length=block.plain_length)
                done += block.plain_length
                if progress is not None:
                    progress(done, total)
        new = packs.finish()
    files = {
        path: tuple(known.get(block.digest) or new[block.digest] for block in used)
        for path, used in reader.layout.files.items()
    }
    written, layout_bytes = write_layout(destination, domain, reader.manifest, files)
    manifest_bytes = write_manifest(destination, domain, reader.manifest)
    return CopyReport(
        bytes_moved=packs.sent_bytes + layout_bytes + manifest_bytes,
        blocks_moved=len(new),
        blocks_reused=len(known),
        layout=written.layout,
        layout_key=written.key,
        plain_bytes=reader.manifest.plain_bytes,
    )


def find_damaged(store: ObjectStore, domain: DedupDomain, known: Mapping[Digest, StoredBlock]) -> set[Digest]:
    """Read blocks back and name those that are missing or damaged, or whose pack's frame or index is.

    Raises:
        LocationUnavailable, PermissionDenied: from the store; that says nothing about the blocks.
    """
    damaged: set[Digest] = set()
    by_pack: dict[Digest, list[StoredBlock]] = {}
    for block in sorted(known.values(), key=lambda block: (block.pack, block.offset)):
        by_pack.setdefault(block.pack, []).append(block)
    for pack, blocks in by_pack.items():
        try:
            listed = set(read_pack_index(store, domain, pack))
        except (IntegrityError, ObjectNotFound):
            listed: set[StoredBlock] = set()
        damaged.update(block.digest for block in blocks if block not in listed)
        for group in group_uses(BlockUse(block) for block in blocks if block in listed):
            damaged.update(_damaged_of_group(store, domain, group))
    return damaged


def _damaged_of_group(store: ObjectStore, domain: DedupDomain, group: list[BlockUse]) -> set[Digest]:
    damaged: set[Digest] = set()
    try:
        pieces = read_range(store, domain, group)
    except (IntegrityError, ObjectNotFound):
        return {use.block.digest for use in group}
    for use, stored in zip(group, pieces, strict=True):
        try:
            decode_use(use, stored)
        except IntegrityError:
            damaged.add(use.block.digest)
    return damaged
