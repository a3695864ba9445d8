"""Chains: a delta stands on its base, which may be a delta itself, down to a block that stands alone.

A set of blocks is *closed* when it holds the base of every block in it, and *sound* when, besides, every base has the
length of what stands on it and no chain is longer than `CHAIN_MAX` deltas. Only sound sets are written into layouts, so
a reader decodes at most `CHAIN_MAX + 1` blocks for one, and whoever walks a layout's blocks sees all that must stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairlead.core.ids import Digest
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.codec import CODEC
from fairlead.sync.store.delta import DELTA_CODEC

CHAIN_MAX = 3
"""The most deltas that stand on one another. Each one more makes every read of the block dearer."""


def chain_of(block: StoredBlock, blocks: Mapping[Digest, StoredBlock]) -> list[StoredBlock] | None:
    """The block, its base, and so on down to one that stands alone; None where that is not sound."""
    chain = [block]
    while block.base is not None:
        base = blocks.get(block.base)
        if base is None or base.plain_length != block.plain_length or len(chain) > CHAIN_MAX:
            return None
        if block.codec != DELTA_CODEC:
            return None
        chain.append(base)
        block = base
    return chain if block.codec == CODEC else None


def depth_of(block: StoredBlock, blocks: Mapping[Digest, StoredBlock]) -> int:
    """How many deltas must be undone to read the block, which is of a sound set."""
    depth = 0
    while block.base is not None:
        block, depth = blocks[block.base], depth + 1
    return depth


def closure_of(used: Iterable[StoredBlock], blocks: Mapping[Digest, StoredBlock]) -> dict[Digest, StoredBlock]:
    """The used blocks, in order, and after them the bases that they stand on; `blocks` is sound."""
    closed = {block.digest: block for block in used}
    bases: dict[Digest, StoredBlock] = {}
    for block in closed.values():
        base = block.base
        while base is not None and base not in closed and base not in bases:
            bases[base] = blocks[base]
            base = bases[base].base
    return closed | bases


def sound_blocks(blocks: Mapping[Digest, StoredBlock]) -> dict[Digest, StoredBlock]:
    """Those of the blocks whose chain is whole and short enough; a sound set."""
    return {digest: block for digest, block in blocks.items() if chain_of(block, blocks) is not None}
