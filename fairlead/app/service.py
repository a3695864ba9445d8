"""The composition root: every use case built once, with what it needs, and handed to routes and workers.

Nothing here decides anything; to see what depends on what, read `Service.build`.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, text

from fairlead.app.catalog_parts import CatalogParts, assemble_catalog
from fairlead.app.feature_sources import feature_sources
from fairlead.app.guard import Activity
from fairlead.app.wiring import make_duties, make_webhooks, open_database, read_signing_key
from fairlead.core.cloud_hosts import guarding
from fairlead.core.db import Database
from fairlead.core.errors import FairleadError
from fairlead.core.quick_reads import QuickReads
from fairlead.featurestore.artifact_uses import snapshot_uses
from fairlead.featurestore.assembly import FeatureStore, assemble_features
from fairlead.featurestore.federation_assembly import Federation, assemble_federation
from fairlead.featurestore.online_choice import read_choices
from fairlead.featurestore.snapshot_checks import SnapshotFindings
from fairlead.featurestore.stream_assembly import StreamRules
from fairlead.registry import work
from fairlead.registry.audit import Sealer
from fairlead.registry.events import EventLog, Streams
from fairlead.registry.idempotency import forget_old_keys
from fairlead.registry.identity import Tokens, bootstrap, forget_ended_tokens, system_caller
from fairlead.registry.keys import Keys
from fairlead.registry.locations import Locations
from fairlead.registry.mlflow.staging import Staging
from fairlead.registry.mlflow.tracking_servers import TrackingServers, tracking_rules
from fairlead.registry.replica_policies import PolicySweep, ReplicaPolicies, model_uses
from fairlead.registry.replicas import REPLICATE, VERIFY_REPLICA, Artifacts, derive_replicas
from fairlead.registry.retention import RetentionPolicies
from fairlead.registry.retirement import Retirements
from fairlead.registry.tables import LocationRow, TokenRow, WorkRow
from fairlead.registry.uploads import VERIFY_UPLOAD, Uploads
from fairlead.registry.versions import Versions
from fairlead.registry.webhook_assembly import WebhookParts
from fairlead.registry.webhook_delivery import release_leases
from fairlead.serving.artifact_uses import bundle_uses
from fairlead.serving.assembly import Serving, assemble_serving
from fairlead.serving.bundle_images import CHECK_IMAGE, PUSH_IMAGE
from fairlead.serving.bundle_tests import TEST_BUNDLE
from fairlead.serving.bundles import BUILD_BUNDLE
from fairlead.serving.deployment_index import FollowingDeployments, ReadyBundles
from fairlead.serving.leaving import RegionDeployments
from fairlead.serving.lineage import Lineages
from fairlead.serving.profiles import PROFILE_BUNDLE
from fairlead.serving.rollout import DEPLOY
from fairlead.sync.backfill import Backfills
from fairlead.sync.duties import Duties
from fairlead.sync.plans import ReplicationPlans
from fairlead.sync.publication import PUBLISH_REFS
from fairlead.sync.record_publication import PUBLISH_RECORD
from fairlead.sync.scratch import Scratch
from fairlead.sync.staged_storing import StagedStoring
from fairlead.sync.storage_access import StorageAccess
from fairlead.sync.store.encryption import encrypting
from fairlead.sync.store.keyring import UnwrappingKeyring, open_key_providers
from fairlead.sync.store.objects import Opened, OpenStores
from fairlead.sync.store.presigning import open_signer
from fairlead.sync.version_files import StoredVersionFiles
from fairlead.sync.version_pulls import PULL_VERSION, VersionPull, derive_pulls
from fairlead.sync.worker import Lane, Worker, throttled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastapi import APIRouter

    from fairlead.app.settings import ServerSettings
    from fairlead.core.ports import Clock
    from fairlead.registry.shortcuts import Shortcut

SEAL_SECONDS = 0.5
GATEWAY_SECONDS = 0.5
STREAMS_SECONDS = 0.5
FORGET_SECONDS = 3600.0
RETENTION_EVERY = timedelta(hours=1)
PROMPT_THREADS = DEPLOY_THREADS = REST_THREADS = PULL_THREADS = 2
_ARTIFACT_USES = (model_uses, bundle_uses, snapshot_uses)
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Service:
    """One process's view of the record: use cases, worker and sealer."""

    settings: ServerSettings
    database: Database
    quick_reads: QuickReads
    clock: Clock
    home: Path
    signing_keys: tuple[bytes, ...] = field(repr=False)
    catalog: CatalogParts
    tokens: Tokens
    keys: Keys
    locations: Locations
    backfills: Backfills
    retirements: Retirements
    uploads: Uploads
    artifacts: Artifacts
    storage_access: StorageAccess
    replica_policies: ReplicaPolicies
    features: FeatureStore
    federation: Federation
    serving: Serving
    plans: ReplicationPlans
    duties: Duties
    streams: Streams
    webhooks: WebhookParts
    tracking_servers: TrackingServers
    storing: StagedStoring
    version_files: StoredVersionFiles
    version_pull: VersionPull
    activity: Activity = field(default_factory=Activity)
    _wakers: list[Worker] = field(default_factory=list[Worker])
    _stopping: threading.Event = field(default_factory=threading.Event)
    _sealing: threading.Thread | None = None
    _tending: threading.Thread | None = None

    @classmethod
    def build(cls, settings: ServerSettings, clock: Clock, *, is_embedded: bool) -> Service:
        """Open the database and build every use case on it.

        Raises:
            DatabaseRevisionMismatch: as `open_database` says.
        """
        home = settings.folder
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = open_database(settings, is_embedded=is_embedded)
        catalog_parts = assemble_catalog(settings, database, clock)
        catalog = catalog_parts.catalog
        wakers: list[Worker] = []

        def wake() -> None:
            for worker in wakers:
                worker.wake()

        providers = open_key_providers(settings.key_file)
        keys = Keys(database, clock, providers=providers)
        open_guarded = guarding(OpenStores(), settings.allowed_hosts)
        open_store = encrypting(open_guarded, UnwrappingKeyring(providers, keys.look_up))
        uploads = Uploads(database, clock, catalog=catalog)
        artifacts = Artifacts(database, clock)
        storing = StagedStoring(uploads, open_store, home / "mlflow-sealed", wake=wake)
        sources = feature_sources(settings, is_embedded=is_embedded)
        signing_keys = tuple(read_signing_key(path) for path in settings.signing_key_file or [home / "refs.key"])
        features = assemble_features(
            database=database,
            clock=clock,
            catalog=catalog,
            uploads=uploads,
            artifacts=artifacts,
            open_store=open_store,
            folder=home / "features",
            sources=sources,
            wake=wake,
            signing_key=signing_keys[0],
            collect_grace=settings.collect_grace,
            # The embedded server stands for every region.
            home_region=None if is_embedded else settings.region,
            online_choices=read_choices(settings.feature_online_engine.get_secret_value()),
            stream_rules=StreamRules(
                region=None if is_embedded else settings.region,
                is_anywhere=is_embedded,
                seal_rows=settings.feature_log_rows,
                seal_after=settings.feature_log_after,
            ),
        )
        federation = assemble_federation(
            database=database,
            clock=clock,
            catalog=catalog,
            artifacts=artifacts,
            open_store=open_store,
            folder=home / "features",
            sources=sources,
            signing_keys=signing_keys,
            is_local=is_embedded,
            region=settings.region,
        )
        serving = assemble_serving(
            database=database,
            clock=clock,
            catalog=catalog,
            uploads=uploads,
            open_store=open_store,
            folder=home / "serving",
            online_store=features.online_store_path,
            target_rules=settings.target_rules(is_embedded=is_embedded),
            bundle_rules=settings.bundle_rules,
            image_rules=settings.image_rules,
            signing_key=signing_keys[0],
            wake=wake,
        )
        locations = Locations(
            database, clock, catalog=catalog, open_store=open_store, cloud_hosts=settings.allowed_hosts
        )
        region_use = RegionDeployments(database, catalog)
        plans = ReplicationPlans(database, catalog=catalog, open_store=open_store, versions=Versions(database, clock))
        return cls(
            settings=settings,
            database=database,
            quick_reads=QuickReads(database),
            clock=clock,
            home=home,
            signing_keys=signing_keys,
            catalog=catalog_parts,
            tokens=Tokens(database, clock),
            keys=keys,
            locations=locations,
            backfills=Backfills(
                database,
                clock,
                catalog=catalog,
                locations=locations,
                derive=[PolicySweep(_ARTIFACT_USES), derive_replicas],
                open_store=open_store,
            ),
            retirements=Retirements(database, clock, region_use=region_use),
            uploads=uploads,
            artifacts=artifacts,
            storage_access=StorageAccess(
                database,
                clock,
                uploads=uploads,
                artifacts=artifacts,
                open_store=open_store,
                open_signer=guarding(Opened(open_signer), settings.allowed_hosts),
            ),
            replica_policies=ReplicaPolicies(database, clock, catalog=catalog, uses=_ARTIFACT_USES),
            features=features,
            federation=federation,
            serving=serving,
            plans=plans,
            duties=make_duties(
                settings,
                database,
                clock,
                catalog=catalog,
                open_store=open_store,
                signing_keys=signing_keys,
                plans=plans,
                region_use=region_use,
            ),
            streams=Streams(EventLog(database), limit=settings.event_streams),
            webhooks=make_webhooks(settings, database, clock, signing_keys=signing_keys),
            tracking_servers=TrackingServers(database, clock, rules=tracking_rules(settings.tracking_hosts)),
            storing=storing,
            version_files=StoredVersionFiles(
                database, uploads=uploads, artifacts=artifacts, open_store=open_store, storing=storing
            ),
            version_pull=VersionPull(
                database,
                clock,
                uploads=uploads,
                open_store=open_store,
                scratch=Scratch(home / "pulls"),
                rules=tracking_rules(settings.tracking_hosts),
            ),
            _wakers=wakers,
        )

    def mlflow_routers(self) -> list[APIRouter]:
        """The routes of MLflow's dialect, with their whole paths."""
        from fairlead.registry.mlflow.assembly import mlflow_routers

        self.storing.resume()
        return mlflow_routers(
            self.database,
            self.clock,
            deployments=FollowingDeployments(self.database),
            tracking_servers=self.tracking_servers,
            staging=Staging(self.home / "mlflow-uploads", max_bytes=self.settings.staging_bytes),
            files=self.version_files,
            wake=self._wake,
            webhooks=self.webhooks,
        )

    def shortcuts(self, api_prefix: str) -> dict[str, Shortcut]:
        """Quick answers to what is asked all the time."""
        from fairlead.registry.quick_versions import QuickVersions
        from fairlead.registry.shortcuts import shortcuts

        return shortcuts(QuickVersions(self.database, self.quick_reads, self.clock), api_prefix=api_prefix)

    def routers(self) -> list[APIRouter]:
        """Every package's routes, without the API's prefix."""
        # FastAPI costs a second that a worker need not wait for.
        from fairlead.registry.api import record_routers
        from fairlead.registry.api_events import events_router
        from fairlead.registry.api_issuers import token_exchange_router
        from fairlead.registry.api_keys import keys_router
        from fairlead.registry.api_webhooks import webhooks_router
        from fairlead.registry.issuers import Issuers
        from fairlead.registry.mlflow.api_tracking_servers import tracking_servers_router
        from fairlead.registry.token_exchange import TokenExchange
        from fairlead.serving.api_lineage import lineage_router
        from fairlead.sync.api import sync_routers
        from fairlead.sync.api_record import record_router

        return [
            *record_routers(
                self.database,
                self.clock,
                replica_policies=self.replica_policies,
                deployments=FollowingDeployments(self.database),
                copies=self.plans,
                bundles=ReadyBundles(self.database),
                snapshots=SnapshotFindings(self.database),
            ),
            token_exchange_router(
                TokenExchange(
                    self.database,
                    self.clock,
                    hosts=None if self.settings.issuer_hosts is None else tuple(self.settings.issuer_hosts),
                ),
                Issuers(self.database, self.clock),
            ),
            keys_router(self.keys),
            tracking_servers_router(self.tracking_servers),
            events_router(EventLog(self.database), self.streams),
            webhooks_router(self.webhooks.webhooks, self.webhooks.tests, self.webhooks.deliverer.wake),
            record_router(self.database, self.catalog.catalog, self.signing_keys),
            *sync_routers(
                locations=self.locations,
                backfills=self.backfills,
                retirements=self.retirements,
                uploads=self.uploads,
                artifacts=self.artifacts,
                storage_access=self.storage_access,
                database=self.database,
                clock=self.clock,
                plans=self.plans,
                wake=self._wake,
            ),
            *self.features.routers(),
            *self.federation.routers(),
            *self.serving.routers(),
            *self.catalog.routers(),
            lineage_router(Lineages(self.database, Versions(self.database, self.clock))),
        ]

    def start(self, *, has_worker: bool = True, regions: Sequence[str] | None = None) -> None:
        """Start the sealer and, if wanted, a worker for some regions (None: for all)."""
        self._sealing = threading.Thread(target=self._seal, name="fairlead-seal", daemon=True)
        self._sealing.start()
        self.catalog.start(has_worker=has_worker)
        kept = regions if has_worker else ()
        self._tending = threading.Thread(target=self._tend_streams, args=(kept,), name="fairlead-streams", daemon=True)
        self._tending.start()
        if not has_worker:
            return
        threading.Thread(target=self._tend_gateway, name="fairlead-gateway", daemon=True).start()
        self.webhooks.deliverer.start()
        worker = Worker(
            self.database,
            self.clock,
            regions=regions,
            handlers={
                **self.duties.handlers,
                **self.features.handlers,
                **self.serving.handlers,
                PULL_VERSION: self.version_pull,
            },
            derivers=[
                PolicySweep(_ARTIFACT_USES),
                throttled(self._retention().sweep, RETENTION_EVERY),
                derive_pulls,
                *self.duties.derivers,
                *self.features.derivers(regions),
                *self.serving.derivers,
            ],
            threads=REST_THREADS,
            lanes=self._lanes(),
            lease_ttl=self.settings.lease,
        )
        self._wakers.append(worker)
        worker.start()

    def _retention(self) -> RetentionPolicies:
        return RetentionPolicies(self.database, self.clock, FollowingDeployments(self.database))

    def _lanes(self) -> list[Lane]:
        """Threads for what takes long, or may hang, beside those for what somebody waits for."""
        return [
            Lane(name="prompt", kinds=frozenset({VERIFY_UPLOAD, PUBLISH_REFS}), threads=PROMPT_THREADS),
            Lane(name="pull", kinds=frozenset({PULL_VERSION}), threads=PULL_THREADS),
            Lane(name="record", kinds=frozenset({PUBLISH_RECORD}), threads=1),
            Lane(name="copy", kinds=frozenset({REPLICATE, VERIFY_REPLICA}), threads=self.settings.worker_threads),
            Lane(name="deploy", kinds=frozenset({DEPLOY}), threads=DEPLOY_THREADS),
            Lane(name="build", kinds=frozenset({BUILD_BUNDLE}), threads=1),
            Lane(name="test", kinds=frozenset({TEST_BUNDLE}), threads=1),
            Lane(name="image", kinds=frozenset({PUSH_IMAGE, CHECK_IMAGE}), threads=2),
            # One at a time: two would measure each other.
            Lane(name="profile", kinds=frozenset({PROFILE_BUNDLE}), threads=1),
        ]

    def close(self) -> None:
        """Finish what runs, seal what was recorded, and close the database."""
        self._stopping.set()
        self.webhooks.deliverer.stop()
        for worker in self._wakers:
            worker.stop()
        for thread in (self._sealing, self._tending):
            if thread is not None:
                thread.join(timeout=10)
        self.catalog.close()
        self.storing.close()
        self.features.streams.logs.close()
        self.quick_reads.close()
        self.database.close()

    def is_healthy(self) -> bool:
        """Whether the database answers."""
        try:
            with self.database.read() as session:
                session.execute(text("SELECT 1"))
        except FairleadError:
            return False
        return True

    def is_drained(self) -> bool:
        """Whether nothing runs, is deployed or waits but what was tried in vain, which the next server tries again."""
        # Endpoints want somebody to tend them.
        is_sending = self.webhooks.deliverer.is_busy or not self.storing.is_idle
        is_sending |= not self.features.streams.sealing.is_idle
        if is_sending or any(worker.is_busy for worker in self._wakers) or self.serving.target.is_used:
            return False
        with self.database.read() as session:
            # What was put off (for want of money, say) is no reason to stay; the next server looks again.
            due = select(WorkRow.id).where(WorkRow.attempts == 0, WorkRow.not_before <= self.clock.now())
            return session.scalar(due.limit(1)) is None

    def take_over(self) -> None:
        """Free what the home's last server held when it died; a database of others' is left alone."""
        if self.database.is_sqlite:
            work.release_leases(self.database)
            release_leases(self.database)

    def issue_owner_token(self) -> str:
        """Make the workspace unless it exists, and a new token of its owner; answers the secret."""
        issued = bootstrap(
            self.database,
            self.clock,
            principal=self.settings.owner,
            workspace_id=self.settings.workspace,
            jurisdiction=self.settings.jurisdiction,
            is_server_admin=True,
        )
        return issued.secret

    def issue_first_token(self) -> str | None:
        """The owner's token, if nobody has one yet."""
        with self.database.read() as session:
            if session.scalar(select(TokenRow.id).limit(1)) is not None:
                return None
        return self.issue_owner_token()

    def ensure_embedded_locations(self, regions: Sequence[str]) -> None:
        """Make one local folder stand for each region, unless it does already."""
        caller = system_caller(self.settings.workspace, "bootstrap")
        with self.database.read() as session:
            present = set(session.scalars(select(LocationRow.region)))
        for region in regions:
            if region not in present:
                name = region.replace(":", "-")
                folder = self.home / "locations" / name
                self.locations.add(caller, name=name, region=region, url=folder.as_uri())

    def _wake(self) -> None:
        for worker in self._wakers:
            worker.wake()

    def _tend_streams(self, regions: Sequence[str] | None) -> None:
        while not self._stopping.wait(STREAMS_SECONDS):
            try:
                if self.features.streams.keep(regions):
                    self._wake()
            except Exception:  # noqa: BLE001  (the loop goes on)
                _log.exception("logs of pushed rows were not looked after and are next time")

    def _tend_gateway(self) -> None:
        while not self._stopping.wait(GATEWAY_SECONDS):
            try:
                self.serving.tend_gateway()
            except Exception:  # noqa: BLE001  (the loop goes on)
                _log.exception("the gateway did not start and is tried again")

    def _seal(self) -> None:
        sealer = Sealer(self.database, self.clock)
        forget_at = time.monotonic()
        while True:
            is_last = self._stopping.wait(SEAL_SECONDS)
            try:
                if sealer.seal_once():
                    self.streams.wake()
                    self.webhooks.deliverer.wake()
                if time.monotonic() >= forget_at:
                    forget_old_keys(self.database, self.clock)
                    forget_ended_tokens(self.database, self.clock)
                    forget_at = time.monotonic() + FORGET_SECONDS
            except Exception:  # noqa: BLE001  (the loop goes on; what is not sealed now is sealed next time)
                _log.exception("sealing failed and is tried again")
            if is_last:
                return
