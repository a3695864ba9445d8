"""A copy in pieces that any process can do: each brings one pack to the destination, and says where its blocks are.

The pieces of a plan are the packs that `copy_artifact` would write, block by block and in its order. So whoever does
them, and wherever, the destination ends up with the same objects, and the copy that follows finds nothing missing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fairlead.core.errors import CorruptPack
from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.copy import CopyPlan, in_order
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.fetch import BlockUse, iter_blocks
from fairlead.sync.store.pack import PACK_TARGET_BYTES, packed_size, parse_pack
from fairlead.sync.store.packing import PackWriter, holds_pack

LOSS_SHARE = 0.4
"""What part of a copy may be in flight at once: one that dies and is made again then moves less than 1.5 times it."""

# What a request costs would buy about a tenth of this in egress.
_LEAST_PACK_BYTES = 512 * 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class PackPiece:
    """One pack to bring: `pack` as a whole, or None for a new one of these blocks, which is closed at `pack_bytes`."""

    pack: Digest | None
    blocks: tuple[StoredBlock, ...]
    size_bytes: int
    pack_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BroughtPack:
    """Where the blocks of a piece are at the destination, what was read to bring them, and by which process."""

    blocks: tuple[StoredBlock, ...]
    size_bytes: int
    read_bytes: int
    process: str


def pieces_of(plan: CopyPlan) -> Iterator[PackPiece]:
    """The packs that a plan brings, whole ones first."""
    by_pack: dict[Digest, list[StoredBlock]] = {}
    for block in plan.moved.values():
        by_pack.setdefault(block.pack, []).append(block)
    for pack, size in plan.whole_packs.items():
        yield PackPiece(pack=pack, blocks=tuple(by_pack[pack]), size_bytes=size, pack_bytes=plan.pack_bytes)
    batch: list[StoredBlock] = []
    for block in plan.loose:
        batch.append(block)
        if _size(batch) >= min(plan.pack_bytes, PACK_TARGET_BYTES):
            yield _new_pack(batch, plan)
            batch = []
    if batch:
        yield _new_pack(batch, plan)


def with_bounded_loss(plan: CopyPlan, threads: int) -> CopyPlan:
    """A plan of which so few and small packs are brought at once that a worker that dies loses a small part of it.

    What is in flight then has to be read again. Of a large artifact that are some packs among many; of a small one
    fewer are brought at once, or it is cut into smaller packs. None is smaller than what asking for it costs.
    """
    bound = int(plan.bytes * LOSS_SHARE)
    packs = [*plan.whole_packs.values(), *([plan.pack_bytes] if plan.loose else [])]
    for fewer in range(threads, min(threads, 2) - 1, -1):
        if fewer * max(packs, default=0) <= bound:
            return replace(plan, at_once=fewer)
    blocks = sorted(plan.moved.values(), key=lambda block: (block.pack, block.offset))
    # A pack is closed by the block that fills it.
    largest = max((block.stored_length for block in blocks), default=0)
    least = min(_LEAST_PACK_BYTES, plan.pack_bytes)
    for fewer in range(threads, 1, -1):
        if bound // fewer - largest >= least:
            break
    else:
        fewer = 1
    pack_bytes = min(plan.pack_bytes, max(least, bound // fewer - largest))
    return replace(plan, whole_packs={}, loose=tuple(blocks), pack_bytes=pack_bytes, at_once=fewer)


def bring_packs(
    source: ObjectStore, destination: ObjectStore, domain: DedupDomain, plan: CopyPlan, threads: int
) -> Iterator[BroughtPack]:
    """Bring the packs of a plan in this process, so many at once, each read, written and done with by itself."""
    for _, brought in in_order(pieces_of(plan), lambda piece: bring_pack(source, destination, domain, piece), threads):
        yield brought


def bring_pack(source: ObjectStore, destination: ObjectStore, domain: DedupDomain, piece: PackPiece) -> BroughtPack:
    """Bring one pack; what is there whole already is not read at the source.

    Raises:
        ObjectNotFound, CorruptPack, CorruptBlock: about the source.
        LocationUnavailable, StorageFull, PermissionDenied: from either store.
    """
    read_bytes = 0
    blocks = piece.blocks
    if piece.pack is None:
        uses = (BlockUse(block) for block in piece.blocks)
        with PackWriter(destination, domain, target_bytes=piece.pack_bytes, threads=1) as packs:
            for block, stored in zip(piece.blocks, iter_blocks(source, domain, uses, is_decoded=False), strict=True):
                read_bytes += len(stored)
                packs.add(
                    stored,
                    digest=block.digest,
                    plain_length=block.plain_length,
                    codec=block.codec,
                    base=block.base,
                    stored_digest=block.stored_digest,
                )
            new = packs.finish()
        blocks = tuple(new[block.digest] for block in piece.blocks)
    elif not holds_pack(destination, domain, piece.pack, piece.size_bytes):
        key = domain.pack_key(piece.pack)
        data = source.read(key)
        read_bytes = len(data)
        if not set(blocks) <= set(parse_pack(piece.pack, data)):
            raise CorruptPack(
                f"The index of the pack {piece.pack} does not list what the layout says of it.", pack=piece.pack
            )
        destination.write(key, data)
    return BroughtPack(
        blocks=blocks,
        size_bytes=piece.size_bytes,
        read_bytes=read_bytes,
        process=f"{socket.gethostname()}/{os.getpid()}",
    )


def _size(batch: list[StoredBlock]) -> int:
    stored_bytes = sum(block.stored_length for block in batch)
    return packed_size(stored_bytes, len(batch), has_deltas=any(block.base for block in batch))


def _new_pack(batch: list[StoredBlock], plan: CopyPlan) -> PackPiece:
    return PackPiece(pack=None, blocks=tuple(batch), size_bytes=_size(batch), pack_bytes=plan.pack_bytes)
