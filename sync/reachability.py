"""Reachability: what must stay at a location, told from the record and from the layouts that it refers to.

Referred to are the layouts of replicas that should be here, those of uploads that were handed over, and the newest one
of each artifact, with their manifests and every pack that they stand on, bases included; and packs that a copy which is
tried again left behind. A layout that is referred to and cannot be read leaves unknown what it stands on: nothing of
its dedup domain is garbage until it is mended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session, aliased

from fairlead.core.errors import IntegrityError, ObjectNotFound
from fairlead.core.ids import Digest
from fairlead.registry.replicas import REPLICATE, ReplicaKey
from fairlead.registry.tables import ArtifactRow, LocationRow, ReplicaRow, UploadRow, WorkRow
from fairlead.sync.store.domain import DedupDomain, domain_of_key
from fairlead.sync.store.layout import read_outline
from fairlead.sync.store.outline import Outline, Run

if TYPE_CHECKING:
    from sqlalchemy import Label

    from fairlead.core.db import Database
    from fairlead.core.ports import ObjectStore
    from fairlead.registry.locations import Location
    from fairlead.sync.inventory import StoredObject

_READS_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A replica of the location, as the record has it.

    `may_go`: it is not wanted, and another one is VERIFIED, or the artifact is released and nobody's any more.
    """

    key: ReplicaKey
    key_id: str
    state: str
    layout_key: str | None
    may_go: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What the record refers to at a location, as of one moment."""

    replicas: tuple[Standing, ...]
    uploads: tuple[tuple[str, Digest], ...]
    packs: frozenset[str]


@dataclass(slots=True, kw_only=True)
class Reach:
    """What must stay: `keys` of objects; of each pack (by key) what is used, as offset to length and number of blocks.

    `pinned` maps the prefix of a domain to the layout that cannot be read.
    """

    keys: set[str] = field(default_factory=set[str])
    used: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict[str, dict[int, tuple[int, int]]])
    pinned: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, domain: DedupDomain, artifact: Digest, layout_key: str, layout: Outline | None) -> None:
        """Count in a layout, with its manifest and packs where it could be read."""
        self.keys.update((layout_key, domain.manifest_key(artifact)))
        for entry in () if layout is None else layout.entries:
            pack = domain.pack_key(entry.pack)
            self.keys.add(pack)
            places = self.used.setdefault(pack, {})
            blocks = entry.blocks if isinstance(entry, Run) else 1
            places[entry.offset] = max(places.get(entry.offset, (0, 0)), (entry.stored_length, blocks))

    def used_of(self, pack: str) -> tuple[int, int]:
        """How many bytes of a pack (by key) are used, and about how many blocks; places that overlap count once."""
        total = blocks = end = 0
        for offset, (length, held) in sorted(self.used.get(pack, {}).items()):
            new = max(0, offset + length - max(offset, end))
            total += new
            blocks += math.ceil(held * new / length)
            end = max(end, offset + length)
        return total, blocks


def find_references(session: Session, location: Location) -> References:
    """What the record refers to at a location now."""
    at = (ReplicaRow.workspace_id == ArtifactRow.workspace_id) & (ReplicaRow.residency == ArtifactRow.residency)
    query = (
        select(ReplicaRow, ArtifactRow, _has_another())
        .join(ArtifactRow, at & (ReplicaRow.artifact_digest == ArtifactRow.digest))
        .where(ReplicaRow.location_id == location.id)
        .order_by(ReplicaRow.residency, ReplicaRow.artifact_digest)
    )
    replicas = tuple(
        Standing(
            key=ReplicaKey(
                workspace_id=row.workspace_id,
                residency=row.residency,
                artifact_digest=row.artifact_digest,
                location_id=row.location_id,
            ),
            key_id=artifact.key_id,
            state=row.state,
            layout_key=row.layout_key,
            may_go=(not row.is_wanted or location.state == "RETIRED")
            and (has_another or artifact.released_at is not None),
        )
        for row, artifact, has_another in session.execute(query)
    )
    handed_over = select(UploadRow.layout_key, UploadRow.artifact_digest).where(
        UploadRow.location_id == location.id, UploadRow.state == "VERIFYING"
    )
    uploads = tuple((key, Digest(digest)) for key, digest in session.execute(handed_over) if key and digest)
    return References(replicas=replicas, uploads=uploads, packs=_written_packs(session, location, replicas))


def find_reach(
    database: Database, store: ObjectStore, location: Location, objects: Iterable[StoredObject]
) -> tuple[References, Reach]:
    """What must stay at a location whose listing is `objects`.

    Raises:
        LocationUnavailable, PermissionDenied: from the store.
    """
    with database.read() as session:
        references = find_references(session, location)
    newest: dict[tuple[str, str], tuple[int, str]] = {}
    for each in objects:
        if each.kind == "layout" and each.domain is not None and each.digest is not None:
            place = (each.domain.prefix, each.digest)
            newest[place] = max(newest.get(place, (0, "")), (each.sequence, each.key))
    required: dict[str, Digest] = {}
    spared: dict[str, Digest] = dict(references.uploads)
    reach = Reach(keys=set(references.packs))
    for replica in references.replicas:
        if replica.may_go:
            continue
        key, digest = replica.key, Digest(replica.key.artifact_digest)
        domains = {DedupDomain(key.workspace_id, key.residency, replica.key_id)}
        if replica.layout_key is not None:
            required[replica.layout_key] = digest
            domains.add(domain_of_key(replica.layout_key) or next(iter(domains)))
        for domain in domains:
            reach.keys.add(domain.manifest_key(digest))
            if (found := newest.get((domain.prefix, digest))) is not None:
                spared[found[1]] = digest
    for layout_key, (artifact, layout) in _read_layouts(store, spared | required):
        if (domain := domain_of_key(layout_key)) is None:
            continue
        reach.add(domain, artifact, layout_key, layout)
        if layout is None and layout_key in required:
            reach.pinned[domain.prefix] = layout_key
    return references, reach


def _read_layouts(
    store: ObjectStore, wanted: Mapping[str, Digest]
) -> Iterable[tuple[str, tuple[Digest, Outline | None]]]:
    # What layouts say by themselves, so that a pack that lost its index still is one that they stand on.
    def read(layout_key: str) -> Outline | None:
        domain = domain_of_key(layout_key)
        try:
            return None if domain is None else read_outline(store, domain, wanted[layout_key], layout_key)
        except (IntegrityError, ObjectNotFound):
            return None

    keys = sorted(wanted)
    with ThreadPoolExecutor(max_workers=_READS_AT_ONCE, thread_name_prefix="layout-read") as pool:
        # In portions: what is read waits for what reads it.
        for start in range(0, len(keys), _READS_AT_ONCE * 4):
            some = keys[start : start + _READS_AT_ONCE * 4]
            for key, layout in zip(some, pool.map(read, some), strict=True):
                yield key, (wanted[key], layout)


def _has_another() -> Label[bool]:
    """Whether another replica of a row's artifact is VERIFIED and to stay."""
    other, place = aliased(ReplicaRow), aliased(LocationRow)
    return (
        exists()
        .where(
            other.workspace_id == ReplicaRow.workspace_id,
            other.residency == ReplicaRow.residency,
            other.artifact_digest == ReplicaRow.artifact_digest,
            other.location_id != ReplicaRow.location_id,
            other.state == "VERIFIED",
            other.is_wanted,
            place.workspace_id == other.workspace_id,
            place.id == other.location_id,
            or_(place.state == "ACTIVE", place.state == "WARMING"),
        )
        .label("has_another")
    )


