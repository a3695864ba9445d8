"""Scrub: reads what a location holds, finds what is not what it should be, and has it mended from another replica.

Every pass compares the listing with the record, which finds what is missing or was rolled back. What it reads is
chosen: all of it, a random sample, or one of as many slices as there are days for it. A pack is read once, whole, and
compared with its name, however many artifacts share it; that is one request where reading artifact by artifact is many.
Damage takes the packs out of the block index and every replica that stands on them out of service, and the copy that
this requires brings back what was lost. Objects that are none of ours are reported and left alone.
"""

from __future__ import annotations

import json
import random
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeVar

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from fairlead.core.errors import BadSignature, FairleadError, IntegrityError, JsonValue, ObjectNotFound
from fairlead.core.ids import Digest, digest_hex, sha256_digest
from fairlead.registry import audit, blocks, work
from fairlead.registry.identity import system_caller
from fairlead.registry.replicas import lock_replica, mark_corrupt
from fairlead.registry.tables import LocationRow, ReplicaRow
from fairlead.sync.inventory import StoredObject, list_objects
from fairlead.sync.reachability import (
    Standing,
    find_references,
    hex_of_pack_key,
    layouts_that_use,
    packs_of_layouts,
)
from fairlead.sync.repack import Repacking
from fairlead.sync.shelves import open_location, packs_by_shelf, shelf_of
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.domain import DedupDomain, domain_of_key
from fairlead.sync.store.manifest import Manifest
from fairlead.sync.store.outline import Outline, Run
from fairlead.sync.store.pack import DELTA_TRAILER_MAGIC, TRAILER_MAGIC, digest_of_entries, parse_pack
from fairlead.sync.store.record import RecordCopy, index_key, list_sequences
from fairlead.sync.store.refs import public_keys_of, refs_key, verify_refs
from fairlead.sync.upkeep import Pass, Report

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, ObjectStore
    from fairlead.registry.locations import StoreOpener

Harm = Literal["flipped", "cut", "swapped", "missing", "rolled-back"]

_READS_AT_ONCE = 3
_SLICE_DIGITS = 12
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """An object that is not what its name, or the record, says. `code` is that of the error a reader would get."""

    key: str
    code: str
    harm: Harm
    facts: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])


