"""Verification: nothing is READY or VERIFIED before a worker of its region has read every byte back.

An upload becomes READY in one transaction, with everything that follows from it: the artifact, its first replica, the
block index, the versions that wait for it, the ledger, the audit event, and the replicas that are wanted elsewhere.
Bytes that are wrong make it FAILED in one transaction too, and the packs that hold them leave the block index, so that
uploading the same files again sends those blocks afresh.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fairlead.core.errors import FairleadError, IntegrityError, InvalidInput, ObjectNotFound
from fairlead.core.ids import Digest, digest_hex
from fairlead.registry import audit, blocks, garbage, ledger, version_states, work
from fairlead.registry.identity import system_caller
from fairlead.registry.locations import Location, get_location
from fairlead.registry.replicas import (
    VERIFY_REPLICA,
    ReplicaKey,
    ensure_replica,
    key_of,
    lock_replica,
    mark_corrupt,
    mark_verified,
    move_to_key,
    require_replica_work,
    want_replicas,
)
from fairlead.registry.retention import reclaim_artifact
from fairlead.registry.tables import PLAIN_KEY_ID, ArtifactRow, LocationRow, ReplicaRow, UploadRow
from fairlead.registry.uploads import shelf_of
from fairlead.sync.shelves import domain_of, open_location, to_place
from fairlead.sync.store.bases import signature_of_artifact
from fairlead.sync.store.copy import find_damaged
from fairlead.sync.store.layout import look_up_runs, read_outline
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.worker import progress_reporter

if TYPE_CHECKING:
    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, ObjectStore
    from fairlead.registry.blocks import BlockShelf
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.work import LeasedWork
    from fairlead.sync.store.blocks import Progress
    from fairlead.sync.store.domain import DedupDomain

DAMAGE = (IntegrityError, ObjectNotFound, InvalidInput)
"""What reading back raises when the bytes are wrong; anything else says only that they could not be read now."""


def read_back(
    store: ObjectStore, domain: DedupDomain, digest: str, layout_key: str | None, progress: Progress | None = None
) -> ArtifactReader:
    """Read every byte of an artifact through a layout.

    Raises:
        IntegrityError, ObjectNotFound, InvalidInput: if they are not all there, or not what their names say.
        LocationUnavailable, PermissionDenied: if they could not be read.
    """
    reader = ArtifactReader.open(store, domain, Digest(digest), layout_key)
    reader.verify(progress)
    return reader


def find_damaged_packs(
    store: ObjectStore, domain: DedupDomain, digest: str, layout_key: str | None, indexed: Iterable[str]
) -> set[str]:
    """The packs (hexadecimal) that are damaged, of an artifact whose reading back failed.

    Those are the packs of its layout that do not hold what the layout says. Where there is no layout to go by (after a
    wipe), they are the packs that the block index names and a listing does not.
    """
    try:
        stored = ArtifactReader.open(store, domain, Digest(digest), layout_key).layout.blocks
    except DAMAGE:
        if unreadable := _packs_without_index(store, domain, Digest(digest), layout_key):
            return unreadable
        # One request for a thousand packs, where asking for each would be one for each.
        found = {domain.parse_pack_key(item.key) for item in store.list(domain.pack_prefix())}
        return {pack for pack in indexed if Digest(f"sha256:{pack}") not in found}
    return {digest_hex(stored[block].pack) for block in find_damaged(store, domain, stored)}


def _packs_without_index(store: ObjectStore, domain: DedupDomain, digest: Digest, layout_key: str | None) -> set[str]:
    """Of the packs whose index a layout names, those (hexadecimal) that lost it, or have another one."""
    if layout_key is None:
        return set()
    try:
        runs_by_pack = read_outline(store, domain, digest, layout_key).runs_by_pack
    except DAMAGE:
        return set()
    lost: set[str] = set()
    for pack, runs in runs_by_pack.items():
        try:
            look_up_runs(store, domain, runs)
        except DAMAGE:
            lost.add(digest_hex(pack))
    return lost


def keep_objects(session: Session, shelf: BlockShelf, reader: ArtifactReader, graves: Collection[str]) -> None:
    """Let nothing of an artifact that was just read back be collected, in the transaction that records it.

    `graves` is what `garbage.find_graves` said before it was read.

    Raises:
        BeingCollected: if something of it is being deleted; then it has to be read back again.
    """
    domain = domain_of(shelf)
    keys = [reader.layout_key, domain.manifest_key(reader.digest), *map(domain.pack_key, reader.layout.packs)]
    garbage.rescue(session, shelf.workspace_id, shelf.location_id, keys, graves)


def forget_packs(session: Session, shelf: BlockShelf, region: str, packs: Collection[str], now: datetime) -> None:
    """Take damaged packs out of the block index, and have what else may stand on them read again.

    The location may have lost more than packs: its signed refs and its copy of the record are written again too.
    """
    if not packs or not blocks.drop_packs(session, shelf, packs):
        return
    verified = select(ReplicaRow).where(
        ReplicaRow.workspace_id == shelf.workspace_id,
        ReplicaRow.residency == shelf.residency,
        ReplicaRow.location_id == shelf.location_id,
        ReplicaRow.state == "VERIFIED",
    )
    for replica in session.scalars(verified).all():
        require_replica_work(session, VERIFY_REPLICA, key_of(replica), region, now)
    session.execute(
        update(LocationRow)
        .where(LocationRow.workspace_id == shelf.workspace_id, LocationRow.id == shelf.location_id)
        .values(published_refs_revision=-1, published_record_sequence=-1)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handed:
    """An upload as it was handed over."""

    shelf: BlockShelf
    location: Location
    digest: str
    layout_key: str
    indexed: tuple[str, ...]
    graves: frozenset[str]


class UploadVerification:
    """The handler of `verify-upload`."""

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog, open_store: StoreOpener) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._open_store = open_store

    def __call__(self, leased: LeasedWork) -> None:
        """Read an upload back and record what was found.

        Raises:
            LeaseLost: if another worker took over.
            LocationUnavailable, PermissionDenied: if the location cannot be read now; it is tried again.
            BeingCollected: if something that it stands on is being deleted; it is tried again.
        """
        handed = self._load(leased)
        if handed is None:
            with self._database.write() as session:
                work.finish(session, leased)
            return
        store, domain = open_location(self._open_store, handed.location), domain_of(handed.shelf)
        try:
            reader = read_back(
                store, domain, handed.digest, handed.layout_key, progress_reporter(self._database, leased)
            )
        except DAMAGE as error:
            packs = find_damaged_packs(store, domain, handed.digest, handed.layout_key, handed.indexed)
            self._record_failure(leased, handed, error, packs)
        else:
            self._record(leased, handed, reader, _tensor_signature(reader))

    def _load(self, leased: LeasedWork) -> _Handed | None:
        with self._database.read() as session:
            row = session.get(UploadRow, (leased.workspace_id, leased.subject))
            if row is None or row.state != "VERIFYING" or row.artifact_digest is None or row.layout_key is None:
                return None
            shelf = shelf_of(row)
            return _Handed(
                shelf=shelf,
                location=get_location(session, row.workspace_id, row.location_id),
                digest=row.artifact_digest,
                layout_key=row.layout_key,
                indexed=tuple(blocks.list_packs(session, shelf)),
                graves=garbage.find_graves(session, row.workspace_id, row.location_id, self._clock.now()),
            )

    def _record(
        self, leased: LeasedWork, handed: _Handed, reader: ArtifactReader, tensor_signature: str | None
    ) -> None:
        now = self._clock.now()
        with self._database.write() as session:
            upload = session.get_one(UploadRow, (leased.workspace_id, leased.subject), with_for_update=True)
            artifact = _ensure_artifact(session, upload, reader, now)
            artifact.tensor_signature = tensor_signature
            key = ReplicaKey(
                workspace_id=artifact.workspace_id,
                residency=artifact.residency,
                artifact_digest=artifact.digest,
                location_id=handed.location.id,
            )
            mark_verified(
                session,
                ensure_replica(session, key, now),
                layout_key=reader.layout_key,
                stored_bytes=reader.layout.stored_bytes,
                moved_bytes=upload.sent_bytes,
                source_location_id=None,
                now=now,
            )
            keep_objects(session, handed.shelf, reader, handed.graves)
            blocks.add_blocks(session, handed.shelf, map(to_place, reader.layout.blocks.values()))
            upload.state = "READY"
            session.flush()
            version_states.mark_ready(session, upload.workspace_id, upload.id, reader.digest, now)
            want_replicas(session, artifact, now)
            self._account(session, upload, artifact, handed.location, now)
            work.finish(session, leased)

    def _account(
        self, session: Session, upload: UploadRow, artifact: ArtifactRow, location: Location, now: datetime
    ) -> None:
        sent = upload.sent_bytes or 0
        cost = ledger.transfer_cost(self._catalog, source_region=None, region=location.region, size_bytes=sent)
        ledger.record(
            session,
            workspace_id=upload.workspace_id,
            residency=upload.residency,
            cause=f"upload/{upload.id}",
            kind="upload",
            subject=artifact.digest,
            source_region=None,
            region=location.region,
            planned_bytes=sent,
            moved_bytes=sent,
            planned=cost,
            actual=cost,
            labels=upload.labels,
            now=now,
        )
        audit.record(
            session,
            system_caller(upload.workspace_id, "worker"),
            self._clock,
            action="upload.ready",
            subject=artifact.digest,
            residency=upload.residency,
            facts={
                "upload": upload.id,
                "location": location.name,
                "region": location.region,
                "size_bytes": artifact.size_bytes,
                "sent_bytes": sent,
            },
        )

    def _record_failure(
        self, leased: LeasedWork, handed: _Handed, error: FairleadError, packs: Collection[str]
    ) -> None:
        now = self._clock.now()
        with self._database.write() as session:
            upload = session.get_one(UploadRow, (leased.workspace_id, leased.subject), with_for_update=True)
            upload.state = "FAILED"
            upload.error_code = error.code
            upload.error_detail = error.detail
            session.flush()
            version_states.mark_failed(
                session, upload.workspace_id, upload.id, code=error.code, detail=error.detail, now=now
            )
            forget_packs(session, handed.shelf, handed.location.region, packs, now)
            audit.record(
                session,
                system_caller(upload.workspace_id, "worker"),
                self._clock,
                action="upload.fail",
                subject=upload.id,
                residency=upload.residency,
                facts={"location": handed.location.name, "code": error.code, "damaged_packs": len(packs)},
            )
            work.finish(session, leased)


class ReplicaVerification:
    """The handler of `verify-replica`: reads a VERIFIED replica again, and takes it out of service if it is damaged."""

    def __init__(self, database: Database, clock: Clock, *, open_store: StoreOpener) -> None:
        self._database = database
        self._clock = clock
        self._open_store = open_store

    def __call__(self, leased: LeasedWork) -> None:
        """Read a replica back and record what was found.

        Raises:
            LeaseLost: if another worker took over.
            LocationUnavailable, PermissionDenied: if the location cannot be read now; it is tried again.
        """
        key = ReplicaKey.from_subject(leased.workspace_id, leased.subject)
        with self._database.read() as session:
            shelf = shelf_of_replica(session, key)
            row = session.get(ReplicaRow, (key.workspace_id, key.residency, key.artifact_digest, key.location_id))
            layout_key = None if row is None or row.state != "VERIFIED" else row.layout_key
            location = get_location(session, key.workspace_id, key.location_id)
            indexed = blocks.list_packs(session, shelf)
        error: FairleadError | None = None
        packs: set[str] = set()
        if layout_key is not None:
            store, domain = open_location(self._open_store, location), domain_of(shelf)
            try:
                read_back(store, domain, key.artifact_digest, layout_key, progress_reporter(self._database, leased))
            except DAMAGE as damage:
                error = damage
                packs = find_damaged_packs(store, domain, key.artifact_digest, layout_key, indexed)
        now = self._clock.now()
        with self._database.write() as session:
            replica = lock_replica(session, key)
            # A repair that was recorded meanwhile has read newer bytes than this did.
            if replica is not None and layout_key is not None and replica.layout_key == layout_key:
                if error is not None and replica.state == "VERIFIED":
                    mark_corrupt(session, replica, location.region, error.code, now)
                    self._audit(session, key, location, "replica.corrupt", error.code)
                elif replica.state == "VERIFIED":
                    replica.verified_at = now
                    self._audit(session, key, location, "replica.verify", None)
            work.finish(session, leased)
            forget_packs(session, shelf, location.region, packs, now)

    def _audit(self, session: Session, key: ReplicaKey, location: Location, action: str, code: str | None) -> None:
        audit.record(
            session,
            system_caller(key.workspace_id, "worker"),
            self._clock,
            action=action,
            subject=key.artifact_digest,
            residency=key.residency,
            facts={"location": location.name, "region": location.region, "code": code},
        )


def shelf_of_replica(session: Session, key: ReplicaKey) -> BlockShelf:
    """The dedup domain and location that a replica stands on, or is to."""
    artifact = session.get(ArtifactRow, (key.workspace_id, key.residency, key.artifact_digest))
    return blocks.BlockShelf(
        workspace_id=key.workspace_id,
        residency=key.residency,
        location_id=key.location_id,
        key_id=PLAIN_KEY_ID if artifact is None else artifact.key_id,
    )


def _tensor_signature(reader: ArtifactReader) -> str | None:
    """Which tensors the artifact has; None also where that cannot be read now, since it only serves to save bytes."""
    try:
        return signature_of_artifact(reader)
    except FairleadError:
        return None


def _ensure_artifact(session: Session, upload: UploadRow, reader: ArtifactReader, now: datetime) -> ArtifactRow:
    """The artifact's row. Where it was uploaded before, it is wanted in the regions of both, under the newer key."""
    identity = (upload.workspace_id, upload.residency, reader.digest)
    row = session.get(ArtifactRow, identity, with_for_update=True)
    if row is None:
        row = ArtifactRow(
            workspace_id=upload.workspace_id,
            residency=upload.residency,
            digest=reader.digest,
            kind=upload.kind,
            size_bytes=reader.manifest.plain_bytes,
            file_count=len(reader.manifest.files),
            regions=upload.regions,
            labels=upload.labels,
            key_id=upload.key_id,
            created_at=now,
        )
        session.add(row)
        session.flush()
        return row
    reclaim_artifact(session, row, now)
    # What was encrypted under another key, or not at all, is kept under the key of the newer upload from now on.
    move_to_key(session, row, upload.key_id, now)
    if row.regions is None or upload.regions is None:
        row.regions = None
    else:
        row.regions = sorted({*row.regions, *upload.regions})
    session.flush()
    return row
