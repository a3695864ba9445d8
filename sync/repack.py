"""Repacking: what still lives of packs that are mostly dead moves into new ones, and every name stays as it was.

The stored bytes move as they are, so digests before and after are equal by construction; the new packs are read back
whole all the same. Each artifact gets a newer layout, its replica is switched to it in a transaction, and the old pack
becomes garbage like any other. Readers with the old layout go on with it until then. Killed anywhere, a repack leaves
packs and layouts that nothing refers to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from fairlead.core.errors import CorruptPack, IntegrityError, ObjectNotFound, StorageFull
from fairlead.core.ids import Digest
from fairlead.registry import audit, blocks, garbage, work
from fairlead.registry.identity import system_caller
from fairlead.registry.replicas import lock_replica
from fairlead.sync.reachability import Reach, References, Standing, hex_of_pack_key, layouts_that_use
from fairlead.sync.shelves import shelf_of, to_place
from fairlead.sync.store.chains import closure_of
from fairlead.sync.store.domain import DedupDomain, domain_of_key
from fairlead.sync.store.fetch import BlockUse, iter_blocks
from fairlead.sync.store.layout import Layout, StoredLayout, read_layout, write_layout
from fairlead.sync.store.manifest import read_manifest
from fairlead.sync.store.pack import packed_size, parse_pack
from fairlead.sync.store.packing import PackWriter

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, ObjectStore
    from fairlead.sync.inventory import StoredObject
    from fairlead.sync.store.blocks import StoredBlock
    from fairlead.sync.store.outline import Outline
    from fairlead.sync.upkeep import Pass, Report

PASS_BYTES = 8 * 2**30
"""How many stored bytes one pass moves at most; the rest waits for the next."""

Place = tuple[Digest, int]
"""Where a block was: pack and offset."""


class Repacking:
    """The last part of a collection. Packs of which less than the share `below` is used are taken apart."""

    def __init__(self, database: Database, clock: Clock, *, below: float, pass_bytes: int = PASS_BYTES) -> None:
        self._database = database
        self._clock = clock
        self._below = below
        self._pass_bytes = pass_bytes

    def __call__(
        self,
        running: Pass,
        store: ObjectStore,
        references: References,
        reach: Reach,
        *,
        objects: Mapping[str, StoredObject],
        report: Report,
    ) -> None:
        """Repack what is worth it at one location. A full disk ends it, and loses nothing.

        Raises:
            LeaseLost: if another worker took over.
            LocationUnavailable, PermissionDenied: from the store.
        """
        chosen = self._choose(reach, objects)
        for key, live in chosen.items():
            report.count("repacked_packs")
            report.count("repacked_bytes", live)
            size = objects[key].size
            report.find("mostly-dead-pack", key, size_bytes=size, live_bytes=live, action="repack")
        if running.is_dry_run or not chosen:
            return
        self.take_apart(running, store, references.replicas, chosen, report)

    def take_apart(
        self,
        running: Pass,
        store: ObjectStore,
        replicas: Iterable[Standing],
        packs: Collection[str],
        report: Report,
    ) -> None:
        """Move what VERIFIED replicas use of packs (by key) into new ones.

        Raises:
            LeaseLost: if another worker took over.
            LocationUnavailable, PermissionDenied: from the store.
        """
        standings = [each for each in replicas if each.state == "VERIFIED" and not each.may_go]
        using = layouts_that_use(store, standings, packs)
        domains = {domain for key in using if (domain := domain_of_key(key)) is not None}
        for domain in sorted(domains, key=lambda each: each.prefix):
            mine = {key: found for key, found in using.items() if domain_of_key(key) == domain}
            try:
                self._repack(running, store, domain, mine, {key for key in packs if domain_of_key(key) == domain})
            except StorageFull as error:
                report.find(error.code, domain.prefix, action="nothing was moved there: free some space")
            except (IntegrityError, ObjectNotFound) as error:
                # A scrub says more of it, and mends it.
                report.find(error.code, domain.prefix, action="nothing was moved there: scrub the location")

    def _choose(self, reach: Reach, objects: Mapping[str, StoredObject]) -> dict[str, int]:
        """The packs to take apart, deadest first, with the stored bytes of each that are used."""
        shares: list[tuple[float, str, int]] = []
        for key in reach.used:
            each, (live, n_blocks) = objects.get(key), reach.used_of(key)
            if each is None or each.domain is None or each.domain.prefix in reach.pinned:
                continue
            # What they would take alone, frame and index included.
            alone = packed_size(live, n_blocks, has_deltas=True)
            if alone < each.size * self._below:
                shares.append((alone / each.size, key, live))
        chosen: dict[str, int] = {}
        for _, key, live in sorted(shares):
            if sum(chosen.values()) + live <= self._pass_bytes:
                chosen[key] = live
        return chosen

    def _repack(
        self,
        running: Pass,
        store: ObjectStore,
        domain: DedupDomain,
        using: Mapping[str, tuple[Standing, Outline]],
        chosen: Collection[str],
    ) -> None:
        with self._database.read() as session:
            graves = garbage.find_graves(session, domain.workspace, running.location.id, self._clock.now())
        layouts = [
            (standing, read_layout(store, domain, outline.artifact, key)) for key, (standing, outline) in using.items()
        ]
        old = {block for _, layout in layouts for block in layout.blocks.values()}
        moved = _move(running, store, domain, [block for block in old if domain.pack_key(block.pack) in chosen])
        for standing, layout in layouts:
            written = _rewrite(store, domain, layout, moved)
            self._switch(running, domain, standing, written, graves)
        shelf = shelf_of(domain, running.location.id)
        with self._database.write() as session:
            work.check_lease(session, running.leased)
            # What is dead in them is not built on any more, or they would never go.
            blocks.drop_packs(session, shelf, {hex_of_pack_key(key) for key in chosen})

    def _switch(
        self,
        running: Pass,
        domain: DedupDomain,
        standing: Standing,
        written: StoredLayout,
        graves: Collection[str],
    ) -> None:
        """Point a replica at its newer layout, if it still is as it was when it was looked at."""
        with self._database.write() as session:
            work.check_lease(session, running.leased)
            replica = lock_replica(session, standing.key)
            if replica is None or replica.state != "VERIFIED" or replica.layout_key != standing.layout_key:
                return
            layout = written.layout
            keys = [written.key, domain.manifest_key(layout.artifact), *map(domain.pack_key, layout.packs)]
            garbage.rescue(session, domain.workspace, running.location.id, keys, graves)
            replica.layout_key = written.key
            replica.stored_bytes = layout.stored_bytes
            replica.updated_at = self._clock.now()
            blocks.add_blocks(session, shelf_of(domain, running.location.id), map(to_place, layout.blocks.values()))
            audit.record(
                session,
                system_caller(domain.workspace, "worker"),
                self._clock,
                action="replica.repack",
                subject=standing.key.artifact_digest,
                residency=standing.key.residency,
                facts={"location": running.location.name, "region": running.location.region, "layout_key": written.key},
            )


def _move(
    running: Pass, store: ObjectStore, domain: DedupDomain, old: Iterable[StoredBlock]
) -> dict[Place, StoredBlock]:
    """Write blocks into new packs and read those back; the new block by the place of the old one.

    A block that is there twice, whole and as a difference, is kept whole.

    Raises:
        StorageFull, LocationUnavailable, PermissionDenied: from the store.
        CorruptPack, CorruptBlock, ObjectNotFound: if what is there is not what it should be.
    """
    by_digest: dict[Digest, list[StoredBlock]] = {}
    for block in sorted(old, key=lambda block: (block.base is not None, block.pack, block.offset)):
        by_digest.setdefault(block.digest, []).append(block)
    chosen = sorted((each[0] for each in by_digest.values()), key=lambda block: (block.pack, block.offset))
    done = 0
    with PackWriter(store, domain) as packs:
        stream = iter_blocks(store, domain, (BlockUse(block) for block in chosen), is_decoded=False)
        with contextlib.closing(stream):
            for block, stored in zip(chosen, stream, strict=True):
                packs.add(
                    stored,
                    digest=block.digest,
                    plain_length=block.plain_length,
                    codec=block.codec,
                    base=block.base,
                )
                done += block.stored_length
                running.tell(0, done)
        new = packs.finish()
    for pack in {block.pack for block in new.values()}:
        listed = {block.digest: block for block in parse_pack(pack, store.read(domain.pack_key(pack)))}
        if any(block != listed.get(block.digest) for block in new.values() if block.pack == pack):
            raise CorruptPack(f"The pack {pack} does not hold what was just written to it.", pack=pack)
    return {
        (block.pack, block.offset): new[digest]
        for digest, same in by_digest.items()
        for block in same
        # Two differences to two bases are not each other's; the second one stays where it is.
        if new[digest].base in {None, block.base}
    }


def _rewrite(
    store: ObjectStore, domain: DedupDomain, layout: Layout, moved: Mapping[Place, StoredBlock]
) -> StoredLayout:
    """Store the layout anew with every block where it is now, and read it back."""
    present = {digest: moved.get((block.pack, block.offset), block) for digest, block in layout.blocks.items()}
    files = {path: tuple(present[block.digest] for block in used) for path, used in layout.files.items()}
    used = {block.digest for blocks_of_file in files.values() for block in blocks_of_file}
    closed = closure_of((present[digest] for digest in layout.blocks if digest in used), present)
    bases = [block for digest, block in closed.items() if digest not in used]
    manifest = read_manifest(store, domain, layout.artifact)
    written = write_layout(store, domain, manifest, files, bases).stored
    return StoredLayout(key=written.key, layout=read_layout(store, domain, layout.artifact, written.key))
