"""Files into a location: cut, look up, encode what is missing, and publish, in one reading of the files.

The order is packs, then layout, then manifest: what a reader finds always has everything below it. Every step may be
repeated, so a writer that was killed is finished by running it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.bases import Base, BaseBook
from fairlead.sync.store.blocks import KnownBlocks, Progress, no_blocks
from fairlead.sync.store.chains import closure_of
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.known import BlockFinder, among, either
from fairlead.sync.store.layout import Layout, blocks_of_newest_layout, write_layout
from fairlead.sync.store.manifest import Manifest, Source, build_manifest, list_files, write_manifest
from fairlead.sync.store.pack import PACK_TARGET_BYTES
from fairlead.sync.store.packing import PackWriter
from fairlead.sync.store.pipeline import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenArtifact:
    """An artifact that a location now holds.

    `plain_bytes` is the size of its files, `sent_bytes` what was sent to the location (packs, layout and manifest);
    `new_blocks` were stored by this call, `delta_blocks` of them as differences to a base, `reused_blocks` were there
    already.
    """

    manifest: Manifest
    layout: Layout
    layout_key: str
    plain_bytes: int
    sent_bytes: int
    new_blocks: int
    delta_blocks: int
    reused_blocks: int

    @property
    def digest(self) -> Digest:
        """The artifact's name."""
        return self.layout.artifact


def write_artifact(
    store: ObjectStore,
    domain: DedupDomain,
    source: Source,
    *,
    known_blocks: KnownBlocks | None = None,
    bases: Sequence[Base] = (),
    progress: Progress | None = None,
    repair: bool = False,
    pack_bytes: int = PACK_TARGET_BYTES,
) -> WrittenArtifact:
    """Store a file, a folder, or a mapping from path to file, bytes or opener, as an artifact.

    `known_blocks` says which blocks the location holds in this domain; it is asked in parts, from another thread, while
    the files are read. Without it, the newest layout that the location has of the same artifact does, and to learn its
    name the files are read once more where the location holds any. With `repair`, known blocks are read back first and
    the bad ones stored again. A pack is closed when it has `pack_bytes`.

    Blocks that are missing are stored as differences to those of `bases`, the first one first, wherever that is
    smaller. Which bases are given never changes the artifact's name.

    Running it again, also after it was killed, is safe, and sends nothing twice. Memory is bounded by blocks and packs
    in flight (about 300 MiB), not by file size; all cores are used.

    Raises:
        InvalidManifest: if a path cannot stand in an artifact.
        InvalidInput: if a file is missing, or changes while it is read.
        LocationUnavailable, StorageFull, PermissionDenied: from the store.
    """
    files = dict(sorted(list_files(source).items()))
    known = known_blocks or _known_without_index(store, domain, source)
    layouts = (among(base.reader.layout.blocks) for base in bases)
    finder = BlockFinder(store, domain, either(known, *layouts), is_read_back=repair)
    book = BaseBook(store, domain, bases, finder)
    with (
        PackWriter(store, domain, target_bytes=pack_bytes) as packs,
        Pipeline(finder, book, packs, files, progress) as pipeline,
    ):
        manifest = Manifest(files=tuple(pipeline.send(path) for path in files))
        digests = pipeline.finish()
        new = packs.finish()
    # What is known stands in a sound set, and new blocks stand only on that.
    blocks = {**new, **finder.blocks}
    placed = {path: tuple(blocks[digest] for digest in used) for path, used in digests.items()}
    closed = closure_of((block for used in placed.values() for block in used), blocks)
    used = {digest for used in digests.values() for digest in used}
    bases_below = [block for digest, block in closed.items() if digest not in used]
    layout = write_layout(
        store,
        domain,
        manifest,
        placed,
        bases_below,
        known_packs=finder.pack_sizes,
        packed_bytes=packs.sent_bytes + packs.found_bytes,
    )
    manifest_bytes = write_manifest(store, domain, manifest, is_new=layout.is_first)
    return WrittenArtifact(
        manifest=manifest,
        layout=layout.stored.layout,
        layout_key=layout.stored.key,
        plain_bytes=manifest.plain_bytes,
        sent_bytes=packs.sent_bytes + layout.sent_bytes + manifest_bytes,
        new_blocks=len(new),
        delta_blocks=sum(block.base is not None for block in new.values()),
        reused_blocks=len(used - new.keys()),
    )


def _known_without_index(store: ObjectStore, domain: DedupDomain, source: Source) -> KnownBlocks:
    if next(iter(store.list(domain.layout_prefix())), None) is None:
        return no_blocks
    return blocks_of_newest_layout(store, domain, build_manifest(source))
