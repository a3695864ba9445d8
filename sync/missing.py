"""What each location lacks of an artifact: the blocks of a VERIFIED layout that the block index has not there.

A layout is immutable, so it is read once from its store, outside of every transaction, and remembered. Where it cannot
be read at the moment, the whole stored size stands in: what is planned is then at most too much.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.errors import FairleadError
from fairlead.core.ids import Digest
from fairlead.registry.batches import batches
from fairlead.registry.tables_bytes import BlockRow
from fairlead.sync.hops import Missing
from fairlead.sync.shelves import domain_of_layout, open_location
from fairlead.sync.store.pack import PACK_TARGET_BYTES, packed_size
from fairlead.sync.store.reader import ArtifactReader

if TYPE_CHECKING:
    from fairlead.registry.blocks import BlockShelf
    from fairlead.registry.locations import Location, StoreOpener

_REMEMBERED = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What an artifact is made of where it is VERIFIED: its blocks' stored lengths, and its manifest and layout."""

    stored_lengths: Mapping[str, int]
    has_deltas: bool
    framing_bytes: int

    def missing(self, held: Iterable[str]) -> Missing:
        """What a location lacks that holds these blocks."""
        lacking = self.stored_lengths.keys() - set(held)
        stored = sum(self.stored_lengths[digest] for digest in lacking)
        size = packed_size(stored, len(lacking), has_deltas=self.has_deltas) if lacking else 0
        return Missing(bytes=size + self.framing_bytes, packs=math.ceil(size / PACK_TARGET_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReplica:
    """Where an artifact can be read, and its size there in bytes."""

    location: Location
    layout_key: str
    stored_bytes: int


class ContentsReader:
    """Reads what artifacts are made of, and remembers the last few. Safe to share between threads."""

    def __init__(self, open_store: StoreOpener) -> None:
        self._open_store = open_store
        self._guard = threading.Lock()
        self._read: OrderedDict[str, Contents] = OrderedDict()

    def recall(self, replica: VerifiedReplica) -> Contents | None:
        """What is remembered; asks no store."""
        with self._guard:
            return self._read.get(replica.layout_key)

    def read(
        self, workspace_id: str, residency: str, digest: str, replicas: Sequence[VerifiedReplica]
    ) -> Contents | None:
        """The contents as the first replica that can be read has them, or None; outside of every transaction."""
        for replica in replicas:
            found = self.recall(replica)
            if found is None:
                try:
                    found = self._open(workspace_id, residency, digest, replica)
                except FairleadError as error:
                    # Whoever copies from there finds out what is wrong, and says so.
                    _log.info("no layout of %s from %s: %s", digest, replica.location.name, error)
                    continue
            with self._guard:
                self._read[replica.layout_key] = found
                self._read.move_to_end(replica.layout_key)
                while len(self._read) > _REMEMBERED:
                    self._read.popitem(last=False)
            return found
        return None

    def _open(self, workspace_id: str, residency: str, digest: str, replica: VerifiedReplica) -> Contents:
        store = open_location(self._open_store, replica.location)
        domain = domain_of_layout(replica.layout_key, workspace_id, residency)
        reader = ArtifactReader.open(store, domain, Digest(digest), replica.layout_key)
        blocks = reader.layout.blocks.values()
        return Contents(
            stored_lengths={block.digest: block.stored_length for block in blocks},
            has_deltas=any(block.base is not None for block in blocks),
            framing_bytes=len(reader.manifest.to_bytes()) + (store.size(replica.layout_key) or 0),
        )


def whole(stored_bytes: int) -> Missing:
    """What a location lacks that has nothing, by the size alone."""
    return Missing(bytes=stored_bytes, packs=math.ceil(stored_bytes / PACK_TARGET_BYTES))


def held_blocks(session: Session, shelf: BlockShelf, contents: Contents) -> set[str]:
    """Those of an artifact's blocks that the index has at a location."""
    on_shelf = (
        BlockRow.workspace_id == shelf.workspace_id,
        BlockRow.residency == shelf.residency,
        BlockRow.key_id == shelf.key_id,
        BlockRow.location_id == shelf.location_id,
    )
    if session.scalar(select(BlockRow.block_digest).where(*on_shelf).limit(1)) is None:
        return set()
    held: set[str] = set()
    for some in batches(sorted(contents.stored_lengths)):
        held.update(session.scalars(select(BlockRow.block_digest).where(*on_shelf, BlockRow.block_digest.in_(some))))
    return held