class Scrub:
    """The task `scrub`. `signing_keys` (32 raw bytes each) are those that may have signed refs and the record."""

    def __init__(
        self, database: Database, clock: Clock, *, open_store: StoreOpener, signing_keys: Sequence[bytes]
    ) -> None:
        self._database = database
        self._clock = clock
        self._open_store = open_store
        self._trusted = public_keys_of(signing_keys)
        self._repacking = Repacking(database, clock, below=0.0)

    def __call__(self, running: Pass) -> Report:
        """Check a location, or the part of it that the scope names, and require that what is damaged is mended.

        Raises:
            LeaseLost: if another worker took over.
            LocationUnavailable, PermissionDenied: from the store; that says nothing about the bytes.
        """
        store, report = open_location(self._open_store, running.location), Report()
        started = self._clock.now()
        # Before the listing: what is written here while that lasts is newer than what is expected, and never older.
        with self._database.read() as session:
            row = session.get_one(LocationRow, (running.leased.workspace_id, running.location.id))
            published, copied = row.published_refs_revision, row.published_record_sequence
        objects = {each.key: each for each in list_objects(store, running.leased.workspace_id)}
        with self._database.read() as session:
            standings = find_references(session, running.location).replicas
            indexed = _indexed_packs(session, running.location.id, standings, objects.values())
        standings = tuple(each for each in standings if each.state == "VERIFIED" and each.layout_key is not None)
        is_chosen = _chooser(running.scope)
        looked_at = [each for each in standings if (found := objects.get(each.layout_key or "")) and is_chosen(found)]
        packs = packs_of_layouts(store, looked_at) | set(indexed)
        damages = [
            *_find_missing(store, objects, standings, sorted(packs)),
            *self._check_named(running, store, [each for each in objects.values() if is_chosen(each)], report),
        ]
        for each in objects.values():
            if each.kind == "foreign":
                report.find("foreign-object", each.key, size_bytes=each.size, action="left alone")
        signed = {
            column: damage
            for column, damage in (
                ("published_refs_revision", self._check_refs(store, running, objects, published)),
                ("published_record_sequence", self._check_record(store, running, objects, copied)),
            )
            if damage is not None
        }
        affected = _find_affected(store, standings, damages)
        used = packs_of_layouts(store, [each for each in standings if each not in affected]) if damages else set[str]()
        self._mend(running, damages, affected, signed, used=used, report=report)
        spared = {damage.key for damage in damages if damage.key in used}
        if spared and not running.is_dry_run:
            whole = [each for each in standings if each not in affected]
            self._repacking.take_apart(running, store, whole, spared, report)
        report.outcome["objects"] = len(objects)
        report.outcome["damaged"] = len(damages) + len(signed)
        if not running.scope.get("of") and not running.scope.get("sample") and not running.is_dry_run:
            self._note_verified(running, [each for each in standings if each not in affected], started)
        return report

    def _check_named(
        self, running: Pass, store: ObjectStore, chosen: Sequence[StoredObject], report: Report
    ) -> Iterator[Damage]:
        """Read objects whole and compare them with their names."""
        named = [each for each in chosen if each.kind in {"pack", "layout", "manifest"}]
        report.outcome["to_read_bytes"] = sum(each.size for each in named)

        def check(each: StoredObject) -> Damage | None:
            return _check_object(store, each)

        for each, damage in zip(named, in_parallel(check, named), strict=True):
            report.objects += 1
            report.size_bytes += each.size
            report.count(f"{each.kind}s_read")
            running.tell(report.objects, report.size_bytes)
            if damage is not None:
                yield damage

    def _check_refs(
        self, store: ObjectStore, running: Pass, objects: Mapping[str, StoredObject], published: int
    ) -> Damage | None:
        """Whether the location's signed refs are of the revision that was written here last, and verify."""
        workspace_id = running.leased.workspace_id
        if published <= 0:
            return None
        key = refs_key(workspace_id, published)
        prefix = key.rpartition("/")[0] + "/"
        newest = max((each for each in objects if each.startswith(prefix)), default="")
        if newest < key:
            return Damage(key=key, code="stale-revision", harm="rolled-back" if newest else "missing")
        try:
            verify_refs(store.read(newest), self._trusted, workspace=workspace_id)
        except BadSignature as error:
            return Damage(key=newest, code=error.code, harm="flipped")
        except ObjectNotFound:
            # A newer set has just taken its place.
            return None
        return None

    def _check_record(
        self, store: ObjectStore, running: Pass, objects: Mapping[str, StoredObject], copied: int
    ) -> Damage | None:
        """Whether the location's copy of the record is the one that was written here last, and all of it is there."""
        workspace_id = running.leased.workspace_id
        if copied <= 0:
            return None
        key = index_key(workspace_id, copied)
        prefix = key.rpartition("/")[0] + "/"
        newest = max((each for each in objects if each.startswith(prefix)), default="")
        if newest < key:
            return Damage(key=key, code="stale-revision", harm="rolled-back" if newest else "missing")
        while True:
            before = list_sequences(store, workspace_id)[:1]
            try:
                copy = RecordCopy.open(store, workspace_id, self._trusted)
                copy.workspace()
                for _ in copy.models():
                    pass
            except IntegrityError as error:
                return Damage(key=str(error.attributes.get("key") or newest), code=error.code, harm="flipped")
            except ObjectNotFound as error:
                # Copies that were superseded meanwhile may have taken with them what this one was made of.
                if list_sequences(store, workspace_id)[:1] != before:
                    continue
                return Damage(key=str(error.attributes.get("key") or newest), code=error.code, harm="missing")
            return None

    def _mend(
        self,
        running: Pass,
        damages: Sequence[Damage],
        affected: Mapping[Standing, Sequence[Damage]],
        signed: Mapping[str, Damage],
        *,
        used: Collection[str],
        report: Report,
    ) -> None:
        actions: dict[str, str] = {}
        if not running.is_dry_run:
            with self._database.write() as session:
                work.check_lease(session, running.leased)
                for shelf, packs in packs_by_shelf((damage.key for damage in damages), running.location.id).items():
                    blocks.drop_packs(session, shelf, packs)
                for standing, causes in affected.items():
                    action = self._take_out(session, running, standing, causes[0].code)
                    actions.update((damage.key, action) for damage in causes)
                for column, damage in signed.items():
                    session.execute(
                        update(LocationRow)
                        .where(LocationRow.workspace_id == running.leased.workspace_id)
                        .where(LocationRow.id == running.location.id)
                        .values({column: -1})
                    )
                    actions[damage.key] = "written again"
        users: dict[str, list[str]] = {}
        for standing, causes in affected.items():
            for damage in causes:
                users.setdefault(damage.key, []).append(standing.key.artifact_digest)
        for damage in (*damages, *signed.values()):
            report.count(damage.harm)
            is_used = damage.key in users or damage in signed.values()
            planned = "would be mended" if is_used else "nothing stands on it: left for collection"
            if damage.key in used and not is_used:
                planned = "what is used of it is whole: moved to another pack"
            report.find(
                damage.code,
                damage.key,
                harm=damage.harm,
                action=actions.get(damage.key, planned),
                artifacts=list[JsonValue](users.get(damage.key, [])),
                **damage.facts,
            )

    def _take_out(self, session: Session, running: Pass, standing: Standing, code: str) -> str:
        """Take a replica out of service, so that it is mended; what was done, in words."""
        replica = lock_replica(session, standing.key)
        if replica is None or replica.state != "VERIFIED" or replica.layout_key != standing.layout_key:
            return "is being mended already"
        mark_corrupt(session, replica, running.location.region, code, self._clock.now())
        audit.record(
            session,
            system_caller(standing.key.workspace_id, "worker"),
            self._clock,
            action="replica.corrupt",
            subject=standing.key.artifact_digest,
            residency=standing.key.residency,
            facts={"location": running.location.name, "region": running.location.region, "code": code},
        )
        others = select(func.count()).where(
            ReplicaRow.workspace_id == standing.key.workspace_id,
            ReplicaRow.residency == standing.key.residency,
            ReplicaRow.artifact_digest == standing.key.artifact_digest,
            ReplicaRow.location_id != standing.key.location_id,
            ReplicaRow.state == "VERIFIED",
        )
        if session.scalar(others):
            return "being mended from another replica"
        return "no other replica is VERIFIED: register the files again"

    def _note_verified(self, running: Pass, standings: Sequence[Standing], started: datetime) -> None:
        with self._database.write() as session:
            work.check_lease(session, running.leased)
            for standing in standings:
                replica = lock_replica(session, standing.key)
                if replica is not None and replica.state == "VERIFIED" and replica.layout_key == standing.layout_key:
                    replica.verified_at = started


