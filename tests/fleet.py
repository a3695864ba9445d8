"""Three local folders as three regions, a record, and the worker that keeps them in step."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select

from fairlead.catalog import load_catalog
from fairlead.core.db import Database
from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore, RegionUse, RegionUser
from fairlead.registry import work
from fairlead.registry.identity import Caller
from fairlead.registry.locations import Location, Locations
from fairlead.registry.paging import PageRequest
from fairlead.registry.replicas import Artifact, Artifacts, Replica, derive_replicas
from fairlead.registry.retirement import Retirements
from fairlead.registry.tables import AuditEventRow, LedgerRow, WorkRow
from fairlead.registry.uploads import Upload, Uploads
from fairlead.registry.versions import Versions
from fairlead.sync.backfill import Backfills
from fairlead.sync.duties import Duties, sync_duties
from fairlead.sync.plans import ReplicationPlans
from fairlead.sync.record_rows import RecordSource, registry_rows
from fairlead.sync.shelves import by_digest
from fairlead.sync.storage_access import StorageAccess
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.encryption import EncryptedStore, Keyring
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.presigning import open_signer
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.refs import generate_signing_key
from fairlead.sync.store.writer import WrittenArtifact, write_artifact
from fairlead.sync.transfer import Patience, Transfers
from fairlead.sync.upkeep_duties import UpkeepRules
from fairlead.sync.worker import Worker
from fairlead.testing.clock import ManualClock
from tests.records import WORKSPACE, open_record

REGIONS = {"virginia": "aws:us-east-1", "eemshaven": "gcp:europe-west4", "amsterdam": "azure:westeurope"}
LABELS = {"owner": "ana", "team": "risk", "cost_centre": "cc-7"}
ADMIN = Caller(workspace_id=WORKSPACE, principal="ana", scopes=frozenset({"admin"}))
BACK_OFF = work.LONGEST_RETRY + timedelta(seconds=1)


@dataclass(slots=True, kw_only=True)
class Fleet:
    """A running Fairlead without HTTP; `wrap` may put a failing store before that of a location.

    With `keyring`, what lies under an encryption key is encrypted, as in the service.
    """

    root: Path
    database: Database
    clock: ManualClock = field(default_factory=ManualClock)
    signing_key: bytes = field(default_factory=generate_signing_key)
    former_signing_keys: tuple[bytes, ...] = ()
    wrap: Callable[[str, ObjectStore], ObjectStore] = lambda _name, store: store
    # All of every location is read again each day.
    upkeep: UpkeepRules = field(default_factory=lambda: UpkeepRules(scrub_days=1))
    keyring: Keyring | None = None
    region_use: RegionUse | None = None
    users: dict[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])
    record_sources: Sequence[RecordSource] = (registry_rows,)
    transfers: Transfers = field(default_factory=lambda: Transfers(patience=Patience(sleep=lambda _seconds: None)))

    def open_store(self, url: str, options: Mapping[str, object]) -> ObjectStore:
        return self.encrypted(self.wrap(url.rpartition("/")[2], open_store(url, options)))

    def encrypted(self, store: ObjectStore) -> ObjectStore:
        return store if self.keyring is None else EncryptedStore(store, self.keyring)

    @property
    def duties(self) -> Duties:
        return sync_duties(
            self.database,
            self.clock,
            catalog=load_catalog(),
            open_store=self.open_store,
            signing_key=self.signing_key,
            former_signing_keys=self.former_signing_keys,
            transfers=self.transfers,
            record_sources=self.record_sources,
            region_use=self,
            upkeep=self.upkeep,
        )

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.database, self.clock)

    @property
    def uploads(self) -> Uploads:
        return Uploads(self.database, self.clock, catalog=load_catalog())

    @property
    def locations(self) -> Locations:
        return Locations(self.database, self.clock, catalog=load_catalog(), open_store=self.open_store)

    @property
    def backfills(self) -> Backfills:
        return Backfills(
            self.database,
            self.clock,
            catalog=load_catalog(),
            locations=self.locations,
            derive=[derive_replicas],
            open_store=self.open_store,
        )

    @property
    def plans(self) -> ReplicationPlans:
        versions = Versions(self.database, self.clock)
        return ReplicationPlans(self.database, catalog=load_catalog(), open_store=self.open_store, versions=versions)

    @property
    def storage_access(self) -> StorageAccess:
        return StorageAccess(
            self.database,
            self.clock,
            uploads=self.uploads,
            artifacts=self.artifacts,
            open_store=self.open_store,
            open_signer=open_signer,
        )

    @property
    def retirements(self) -> Retirements:
        return Retirements(self.database, self.clock, region_use=self)

    def used_by(self, workspace_id: str, region: str) -> Sequence[RegionUser]:
        """What tests say runs in a region, unless serving does."""
        if self.region_use is not None:
            return self.region_use.used_by(workspace_id, region)
        return [RegionUser(name=name) for name in self.users.get(region, ())]

    def worker(self) -> Worker:
        duties = self.duties
        return Worker(self.database, self.clock, regions=None, handlers=duties.handlers, derivers=duties.derivers)

    def run(self) -> int:
        """One worker, new each time (as after a crash), until nothing is due."""
        return self.worker().run_until_idle()

    def settle(self, rounds: int = 6) -> None:
        """Let every back-off and lease pass until all is done."""
        for _ in range(rounds):
            self.run()
            if not self.count(WorkRow):
                return
            self.clock.advance(BACK_OFF)

    def folder(self, name: str) -> Path:
        return self.root / name

    def add(self, name: str) -> Location:
        return self.locations.add(ADMIN, name=name, region=REGIONS[name], url=self.folder(name).as_uri())

    def begin(self, *, residency: str = "unrestricted", regions: list[str] | None = None, near: str) -> Upload:
        return self.uploads.begin(
            ADMIN, kind="model", residency=residency, regions=regions, labels=LABELS, region=REGIONS[near]
        )

    def write(self, upload: Upload, files: Mapping[str, bytes]) -> WrittenArtifact:
        """What a client does between `begin` and `complete`."""
        return write_artifact(
            self.encrypted(open_store(upload.location.url, upload.location.options)),
            domain_of_upload(upload),
            files,
            known_blocks=lambda digests: by_digest(self.uploads.known_blocks(ADMIN, upload.id, digests)),
        )

    def complete(self, upload: Upload, written: WrittenArtifact) -> Upload:
        return self.uploads.complete(
            ADMIN,
            upload.id,
            artifact_digest=written.digest,
            layout_key=written.layout_key,
            sent_bytes=written.sent_bytes,
        )

    def register(
        self,
        files: Mapping[str, bytes],
        *,
        residency: str = "unrestricted",
        regions: list[str] | None = None,
        near: str = "virginia",
    ) -> tuple[str, WrittenArtifact]:
        """Upload files and hand them over; the upload's id and what was written."""
        upload = self.begin(residency=residency, regions=regions, near=near)
        written = self.write(upload, files)
        self.complete(upload, written)
        return upload.id, written

    def states(self, digest: str) -> dict[str, str]:
        return {replica.location.name: replica.state for replica in self.artifact(digest).replicas}

    def artifact(self, digest: str) -> Artifact:
        return self.artifacts.get(ADMIN, digest)

    def location(self, name: str) -> Location:
        (found,) = (each for each in self.locations.list(ADMIN, PageRequest()).items if each.name == name)
        return found

    def replica(self, digest: str, name: str, residency: str | None = None) -> Replica:
        (found,) = (
            each
            for each in self.artifact(digest).replicas
            if each.location.name == name and residency in {None, each.residency}
        )
        return found

    def read(self, digest: str, name: str, residency: str | None = None) -> dict[str, bytes]:
        """Every file as a reader gets it from one location."""
        replica = self.replica(digest, name, residency)
        assert replica.state == "VERIFIED"
        domain = DedupDomain(WORKSPACE, replica.residency, replica.key_id)
        store = self.encrypted(open_store(replica.location.url, replica.location.options))
        reader = ArtifactReader.open(store, domain, Digest(digest), replica.layout_key)
        return {file.path: reader.read_file(file.path) for file in reader.manifest.files}

    def packs(self, name: str) -> list[Path]:
        return sorted(self.folder(name).rglob("*.pack"))

    def wipe(self, name: str) -> None:
        shutil.rmtree(self.folder(name))
        self.folder(name).mkdir()

    def ledger(self, kind: str) -> list[LedgerRow]:
        with self.database.read() as session:
            return list(session.scalars(select(LedgerRow).where(LedgerRow.kind == kind)))

    def actions(self) -> list[str]:
        with self.database.read() as session:
            return list(session.scalars(select(AuditEventRow.action).order_by(AuditEventRow.id)))

    def count(self, table: type[WorkRow | LedgerRow]) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0


@contextlib.contextmanager
def open_fleet(root: Path, url: str | None = None, *, names: tuple[str, ...] = tuple(REGIONS)) -> Generator[Fleet]:
    """A fleet with locations of these names, on SQLite unless a database's URL is given."""
    with open_record(url or f"sqlite:///{root / 'fairlead.db'}") as database:
        fleet = Fleet(root=root, database=database)
        for name in names:
            fleet.add(name)
        yield fleet


def domain_of_upload(upload: Upload) -> DedupDomain:
    return DedupDomain(WORKSPACE, upload.residency, upload.key_id)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
