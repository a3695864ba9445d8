"""The block index of a location made again from its packs alone, while uploads and copies go on.

Packs say which blocks they hold. Each is read whole, compared with its name, and its blocks decoded, before any of them
enters the index; differences are decoded on the bases that other packs hold. What is found takes the place of what the
index said, shelf by shelf, in one transaction each; rows of packs that came after the listing are left alone. A *check*
goes by the packs' own indexes instead, which costs three small reads a pack, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.errors import IntegrityError, ObjectNotFound
from fairlead.core.ids import Digest, digest_hex
from fairlead.registry import blocks, garbage, work
from fairlead.registry.blocks import BlockPlace, BlockShelf
from fairlead.registry.tables_bytes import BlockRow
from fairlead.sync.inventory import StoredObject, list_objects
from fairlead.sync.scrub import in_parallel
from fairlead.sync.shelves import domain_of, open_location, shelf_of, to_block, to_place
from fairlead.sync.store.chains import sound_blocks
from fairlead.sync.store.codec import decode_block
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.fetch import BlockUse, iter_blocks
from fairlead.sync.store.pack import read_pack_index, verify_pack
from fairlead.sync.upkeep import Pass, Report

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, ObjectStore
    from fairlead.registry.locations import StoreOpener
    from fairlead.sync.store.blocks import StoredBlock


@dataclass(slots=True, kw_only=True)
class _Found:
    """What the packs of a shelf hold: for each block every place; and the packs (by digest) that are damaged."""

    places: dict[Digest, list[StoredBlock]] = field(default_factory=dict[Digest, list["StoredBlock"]])
    packs: set[Digest] = field(default_factory=set[Digest])
    damaged: dict[Digest, str] = field(default_factory=dict[Digest, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """How the index differs, and how many blocks of each sort there are.

    Places to enter, or to enter again once `forget` took the packs away that their bases were said to be in; packs to
    forget; and blocks that the packs they are said to be in do not hold.
    """

    enter: tuple[BlockPlace, ...]
    enter_again: tuple[BlockPlace, ...]
    forget: frozenset[str]
    wrong: frozenset[str]
    missing: int
    moved: int
    stale: int


class IndexRebuild:
    """The task `rebuild-index`; with `is_quick` in its scope it goes by the packs' own indexes and changes nothing."""

    def __init__(self, database: Database, clock: Clock, *, open_store: StoreOpener) -> None:
        self._database = database
        self._clock = clock
        self._open_store = open_store

    def __call__(self, running: Pass) -> Report:
        """Compare the index of a location with its packs, and set it right.

        Raises:
            LeaseLost: if another worker took over.
            LocationUnavailable, PermissionDenied: from the store.
        """
        store, report = open_location(self._open_store, running.location), Report()
        is_quick = running.scope.get("is_quick") is True
        shelves: dict[BlockShelf, list[StoredObject]] = {shelf: [] for shelf in self._indexed_shelves(running)}
        for each in list_objects(store, running.leased.workspace_id):
            if each.kind == "pack" and each.domain is not None:
                shelves.setdefault(shelf_of(each.domain, running.location.id), []).append(each)
        for shelf, packs in sorted(shelves.items(), key=lambda item: domain_of(item[0]).prefix):
            found = self._read(running, store, domain_of(shelf), packs, is_quick=is_quick, report=report)
            with self._database.read() as session:
                rows = {place.digest: place for place in blocks.list_blocks(session, shelf)}
            difference = _compare(rows, found)
            self._say(domain_of(shelf), difference, found, report)
            if not is_quick and not running.is_dry_run:
                self._apply(running, store, shelf, difference, found.damaged)
        return report

    def _indexed_shelves(self, running: Pass) -> list[BlockShelf]:
        query = (
            select(BlockRow.workspace_id, BlockRow.residency, BlockRow.key_id)
            .where(BlockRow.workspace_id == running.leased.workspace_id, BlockRow.location_id == running.location.id)
            .distinct()
        )
        with self._database.read() as session:
            return [
                BlockShelf(workspace_id=workspace, residency=residency, location_id=running.location.id, key_id=key_id)
                for workspace, residency, key_id in session.execute(query)
            ]

    def _read(
        self,
        running: Pass,
        store: ObjectStore,
        domain: DedupDomain,
        packs: Iterable[StoredObject],
        *,
        is_quick: bool,
        report: Report,
    ) -> _Found:
        found = _Found()

        def read(each: StoredObject) -> tuple[StoredObject, list[StoredBlock] | str]:
            pack = each.digest or Digest("")
            try:
                return each, (read_pack_index(store, domain, pack) if is_quick else _verify(store, domain, pack))
            except (IntegrityError, ObjectNotFound) as error:
                return each, error.code

        for each, held in in_parallel(read, packs):
            report.objects += 1
            report.size_bytes += each.size
            report.count("packs")
            running.tell(report.objects, report.size_bytes)
            pack = each.digest or Digest("")
            if isinstance(held, str):
                found.damaged[pack] = held
                continue
            found.packs.add(pack)
            for block in held:
                found.places.setdefault(block.digest, []).append(block)
        if not is_quick:
            _check_deltas(store, domain, found)
        return found

    def _say(self, domain: DedupDomain, difference: _Difference, found: _Found, report: Report) -> None:
        report.count("blocks", len(found.places))
        report.count("missing", difference.missing)
        report.count("moved", difference.moved)
        report.count("stale", difference.stale)
        for pack, code in sorted(found.damaged.items()):
            report.find(code, domain.pack_key(pack), action="left out of the index: scrub the location to mend it")
        for pack in sorted(difference.forget - {digest_hex(pack) for pack in found.damaged}):
            key = domain.pack_key(Digest(f"sha256:{pack}"))
            report.find("pack-not-there", key, action="its blocks leave the index")
        for pack in sorted({place.pack for place in difference.enter}):
            entered = sum(place.pack == pack for place in difference.enter)
            key = domain.pack_key(Digest(f"sha256:{pack}"))
            report.find("not-in-index", key, blocks=entered, action="its blocks enter the index")

    def _apply(
        self,
        running: Pass,
        store: ObjectStore,
        shelf: BlockShelf,
        difference: _Difference,
        damaged_packs: Iterable[Digest],
    ) -> None:
        # Listed again, because collection may have taken something meanwhile.
        domain = domain_of(shelf)
        present = {domain.parse_pack_key(item.key) for item in store.list(domain.pack_prefix())}
        with self._database.write() as session:
            work.check_lease(session, running.leased)
            leaving = _leaving(session, shelf)
            damaged = {digest_hex(pack) for pack in damaged_packs}
            # A pack that was not listed first and is there now came meanwhile: its rows are right.
            gone = {pack for pack in difference.forget if Digest(f"sha256:{pack}") not in present}
            blocks.drop_packs(session, shelf, gone | damaged)
            blocks.drop_blocks(session, shelf, difference.wrong)
            blocks.add_blocks(
                session,
                shelf,
                (
                    place
                    for place in (*difference.enter, *difference.enter_again)
                    if Digest(f"sha256:{place.pack}") in present
                    and garbage.pack_object_key(shelf, place.pack) not in leaving
                ),
            )


