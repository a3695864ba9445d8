"""An artifact from one location to another: stored bytes travel as they are, and only those that are missing."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import KnownBlocks, Progress
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.fetch import BlockUse, find_damaged, iter_blocks
from fairlead.sync.store.layout import Layout, blocks_of_newest_layout, write_layout
from fairlead.sync.store.manifest import write_manifest
from fairlead.sync.store.pack import PACK_TARGET_BYTES
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
    pack_bytes: int = PACK_TARGET_BYTES,
) -> CopyReport:
    """Bring an artifact to another location, in the same dedup domain.

    Stored bytes are checked on their way and never decoded. Interrupted anywhere, it can be run again by anyone.
    `known_blocks` says what the destination holds; without it, its newest layout of the same artifact does. With
    `repair`, those are read back first and the bad ones sent again, into packs that a newer layout names. A
    pack is closed when it has `pack_bytes`.

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
    with PackWriter(destination, domain, target_bytes=pack_bytes) as packs:
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