def _written_packs(session: Session, location: Location, replicas: Iterable[Standing]) -> frozenset[str]:
    """The keys of packs that copies to the location, not yet recorded, have written."""
    key_ids = {replica.key: replica.key_id for replica in replicas}
    query = select(WorkRow).where(
        WorkRow.kind == REPLICATE,
        WorkRow.subject.endswith(f"/{location.id}"),
        WorkRow.written_packs.is_not(None),
    )
    found: set[str] = set()
    for row in session.scalars(query):
        key = ReplicaKey.from_subject(row.workspace_id, row.subject)
        if key in key_ids:
            domain = DedupDomain(key.workspace_id, key.residency, key_ids[key])
            found.update(domain.pack_key(Digest(f"sha256:{pack}")) for pack in row.written_packs or ())
    return frozenset(found)


def hex_of_pack_key(key: str) -> str:
    """The pack (hexadecimal) that an object key names."""
    return key.rpartition("/")[2].removesuffix(".pack")


def layouts_that_use(
    store: ObjectStore, standings: Iterable[Standing], packs: Iterable[str]
) -> dict[str, tuple[Standing, Outline]]:
    """Of the replicas' layouts those that stand on one of these packs (by key), by layout key; unreadable ones not."""
    wanted = set(packs)
    by_layout = {each.layout_key: each for each in standings if each.layout_key is not None}
    found: dict[str, tuple[Standing, Outline]] = {}
    for layout_key, (_, layout) in _read_layouts(
        store, {key: Digest(each.key.artifact_digest) for key, each in by_layout.items()}
    ):
        domain = domain_of_key(layout_key)
        if domain is None or layout is None:
            continue
        if not wanted.isdisjoint(map(domain.pack_key, layout.packs)):
            found[layout_key] = (by_layout[layout_key], layout)
    return found


def packs_of_layouts(store: ObjectStore, standings: Iterable[Standing]) -> set[str]:
    """The packs (by key) that the replicas' layouts name; unreadable layouts name none."""
    wanted = {each.layout_key: Digest(each.key.artifact_digest) for each in standings if each.layout_key is not None}
    found: set[str] = set()
    for layout_key, (_, layout) in _read_layouts(store, wanted):
        domain = domain_of_key(layout_key)
        if domain is not None and layout is not None:
            found.update(map(domain.pack_key, layout.packs))
    return found