def _verify(store: ObjectStore, domain: DedupDomain, pack: Digest) -> list[StoredBlock]:
    def check(block: StoredBlock, stored: memoryview) -> None:
        if block.base is None:
            decode_block(stored, digest=block.digest, plain_length=block.plain_length)

    return verify_pack(store, domain, pack, check_block=check)


def _check_deltas(store: ObjectStore, domain: DedupDomain, found: _Found) -> None:
    """Decode every difference on its base, and drop those that do not come out as what they are called."""
    best = {digest: _best(places) for digest, places in found.places.items()}
    sound = sound_blocks(best)
    deltas = sorted(
        (block for places in found.places.values() for block in places if block.base is not None),
        key=lambda block: (block.pack, block.offset),
    )
    for block in deltas:
        is_right = block.base in sound and sound_blocks({**sound, block.digest: block}).get(block.digest) == block
        if is_right:
            try:
                for _ in iter_blocks(store, domain, [BlockUse(block)], is_decoded=True, blocks=sound):
                    pass
            except (IntegrityError, ObjectNotFound):
                is_right = False
        if not is_right:
            found.places[block.digest].remove(block)
    found.places = {digest: places for digest, places in found.places.items() if places}


def _best(places: Iterable[StoredBlock]) -> StoredBlock:
    """Of equal blocks the one to point at: whole rather than a difference, then the first by pack."""
    return min(places, key=lambda block: (block.base is not None, block.pack, block.offset))


def _compare(rows: Mapping[str, BlockPlace], found: _Found) -> _Difference:
    enter: list[BlockPlace] = []
    again: list[BlockPlace] = []
    missing = moved = 0
    for digest, places in found.places.items():
        row = rows.get(digest)
        if row is not None and to_block(row) in places:
            again += [row] if row.base is not None else []
            continue
        missing += row is None
        moved += row is not None
        enter.append(to_place(_best(places)))
    held = {digest_hex(pack) for pack in found.packs}
    # Of a pack that is there and sound, a row is at worst in the wrong place; of any other, it is of no use.
    gone = {row.pack for row in rows.values()} - held
    lost = {digest: row for digest, row in rows.items() if digest not in found.places}
    return _Difference(
        enter=tuple(enter),
        enter_again=tuple(again),
        wrong=frozenset(digest for digest, row in lost.items() if row.pack in held),
        forget=frozenset(gone | {digest_hex(pack) for pack in found.damaged}),
        missing=missing,
        moved=moved,
        stale=len(lost),
    )


def _leaving(session: Session, shelf: BlockShelf) -> frozenset[str]:
    """The objects on their way out that no upload may be told of any more."""
    rows = garbage.list_garbage(session, shelf.workspace_id, shelf.location_id)
    return frozenset(row.object_key for row in rows if row.state != "MARKED")
