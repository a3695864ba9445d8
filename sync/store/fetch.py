"""Blocks out of packs: neighbours in one request, the next request under way, and every byte checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from fairlead.core.errors import CorruptBlock, CorruptPack, IntegrityError, ObjectNotFound
from fairlead.core.ids import Digest, sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.codec import decode_block
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.pack import read_pack_index

_GAP_BYTES = 64 * 2**10
_RANGE_BYTES = 8 * 2**20
_RANGES_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class BlockUse:
    """A block and the file that it is read for, which errors name."""

    block: StoredBlock
    path: str | None = None


def iter_blocks(
    store: ObjectStore, domain: DedupDomain, uses: Iterable[BlockUse], *, is_decoded: bool
) -> Generator[bytes]:
    """The blocks' bytes in the order asked for: plain (`is_decoded`) or as stored, both verified by digest.

    Raises:
        ObjectNotFound: if a pack is missing.
        CorruptPack: if a pack ends too early.
        CorruptBlock: if a block's bytes are not those of its digest.
        LocationUnavailable, PermissionDenied: from the store.
    """
    in_flight: deque[Future[list[bytes]]] = deque()
    pool = ThreadPoolExecutor(max_workers=_RANGES_IN_FLIGHT, thread_name_prefix="block-fetch")
    try:
        for group in group_uses(uses):
            in_flight.append(pool.submit(_read_group, store, domain, group, is_decoded))
            if len(in_flight) > _RANGES_IN_FLIGHT:
                yield from in_flight.popleft().result()
        while in_flight:
            yield from in_flight.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def group_uses(uses: Iterable[BlockUse]) -> Iterator[list[BlockUse]]:
    """Runs of blocks that lie near each other in one pack, in order, each small enough for one request."""
    group: list[BlockUse] = []
    for use in uses:
        if group:
            first, last = group[0].block, group[-1].block
            gap = use.block.offset - last.end
            is_near = use.block.pack == first.pack and 0 <= gap <= _GAP_BYTES
            if not is_near or use.block.end - first.offset > _RANGE_BYTES:
                yield group
                group = []
        group.append(use)
    if group:
        yield group


def read_range(store: ObjectStore, domain: DedupDomain, group: list[BlockUse]) -> list[memoryview]:
    """The stored bytes of one run of blocks, unchecked.

    Raises:
        ObjectNotFound: if the pack is missing.
        CorruptPack: if it ends too early.
    """
    first, last = group[0], group[-1]
    start = first.block.offset
    pack, path = first.block.pack, first.path
    try:
        data = memoryview(store.read(domain.pack_key(pack), start=start, length=last.block.end - start))
    except ObjectNotFound as error:
        raise ObjectNotFound(
            f"The location does not hold the pack {pack}.",
            hint="Repair it from another replica.",
            **(error.attributes | {"pack": pack, "block": first.block.digest, "file": path}),
        ) from error
    if len(data) != last.block.end - start:
        raise CorruptPack(
            f"The pack {pack} ends too early.",
            hint="Repair it from another replica.",
            pack=pack,
            block=last.block.digest,
            file=path,
        )
    return [data[use.block.offset - start : use.block.end - start] for use in group]


def check_stored(use: BlockUse, stored: memoryview) -> None:
    """Compare a block's stored bytes with the layout.

    Raises:
        CorruptBlock: if they differ.
    """
    if sha256_digest(stored) != use.block.stored_digest:
        raise _corrupt(use, "its stored bytes are not those that were written")


def decode_use(use: BlockUse, stored: memoryview) -> bytes:
    """The plain bytes of a block, from stored bytes.

    Raises:
        CorruptBlock: if they do not decode to the block's digest.
    """
    check_stored(use, stored)
    try:
        return decode_block(stored, digest=use.block.digest, plain_length=use.block.plain_length)
    except CorruptBlock as error:
        raise _corrupt(use, error.detail) from error


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


def _read_group(store: ObjectStore, domain: DedupDomain, group: list[BlockUse], is_decoded: bool) -> list[bytes]:  # noqa: FBT001 (passed on)
    pieces = read_range(store, domain, group)
    if is_decoded:
        return [decode_use(use, stored) for use, stored in zip(group, pieces, strict=True)]
    for use, stored in zip(group, pieces, strict=True):
        check_stored(use, stored)
    return [bytes(stored) for stored in pieces]


def _corrupt(use: BlockUse, reason: str) -> CorruptBlock:
    block = use.block
    return CorruptBlock(
        f"The block {block.digest} in the pack {block.pack} is damaged: {reason}.",
        hint="Repair it from another replica.",
        block=block.digest,
        pack=block.pack,
        file=use.path,
    )


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