def _chooser(scope: Mapping[str, JsonValue]) -> Callable[[StoredObject], bool]:
    """Which objects a pass reads: all, a share of them by chance, or those whose name falls into a slice."""
    share, number, count = scope.get("sample"), scope.get("slice"), scope.get("of")
    if isinstance(share, int | float):
        return lambda _each: random.random() < share  # noqa: S311  (chooses what to read, guards nothing)
    if isinstance(number, int) and isinstance(count, int):
        return lambda each: (
            each.digest is not None and int(digest_hex(each.digest)[:_SLICE_DIGITS], 16) % count == number - 1
        )
    return lambda _each: True


def _check_object(store: ObjectStore, each: StoredObject) -> Damage | None:
    digest, domain = each.digest, each.domain
    if digest is None or domain is None:
        return None
    try:
        data = store.read(each.key)
    except ObjectNotFound:
        # Collected, or superseded, since it was listed; what is missed is found by the next listing.
        return None
    except IntegrityError as error:
        return Damage(key=each.key, code=error.code, harm="flipped")
    if each.kind == "layout":
        name = domain.parse_layout_key(digest, each.key)
        digest = digest if name is None else name.digest
    if sha256_digest(data) == digest:
        return None
    judge = {"pack": _judge_pack, "layout": _judge_layout, "manifest": _judge_manifest}[each.kind]
    return Damage(key=each.key, code=f"corrupt-{each.kind}", harm=judge(data), facts=_holds(data))


def _holds(data: bytes) -> Mapping[str, JsonValue]:
    return {"found_digest": sha256_digest(data), "found_bytes": len(data)}


def _judge_pack(data: bytes) -> Harm:
    try:
        listed = parse_pack(sha256_digest(data), data)
    except IntegrityError:
        return "flipped" if data.endswith((TRAILER_MAGIC, DELTA_TRAILER_MAGIC)) else "cut"
    # A whole pack, if every block in it is what its own index says.
    view = memoryview(data)
    is_whole = all(sha256_digest(view[block.offset : block.end]) == block.stored_digest for block in listed)
    return "swapped" if is_whole else "flipped"


def _judge_layout(data: bytes) -> Harm:
    try:
        Outline.parse(data)
    except IntegrityError:
        inflate = zlib.decompressobj(31)
        try:
            inflate.decompress(data)
        except zlib.error:
            return "flipped"
        return "flipped" if inflate.eof else "cut"
    return "swapped"


def _judge_manifest(data: bytes) -> Harm:
    try:
        Manifest.parse(data, digest=sha256_digest(data))
    except FairleadError:
        try:
            json.loads(data)
        except json.JSONDecodeError as error:
            return "cut" if error.pos >= len(error.doc) - 1 or error.msg.startswith("Unterminated") else "flipped"
        except ValueError:
            pass
        return "flipped"
    return "swapped"


