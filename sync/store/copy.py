"""An artifact from one location to another: stored bytes travel as they are, and only those that are missing.

What is missing is planned first. A pack that is missing as a whole is copied as a whole, under its own name, so that a
copy that runs again finds it there. Blocks of packs that are wanted in part are packed anew, in one order. A delta
travels with the bases that the destination lacks. Where the copy runs at the source, what it writes is what crosses
the wire, so a block may be decoded and stored alone if its bases would cost more; at the destination what it reads
crosses the wire, and nothing is saved by that.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

from fairlead.core.errors import CorruptPack, ObjectNotFound
from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import KnownBlocks, Progress, StoredBlock
from fairlead.sync.store.chains import CHAIN_MAX, chain_of, closure_of, depth_of
from fairlead.sync.store.codec import encode_block
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.fetch import BlockReader, BlockUse, find_damaged, iter_blocks, read_stored
from fairlead.sync.store.known import BlockFinder
from fairlead.sync.store.layout import Layout, StoredLayout, blocks_of_newest_layout, write_layout
from fairlead.sync.store.manifest import write_manifest
from fairlead.sync.store.pack import PACK_TARGET_BYTES, packed_size, parse_pack
from fairlead.sync.store.packing import PackStored, PackWriter, holds_pack
from fairlead.sync.store.reader import ArtifactReader

__all__ = ["CopyPlan", "CopyReport", "Side", "copy_artifact", "find_damaged", "in_order", "plan_copy"]

Side = Literal["source", "destination"]
"""Where a copy runs: what crosses the wire is what is written there, or what is read here."""

THREADS = 4
"""How many transfers are under way at once, unless a caller says otherwise."""

# A smaller pack is merged with others on its way.
_WHOLE_PACK_BYTES = 2**20
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPlan:
    """What a copy moves. `blocks` are counted once; `bytes` are those of packs, layout and manifest together.

    `whole_packs` (name to size) travel as they are, `loose` blocks in packs of their own, and `rewritten` ones decoded
    and stored alone. `known` is what the destination has of the artifact already, with what that stands on, and
    `known_packs` (name to size) are the packs that hold it. New packs are closed at `pack_bytes`, and at most `at_once`
    are to be under way.
    """

    blocks: int
    bytes: int
    reader: ArtifactReader
    known: Mapping[Digest, StoredBlock]
    known_packs: Mapping[Digest, int]
    whole_packs: Mapping[Digest, int]
    moved: Mapping[Digest, StoredBlock]
    loose: tuple[StoredBlock, ...]
    rewritten: tuple[StoredBlock, ...]
    pack_bytes: int
    at_once: int = THREADS


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport:
    """What a copy did. Sizes are in bytes.

    `bytes_moved` is what was sent to the destination: packs, layout and manifest. `bytes_found` is what had to be sent
    by the plan, and was there whole already because an earlier copy had sent it.
    """

    bytes_planned: int
    bytes_moved: int
    bytes_found: int
    blocks_moved: int
    blocks_reused: int
    layout: Layout
    layout_key: str
    plain_bytes: int


def plan_copy(
    source: ObjectStore,
    destination: ObjectStore,
    domain: DedupDomain,
    digest: Digest,
    known_blocks: KnownBlocks | None = None,
    *,
    source_layout_key: str | None = None,
    repair: bool = False,
    pack_bytes: int = PACK_TARGET_BYTES,
    side: Side = "destination",
    threads: int = THREADS,
    reader: ArtifactReader | None = None,
) -> CopyPlan:
    """Work out what has to move, from layouts, sizes and the index alone; no pack is read, unless for a `repair`.

    See `copy_artifact`. A `reader` of the artifact at the source that is open already is not opened again.

    Raises:
        ObjectNotFound, CorruptManifest, CorruptLayout: about the source.
        LocationUnavailable, PermissionDenied: from either store.
    """
    if reader is None:
        nearer = destination if side == "destination" else None
        reader = ArtifactReader.open(source, domain, digest, source_layout_key, threads=threads, nearer=nearer)
    blocks = reader.layout.blocks
    known = known_blocks or blocks_of_newest_layout(destination, domain, reader.manifest)
    finder = BlockFinder(destination, domain, known, is_read_back=repair)
    finder.find({block.digest: block.plain_length for block in blocks.values()})
    moved, rewritten = _choose(reader.layout, finder.blocks, side)
    whole = _whole_packs(source, domain, moved, min(pack_bytes, _WHOLE_PACK_BYTES), threads)
    loose = sorted(
        (block for block in moved.values() if block.pack not in whole), key=lambda block: (block.pack, block.offset)
    )
    stored_alone = sum(_length_alone(block, blocks) for block in rewritten)
    size = sum(whole.values())
    if loose or rewritten:
        size += packed_size(
            sum(block.stored_length for block in loose) + stored_alone,
            len(loose) + len(rewritten),
            has_deltas=any(block.base for block in loose),
        )
    n_blocks = len(moved) + len(rewritten)
    manifest_bytes = reader.manifest.to_bytes()
    if n_blocks or destination.size(domain.manifest_key(digest)) != len(manifest_bytes):
        size += len(manifest_bytes) + (source.size(reader.layout_key) or 0)
    return CopyPlan(
        blocks=n_blocks,
        bytes=size,
        reader=reader,
        known=finder.blocks,
        known_packs=finder.pack_sizes,
        whole_packs=whole,
        moved=moved,
        loose=tuple(loose),
        rewritten=tuple(rewritten),
        pack_bytes=pack_bytes,
    )


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
    side: Side = "destination",
    threads: int = THREADS,
    stored: PackStored | None = None,
    plan: CopyPlan | None = None,
) -> CopyReport:
    """Bring an artifact to another location, in the same dedup domain.

    Stored bytes are checked on their way. Interrupted anywhere, it can be run again by anyone, and packs that have
    arrived are read back instead of sent again. `stored` is told of each pack that has arrived, so that an index can
    make a later run skip also what was packed anew. `known_blocks` says what the destination holds; without it, its
    newest layout of the same artifact does. With `repair`, those are read back first and the bad ones sent again. A
    pack is closed when it has `pack_bytes`. `progress` is told bytes moved and bytes to move. `side` says where this
    runs (see the module), `threads` how many transfers are under way at once; a pack of some 32 MiB is in memory for
    each. A `plan` that was just made with the same arguments is not made again.

    Raises:
        ObjectNotFound, CorruptManifest, CorruptLayout, CorruptPack, CorruptBlock: about the source.
        LocationUnavailable, StorageFull, PermissionDenied: from either store.
    """
    if plan is None:
        plan = plan_copy(
            source,
            destination,
            domain,
            digest,
            known_blocks,
            source_layout_key=source_layout_key,
            repair=repair,
            pack_bytes=pack_bytes,
            side=side,
            threads=threads,
        )
    counted = _Counted(plan, progress)
    sent = _copy_whole_packs(source, destination, domain, plan, counted, stored=stored, threads=threads)
    with PackWriter(destination, domain, target_bytes=plan.pack_bytes, threads=threads, stored=stored) as packs:
        _add_loose_blocks(source, domain, plan, packs, counted, threads=threads)
        new = packs.finish()
    counted.finish()
    blocks = {**plan.moved, **new, **plan.known}
    found = sum(plan.whole_packs.values()) - sent + packs.found_bytes
    layout, layout_bytes = _publish(destination, domain, plan, blocks)
    used = {block.digest for blocks_of_file in layout.layout.files.values() for block in blocks_of_file}
    return CopyReport(
        bytes_planned=plan.bytes,
        bytes_moved=sent + packs.sent_bytes + layout_bytes,
        bytes_found=found,
        blocks_moved=plan.blocks,
        blocks_reused=len(used & plan.known.keys()),
        layout=layout.layout,
        layout_key=layout.key,
        plain_bytes=plan.reader.manifest.plain_bytes,
    )


def _publish(
    destination: ObjectStore, domain: DedupDomain, plan: CopyPlan, blocks: Mapping[Digest, StoredBlock]
) -> tuple[StoredLayout, int]:
    """Write layout and manifest, now that all they name is there; the layout, and the bytes sent."""
    manifest = plan.reader.manifest
    files = {path: tuple(blocks[block.digest] for block in used) for path, used in plan.reader.layout.files.items()}
    used = {block.digest for blocks_of_file in files.values() for block in blocks_of_file}
    closed = closure_of((blocks[each] for each in used), blocks)
    bases = sorted((block for each, block in closed.items() if each not in used), key=lambda block: block.digest)
    layout = write_layout(
        destination, domain, manifest, files, bases, known_packs=plan.known_packs, packed_bytes=plan.bytes
    )
    manifest_bytes = write_manifest(destination, domain, manifest, is_new=layout.is_first)
    return layout.stored, layout.sent_bytes + manifest_bytes


def _choose(
    layout: Layout, known: Mapping[Digest, StoredBlock], side: Side
) -> tuple[dict[Digest, StoredBlock], list[StoredBlock]]:
    """The blocks that travel as they are stored, and those that are stored alone at the destination instead."""
    blocks = layout.blocks
    missing = [block for used in layout.files.values() for block in used if block.digest not in known]
    missing = list({block.digest: block for block in missing}.values())
    moved: dict[Digest, StoredBlock] = {block.digest: block for block in missing if block.base is None}
    alone: dict[Digest, StoredBlock] = {}
    # Lower ones first: what a file needs anyway costs a delta on it nothing.
    for block in sorted((each for each in missing if each.base is not None), key=lambda each: depth_of(each, blocks)):
        chain = chain_of(block, blocks) or [block]
        needed: list[StoredBlock] = []
        below = 0
        for each in chain:
            if each.digest in known:
                below = 1 + depth_of(known[each.digest], known)
            elif each.digest in moved:
                below = 1 + _depth_moved(each, moved, known, alone)
            elif each.digest in alone:
                below = 1
            else:
                needed.append(each)
                continue
            break
        height = len(needed) - 1 + below
        is_dear = side == "source" and sum(each.stored_length for each in needed) > chain[-1].stored_length
        if height > CHAIN_MAX or is_dear:
            alone[block.digest] = block
        else:
            moved |= {each.digest: each for each in needed}
    return moved, list(alone.values())


def _depth_moved(
    block: StoredBlock,
    moved: Mapping[Digest, StoredBlock],
    known: Mapping[Digest, StoredBlock],
    alone: Mapping[Digest, StoredBlock],
) -> int:
    """How many deltas must be undone at the destination to read a block that travels as it is stored."""
    depth = 0
    while block.base is not None:
        depth += 1
        if block.base in known:
            return depth + depth_of(known[block.base], known)
        if block.base in alone:
            return depth
        block = moved[block.base]
    return depth


def _length_alone(block: StoredBlock, blocks: Mapping[Digest, StoredBlock]) -> int:
    """About what a delta would take if it were stored alone: what stands at the bottom of its chain does."""
    return (chain_of(block, blocks) or [block])[-1].stored_length


def _whole_packs(
    source: ObjectStore, domain: DedupDomain, moved: Mapping[Digest, StoredBlock], least_bytes: int, threads: int
) -> dict[Digest, int]:
    """The packs of which every block travels, and their sizes."""
    by_pack: dict[Digest, list[StoredBlock]] = {}
    for block in moved.values():
        by_pack.setdefault(block.pack, []).append(block)

    def stored_bytes(pack: Digest) -> int:
        return sum(block.stored_length for block in by_pack[pack])

    large = [pack for pack in by_pack if stored_bytes(pack) >= least_bytes]

    def look(pack: Digest) -> int:
        return source.size(domain.pack_key(pack)) or 0

    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pack-look") as pool:
        sizes = dict(zip(large, pool.map(look, large), strict=True))
    return {
        pack: size
        for pack, size in sizes.items()
        if size in {packed_size(stored_bytes(pack), len(by_pack[pack]), has_deltas=has) for has in (False, True)}
    }


def _copy_whole_packs(
    source: ObjectStore,
    destination: ObjectStore,
    domain: DedupDomain,
    plan: CopyPlan,
    counted: _Counted,
    *,
    stored: PackStored | None,
    threads: int,
) -> int:
    """Copy packs as they are, several at a time; the bytes sent."""
    by_pack: dict[Digest, list[StoredBlock]] = {}
    for block in plan.moved.values():
        by_pack.setdefault(block.pack, []).append(block)

    def copy(pack: Digest) -> int:
        size, sent = plan.whole_packs[pack], 0
        if not holds_pack(destination, domain, pack, size):
            data = _read_pack(source, domain, pack, by_pack[pack])
            destination.write(domain.pack_key(pack), data)
            sent = size
        if stored is not None:
            stored(by_pack[pack])
        return sent

    sent = 0
    for pack, sent_of_pack in in_order(list(plan.whole_packs), copy, threads):
        sent += sent_of_pack
        counted.add(plan.whole_packs[pack])
    return sent


def _read_pack(source: ObjectStore, domain: DedupDomain, pack: Digest, blocks: Sequence[StoredBlock]) -> bytes:
    try:
        data = source.read(domain.pack_key(pack))
    except ObjectNotFound as error:
        raise ObjectNotFound(
            f"The location does not hold the pack {pack}.",
            hint="Repair it from another replica.",
            **(error.attributes | {"pack": pack}),
        ) from error
    unlisted = set(blocks).difference(parse_pack(pack, data))
    for block in unlisted:
        raise CorruptPack(
            f"The index of the pack {pack} does not list the block {block.digest} where the layout has it.",
            pack=pack,
            block=block.digest,
        )
    return data


def _add_loose_blocks(
    source: ObjectStore, domain: DedupDomain, plan: CopyPlan, packs: PackWriter, counted: _Counted, *, threads: int
) -> None:
    """Pack what does not travel in whole packs, in one order."""
    uses = (BlockUse(block) for block in plan.loose)
    found = iter_blocks(source, domain, uses, is_decoded=False, threads=threads)
    with contextlib.closing(found):
        for block, stored in zip(plan.loose, found, strict=True):
            packs.add(
                stored,
                digest=block.digest,
                plain_length=block.plain_length,
                codec=block.codec,
                base=block.base,
                stored_digest=block.stored_digest,
            )
            counted.add(len(stored))
    reader = BlockReader(source, domain, plan.reader.layout.blocks)

    def rewrite(block: StoredBlock) -> bytes:
        # Both stored forms name the dtype in their fifth byte.
        dtype = Dtype(read_stored(source, domain, [BlockUse(block)])[0][4])
        return encode_block(reader.read_one(block), dtype)

    for block, stored in in_order(plan.rewritten, rewrite, threads):
        packs.add(stored, digest=block.digest, plain_length=block.plain_length)
        counted.add(len(stored))


def in_order(items: Iterable[_T], action: Callable[[_T], _R], threads: int) -> Iterator[tuple[_T, _R]]:
    """Do something with each item, `threads` at a time, and give the results in order; no more than those wait."""
    in_flight: deque[tuple[_T, Future[_R]]] = deque()
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="block-copy")
    try:
        for item in items:
            if len(in_flight) >= threads:
                done, future = in_flight.popleft()
                yield done, future.result()
            in_flight.append((item, pool.submit(action, item)))
        while in_flight:
            done, future = in_flight.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Counted:
    """Tells a copy's progress."""

    def __init__(self, plan: CopyPlan, progress: Progress | None) -> None:
        self._progress = progress
        self._done, self._total = 0, plan.bytes

    def add(self, n_bytes: int) -> None:
        self._done = min(self._total, self._done + n_bytes)
        if self._progress is not None:
            self._progress(self._done, self._total)

    def finish(self) -> None:
        self.add(self._total)
