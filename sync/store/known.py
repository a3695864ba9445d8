"""What a location holds already: looked up in parts, never believed without its pack, and closed over bases."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import KnownBlocks, StoredBlock
from fairlead.sync.store.chains import CHAIN_MAX, chain_of, closure_of
from fairlead.sync.store.codec import CODEC
from fairlead.sync.store.delta import DELTA_CODEC
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.fetch import find_damaged
from fairlead.sync.store.pack import HEADER

_ASK_AT_ONCE = 1000
_LOOKS_AT_ONCE = 4


class BlockFinder:
    """Finds blocks that need not be sent, part by part; `blocks` holds what was found, as one sound set.

    An index may be behind: what it names is used only where a pack of that name is there and long enough. That proves
    nothing about the bytes; reading them back does, which `is_read_back` asks for. Where an index names a delta, it is
    asked for the base too, and a delta that cannot be read for want of one counts as not there.

    One thread at a time may call it; others may look at `blocks` meanwhile, which only grows.
    """

    def __init__(
        self, store: ObjectStore, domain: DedupDomain, known_blocks: KnownBlocks, *, is_read_back: bool = False
    ) -> None:
        self._store = store
        self._domain = domain
        self._known_blocks = known_blocks
        self._is_read_back = is_read_back
        self._sizes: dict[Digest, int] = {}
        self._damaged: set[Digest] = set()
        self.blocks: dict[Digest, StoredBlock] = {}

    @property
    def pack_sizes(self) -> Mapping[Digest, int]:
        """The packs that hold what was found, and their sizes in bytes."""
        return {block.pack: self._sizes[block.pack] for block in self.blocks.values()}

    def find(self, wanted: Mapping[Digest, int]) -> set[Digest]:
        """Those of the wanted blocks (digest to plain length) that the location holds.

        Raises:
            LocationUnavailable, PermissionDenied: from the store.
        """
        claimed: dict[Digest, StoredBlock] = {}
        asked = {digest: length for digest, length in wanted.items() if digest not in self.blocks}
        for _ in range(CHAIN_MAX + 1):
            if not asked:
                break
            answers = self._ask(asked)
            claimed |= answers
            asked = {
                block.base: block.plain_length
                for block in answers.values()
                if block.base is not None and block.base not in claimed and block.base not in self.blocks
            }
        self.adopt(claimed)
        return {digest for digest in wanted if digest in self.blocks}

    def adopt(self, claimed: Mapping[Digest, StoredBlock]) -> None:
        """Take over those of the claimed blocks that are there with all they stand on.

        Raises:
            LocationUnavailable, PermissionDenied: from the store.
        """
        new = {digest: block for digest, block in claimed.items() if digest not in self.blocks}
        self._look_at_packs({block.pack for block in new.values()})
        new = {
            digest: block
            for digest, block in new.items()
            if digest not in self._damaged and block.end < self._sizes[block.pack]
        }
        # What is known so far is sound and stays so: only what is added is looked at, however much is known.
        new = self._sound(new)
        if self._is_read_back and new:
            closed = closure_of(new.values(), ChainMap(new, self.blocks))
            self._damaged |= find_damaged(self._store, self._domain, closed) & new.keys()
            new = self._sound({digest: block for digest, block in new.items() if digest not in self._damaged})
        self.blocks.update(new)

    def _sound(self, new: dict[Digest, StoredBlock]) -> dict[Digest, StoredBlock]:
        together = ChainMap(new, self.blocks)
        return {digest: block for digest, block in new.items() if chain_of(block, together) is not None}

    def chain_of(self, block: StoredBlock) -> list[StoredBlock] | None:
        """The chain of a block (see `chains.chain_of`) among what was found."""
        return chain_of(block, self.blocks)

    def _ask(self, wanted: Mapping[Digest, int]) -> dict[Digest, StoredBlock]:
        digests = list(wanted)
        claimed: dict[Digest, StoredBlock] = {}
        for start in range(0, len(digests), _ASK_AT_ONCE):
            for digest, block in self._known_blocks(digests[start : start + _ASK_AT_ONCE]).items():
                is_same = block.digest == digest and block.plain_length == wanted.get(digest)
                is_readable = block.codec == (CODEC if block.base is None else DELTA_CODEC)
                if is_same and is_readable and block.offset >= len(HEADER):
                    claimed[digest] = block
        return claimed

    def _look_at_packs(self, packs: set[Digest]) -> None:
        unseen = sorted(packs - self._sizes.keys())
        if not unseen:
            return

        def look(pack: Digest) -> int:
            return self._store.size(self._domain.pack_key(pack)) or 0

        with ThreadPoolExecutor(max_workers=_LOOKS_AT_ONCE, thread_name_prefix="pack-look") as pool:
            self._sizes.update(zip(unseen, pool.map(look, unseen), strict=True))


def either(*sources: KnownBlocks) -> KnownBlocks:
    """What any of the sources knows; the first one that knows a block is believed."""

    def ask(digests: Sequence[Digest]) -> Mapping[Digest, StoredBlock]:
        found: dict[Digest, StoredBlock] = {}
        for source in sources:
            missing = [digest for digest in digests if digest not in found]
            if missing:
                found = {**source(missing), **found}
        return found

    return ask


def among(blocks: Mapping[Digest, StoredBlock]) -> KnownBlocks:
    """What is known from blocks in memory, such as those of a layout."""
    return lambda digests: {digest: blocks[digest] for digest in digests if digest in blocks}
