"""Blocks out of packs: neighbours in one request, the next requests under way, and every byte checked.

A delta is read with its base, which may be a delta itself. The bases of neighbours are mostly neighbours too, so they
are fetched by the same rule. Memory is bounded by the runs in flight and by a small cache of bases.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from fairlead.core.errors import CorruptBlock, CorruptPack, IntegrityError, ObjectNotFound
from fairlead.core.ids import Digest, sha256_digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store import codec, delta
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.chains import CHAIN_MAX, sound_blocks
from fairlead.sync.store.codec import decode_block
from fairlead.sync.store.delta import decode_delta
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.pack import read_pack_index

READERS = 2
"""How many runs of blocks are fetched and decoded at once, unless a caller says otherwise."""

_GAP_BYTES = 64 * 2**10
_RANGE_BYTES = 8 * 2**20
_PLAIN_BYTES = 12 * 2**20
_CACHE_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class BlockUse:
    """A block and the file that it is read for, which errors name."""

    block: StoredBlock
    path: str | None = None


class BlockReader:
    """Reads plain blocks out of one location. `blocks` are those that deltas stand on; safe to use from many threads.

    With `is_stored_checked`, stored bytes are compared with the layout even where they decode to the right plain ones.
    Without `is_plain_checked`, plain bytes are not compared with their digests, for callers that compare whole files.
    """

    def __init__(
        self,
        store: ObjectStore,
        domain: DedupDomain,
        blocks: Mapping[Digest, StoredBlock],
        *,
        is_stored_checked: bool = False,
        is_plain_checked: bool = True,
    ) -> None:
        self._store = store
        self._domain = domain
        self._blocks = blocks
        self._decode = _decode if is_plain_checked else _decode_unchecked
        self._is_stored_checked = is_stored_checked
        self._lock = threading.Lock()
        self._cache: OrderedDict[Digest, bytes] = OrderedDict()
        self._cached_bytes = 0

    def read(self, group: Sequence[BlockUse]) -> list[bytes]:
        """The plain bytes of one run of blocks (see `group_uses`).

        Raises:
            ObjectNotFound, CorruptPack, CorruptBlock: naming pack, block and file.
            LocationUnavailable, PermissionDenied: from the store.
        """
        return self._read(group, CHAIN_MAX)

    def read_one(self, block: StoredBlock, path: str | None = None) -> bytes:
        """The plain bytes of one block.

        Raises:
            ObjectNotFound, CorruptPack, CorruptBlock: naming pack, block and file.
            LocationUnavailable, PermissionDenied: from the store.
        """
        return self.read([BlockUse(block, path)])[0]

    def _read(self, group: Sequence[BlockUse], depth: int) -> list[bytes]:
        pieces = read_range(self._store, self._domain, group)
        bases = self._read_bases(group, depth)
        plain: list[bytes] = []
        for use, stored in zip(group, pieces, strict=True):
            if self._is_stored_checked:
                check_stored(use, stored)
            plain.append(self._decode(use, stored, None if use.block.base is None else bases[use.block.base]))
        return plain

    def _read_bases(self, group: Sequence[BlockUse], depth: int) -> dict[Digest, bytes]:
        found: dict[Digest, bytes] = {}
        missing: dict[Digest, BlockUse] = {}
        for use in group:
            digest = use.block.base
            if digest is None or digest in found or digest in missing:
                continue
            if (cached := self._cached(digest)) is not None:
                found[digest] = cached
                continue
            base = self._blocks.get(digest)
            if base is None or not depth:
                raise _corrupt(use, f"the block {digest} that it stands on is not known, or stands too high itself")
            missing[digest] = BlockUse(base, use.path)
        in_order = sorted(missing.values(), key=lambda use: (use.block.pack, use.block.offset))
        for some in group_uses(in_order):
            for use, plain in zip(some, self._read(some, depth - 1), strict=True):
                found[use.block.digest] = plain
                self._keep(use.block.digest, plain)
        return found

    def _cached(self, digest: Digest) -> bytes | None:
        with self._lock:
            if digest in self._cache:
                self._cache.move_to_end(digest)
            return self._cache.get(digest)

    def _keep(self, digest: Digest, plain: bytes) -> None:
        with self._lock:
            if digest not in self._cache:
                self._cache[digest] = plain
                self._cached_bytes += len(plain)
            while self._cached_bytes > _CACHE_BYTES:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= len(dropped)


def iter_blocks(
    store: ObjectStore,
    domain: DedupDomain,
    uses: Iterable[BlockUse],
    *,
    is_decoded: bool,
    blocks: Mapping[Digest, StoredBlock] | None = None,
    is_stored_checked: bool = True,
    is_plain_checked: bool = True,
    threads: int = READERS,
) -> Generator[bytes]:
    """The blocks' bytes in the order asked for: plain (`is_decoded`) or as stored, both verified by digest.

    Without `is_plain_checked`, plain bytes are not, for callers that compare whole files. `blocks` holds the bases of
    those that are deltas, as a layout's `blocks` do.

    Raises:
        ObjectNotFound: if a pack is missing.
        CorruptPack: if a pack ends too early.
        CorruptBlock: if a block's bytes are not those of its digest.
        LocationUnavailable, PermissionDenied: from the store.
    """
    reader = BlockReader(
        store, domain, blocks or {}, is_stored_checked=is_stored_checked, is_plain_checked=is_plain_checked
    )

    def read(group: list[BlockUse]) -> list[bytes]:
        return reader.read(group) if is_decoded else read_stored(store, domain, group)

    in_flight: deque[Future[list[bytes]]] = deque()
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="block-fetch")
    try:
        for group in group_uses(uses):
            in_flight.append(pool.submit(read, group))
            if len(in_flight) > threads:
                yield from in_flight.popleft().result()
        while in_flight:
            yield from in_flight.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def group_uses(uses: Iterable[BlockUse]) -> Iterator[list[BlockUse]]:
    """Runs of blocks that lie near each other in one pack, in order, each small enough for one request."""
    group: list[BlockUse] = []
    plain_bytes = 0
    for use in uses:
        if group:
            first, last = group[0].block, group[-1].block
            gap = use.block.offset - last.end
            is_near = use.block.pack == first.pack and 0 <= gap <= _GAP_BYTES
            is_small = use.block.end - first.offset <= _RANGE_BYTES
            if not is_near or not is_small or plain_bytes + use.block.plain_length > _PLAIN_BYTES:
                yield group
                group, plain_bytes = [], 0
        group.append(use)
        plain_bytes += use.block.plain_length
    if group:
        yield group


def read_range(store: ObjectStore, domain: DedupDomain, group: Sequence[BlockUse]) -> list[memoryview]:
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


def read_stored(store: ObjectStore, domain: DedupDomain, group: Sequence[BlockUse]) -> list[bytes]:
    """The stored bytes of one run of blocks, compared with the layout.

    Raises:
        ObjectNotFound, CorruptPack, CorruptBlock: naming pack, block and file.
    """
    pieces = read_range(store, domain, group)
    for use, stored in zip(group, pieces, strict=True):
        check_stored(use, stored)
    return [bytes(stored) for stored in pieces]


def check_stored(use: BlockUse, stored: memoryview) -> None:
    """Compare a block's stored bytes with the layout.

    Raises:
        CorruptBlock: if they differ.
    """
    if sha256_digest(stored) != use.block.stored_digest:
        raise _corrupt(use, "its stored bytes are not those that were written")


def find_damaged(
    store: ObjectStore, domain: DedupDomain, known: Mapping[Digest, StoredBlock], *, threads: int = READERS
) -> set[Digest]:
    """Read blocks back and name those that are missing or damaged, or whose pack's frame or index is.

    A delta whose own bytes are right is not damaged because its base is; it can be read again when the base is mended.

    Raises:
        LocationUnavailable, PermissionDenied: from the store; that says nothing about the blocks.
    """
    by_pack: dict[Digest, list[StoredBlock]] = {}
    for block in sorted(known.values(), key=lambda block: (block.pack, block.offset)):
        by_pack.setdefault(block.pack, []).append(block)

    def look(pack: Digest) -> set[Digest]:
        return _damaged_of_pack(store, domain, pack, by_pack[pack])

    damaged: set[Digest] = set()
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pack-check") as pool:
        for found in pool.map(look, by_pack):
            damaged |= found
    # What is stored as it was written may still be no delta to what it stands on.
    whole = sound_blocks({digest: block for digest, block in known.items() if digest not in damaged})
    reader = BlockReader(store, domain, whole)
    for digest, block in whole.items():
        if block.base is not None:
            try:
                reader.read_one(block)
            except (IntegrityError, ObjectNotFound):
                damaged.add(digest)
    return damaged


def _damaged_of_pack(
    store: ObjectStore, domain: DedupDomain, pack: Digest, blocks: Sequence[StoredBlock]
) -> set[Digest]:
    try:
        listed = set(read_pack_index(store, domain, pack))
    except (IntegrityError, ObjectNotFound):
        listed: set[StoredBlock] = set()
    damaged = {block.digest for block in blocks if block not in listed}
    for group in group_uses(BlockUse(block) for block in blocks if block in listed):
        try:
            pieces = read_range(store, domain, group)
        except (IntegrityError, ObjectNotFound):
            damaged.update(use.block.digest for use in group)
            continue
        for use, stored in zip(group, pieces, strict=True):
            try:
                check_stored(use, stored)
                if use.block.base is None:
                    _decode(use, stored, None)
            except IntegrityError:
                damaged.add(use.block.digest)
    return damaged


def _decode(use: BlockUse, stored: memoryview, base: bytes | None) -> bytes:
    block = use.block
    try:
        if base is None:
            return decode_block(stored, digest=block.digest, plain_length=block.plain_length)
        return decode_delta(stored, base, digest=block.digest, plain_length=block.plain_length)
    except CorruptBlock as error:
        check_stored(use, stored)
        raise _corrupt(use, error.detail) from error


def _decode_unchecked(use: BlockUse, stored: memoryview, base: bytes | None) -> bytes:
    length = use.block.plain_length
    try:
        if base is None:
            return bytes(codec.decode_unchecked(stored, length))
        return delta.decode_unchecked(stored, memoryview(base), length)
    except codec.Broken as broken:
        check_stored(use, stored)
        raise _corrupt(use, str(broken)) from broken


def _corrupt(use: BlockUse, reason: str) -> CorruptBlock:
    block = use.block
    return CorruptBlock(
        f"The block {block.digest} in the pack {block.pack} is damaged: {reason}.",
        hint="Repair it from another replica.",
        block=block.digest,
        pack=block.pack,
        file=use.path,
    )
