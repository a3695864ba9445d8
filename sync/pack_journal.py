"""The packs that a copy has written, noted with its work: the next attempt finds their blocks and sends them no more.

The note is made after the pack was stored, and says nothing about its bytes: as with everything that is found at a
destination, the reading back at the end does. A pack that is found damaged then leaves the note.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fairlead.core.errors import IntegrityError, ObjectNotFound
from fairlead.core.ids import Digest, digest_hex
from fairlead.registry import work
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.pack import read_pack_index

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import ObjectStore
    from fairlead.registry.work import LeasedWork
    from fairlead.sync.store.domain import DedupDomain


class PackJournal:
    """The note of one attempt, begun with what earlier ones wrote. Safe to use from several threads."""

    def __init__(self, database: Database, leased: LeasedWork, domain: DedupDomain) -> None:
        self._database = database
        self._leased = leased
        self._domain = domain
        self._packs = {Digest(f"sha256:{digits}") for digits in leased.written_packs}
        self._guard = threading.Lock()

    def add(self, key: str) -> None:
        """Note that the object at a key was stored, if it is a pack.

        Raises:
            LeaseLost: if another worker took over.
        """
        pack = self._domain.parse_pack_key(key)
        if pack is None:
            return
        with self._guard:
            self._packs.add(pack)
            with self._database.write() as session:
                work.note_packs(session, self._leased, [digest_hex(each) for each in self._packs])

    def find_blocks(self, destination: ObjectStore, wanted: Mapping[Digest, StoredBlock]) -> dict[Digest, StoredBlock]:
        """Where the destination holds wanted blocks in noted packs; packs that are no longer whole are passed over.

        Raises:
            LocationUnavailable, PermissionDenied: from the store.
        """
        found: dict[Digest, StoredBlock] = {}
        for pack in sorted(self._packs):
            try:
                listed = read_pack_index(destination, self._domain, pack)
            except (IntegrityError, ObjectNotFound):
                continue
            found.update((block.digest, block) for block in listed if block.digest in wanted)
        return found
