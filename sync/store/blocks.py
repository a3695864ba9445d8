"""Where a block is: the record that layouts hold, that packs repeat, and that a block index keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fairlead.core.ids import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlock:
    """One block in one pack. Lengths and offset are in bytes; `base` is the block that a delta stands on."""

    digest: Digest
    pack: Digest
    offset: int
    stored_length: int
    stored_digest: Digest
    plain_length: int
    codec: int
    base: Digest | None = None

    @property
    def end(self) -> int:
        """The offset of the first byte after the block."""
        return self.offset + self.stored_length


KnownBlocks = Callable[[Sequence[Digest]], Mapping[Digest, StoredBlock]]
"""Which of these blocks the location already holds in this dedup domain, and where."""

Progress = Callable[[int, int], None]
"""Called with (plain bytes done, plain bytes in all)."""


def no_blocks(_digests: Sequence[Digest]) -> Mapping[Digest, StoredBlock]:
    """The answer of a location that holds nothing yet."""
    return {}