def _find_missing(
    store: ObjectStore,
    objects: Mapping[str, StoredObject],
    standings: Sequence[Standing],
    packs: Iterable[str],
) -> Iterator[Damage]:
    """What the record refers to and the listing does not show; asked for once more, since both were read in turn."""
    sequences: dict[tuple[str, str], int] = {}
    for each in objects.values():
        if each.kind == "layout" and each.domain is not None and each.digest is not None:
            place = (each.domain.prefix, each.digest)
            sequences[place] = max(sequences.get(place, 0), each.sequence)
    expected: dict[str, tuple[str, Harm]] = dict.fromkeys(packs, ("object-not-found", "missing"))
    for standing in standings:
        layout_key, digest = standing.layout_key or "", Digest(standing.key.artifact_digest)
        domain = domain_of_key(layout_key)
        if domain is None:
            continue
        name, newest = domain.parse_layout_key(digest, layout_key), sequences.get((domain.prefix, digest), 0)
        is_older = name is not None and 0 < newest < name.sequence
        expected[layout_key] = ("object-not-found", "rolled-back" if is_older else "missing")
        expected[domain.manifest_key(digest)] = ("object-not-found", "missing")
    for key, (code, harm) in expected.items():
        if key not in objects and store.size(key) is None:
            yield Damage(key=key, code=code, harm=harm)


def _find_affected(
    store: ObjectStore, standings: Sequence[Standing], damages: Sequence[Damage]
) -> dict[Standing, list[Damage]]:
    """The replicas that lost bytes that they use, each with the objects that held them."""
    by_key = {damage.key: damage for damage in damages}
    affected: dict[Standing, list[Damage]] = {}
    for standing in standings:
        domain = domain_of_key(standing.layout_key or "")
        manifest = "" if domain is None else domain.manifest_key(Digest(standing.key.artifact_digest))
        if causes := [by_key[key] for key in (standing.layout_key or "", manifest) if key in by_key]:
            affected[standing] = causes
    packs = [key for key in by_key if key.endswith(".pack")]
    using = layouts_that_use(store, standings, packs) if packs else {}
    for key in packs:
        held = _PackRemains.read(store, key) if using else None
        for standing, layout in using.values():
            if held is not None and held.lost(layout):
                affected.setdefault(standing, []).append(by_key[key])
    return affected


@dataclass(frozen=True, slots=True, kw_only=True)
class _PackRemains:
    """What is left of a damaged pack: its bytes, and the blocks that its index lists if that can still be read."""

    pack: Digest
    data: bytes
    listed: frozenset[StoredBlock]

    @staticmethod
    def read(store: ObjectStore, key: str) -> _PackRemains:
        pack = Digest(f"sha256:{hex_of_pack_key(key)}")
        try:
            data = store.read(key)
        except (IntegrityError, ObjectNotFound):
            return _PackRemains(pack=pack, data=b"", listed=frozenset())
        try:
            # Under its own name, so that its index is read although its bytes are not those of the right one.
            found = parse_pack(sha256_digest(data), data)
        except IntegrityError:
            return _PackRemains(pack=pack, data=data, listed=frozenset())
        return _PackRemains(pack=pack, data=data, listed=frozenset(replace(block, pack=pack) for block in found))

    def lost(self, layout: Outline) -> bool:
        """Whether a layout uses a block of the pack that can no longer be read from it."""
        return any(self._is_lost(entry) for entry in layout.entries if entry.pack == self.pack)

    def _is_lost(self, entry: StoredBlock | Run) -> bool:
        if isinstance(entry, Run):
            # It stands on the pack's index as it was, and on its size.
            end = entry.offset + entry.stored_length
            found = [block for block in self.listed if entry.offset <= block.offset < end]
            found.sort(key=lambda block: block.offset)
            is_same = len(self.data) == entry.pack_size and digest_of_entries(found) == entry.digest
            return not is_same or any(map(self._is_lost, found))
        view = memoryview(self.data)[entry.offset : entry.end]
        return entry not in self.listed or sha256_digest(view) != entry.stored_digest


def _indexed_packs(
    session: Session, location_id: str, standings: Sequence[Standing], objects: Iterable[StoredObject]
) -> list[str]:
    """The keys of all packs that the block index names at a location."""
    domains = {DedupDomain(each.key.workspace_id, each.key.residency, each.key_id) for each in standings} | {
        each.domain for each in objects if each.domain is not None
    }
    return [
        domain.pack_key(Digest(f"sha256:{pack}"))
        for domain in sorted(domains, key=lambda domain: domain.prefix)
        for pack in blocks.list_packs(session, shelf_of(domain, location_id))
    ]


def in_parallel(action: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Results in order, a few at work ahead of the one that is taken: a few packs are in memory, never all."""
    in_flight: deque[Future[_R]] = deque()
    pool = ThreadPoolExecutor(max_workers=_READS_AT_ONCE, thread_name_prefix="scrub")
    try:
        for item in items:
            in_flight.append(pool.submit(action, item))
            if len(in_flight) > _READS_AT_ONCE:
                yield in_flight.popleft().result()
        while in_flight:
            yield in_flight.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
