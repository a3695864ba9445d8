"""The feature store, put together: every use case and duty built once, with what it needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from fairlead.featurestore.applied import FeatureDefinitions
from fairlead.featurestore.comparing import Comparisons
from fairlead.featurestore.duties import feature_duties
from fairlead.featurestore.erasure_duties import erasure_duties
from fairlead.featurestore.erasures import Erasures
from fairlead.featurestore.expectation_sets import ExpectationSets
from fairlead.featurestore.exports import SnapshotExports
from fairlead.featurestore.feast_repo import FeastRepositories
from fairlead.featurestore.feature_servers import FeatureServers
from fairlead.featurestore.freshness import OnlineMetrics
from fairlead.featurestore.historical import HistoricalReads
from fairlead.featurestore.online import OnlineStores
from fairlead.featurestore.online_checks import OnlineChecks
from fairlead.featurestore.online_choice import EngineChoice, OnlineEngines
from fairlead.featurestore.online_routes import OnlineRouting
from fairlead.featurestore.online_slots import store_for
from fairlead.featurestore.online_sqlite import OnlineFolder
from fairlead.featurestore.replica_rows import ReplicaRows
from fairlead.featurestore.served_log import ServedFolder
from fairlead.featurestore.snapshot_report import SnapshotReports
from fairlead.featurestore.snapshots import Snapshots
from fairlead.featurestore.sources import Sources
from fairlead.featurestore.stream_assembly import FeatureStreams, StreamRules, assemble_streams
from fairlead.registry.versions import Versions
from fairlead.sync.collection import GRACE
from fairlead.sync.duties import Duties
from fairlead.sync.scratch import Scratch

if TYPE_CHECKING:
    from fastapi import APIRouter

    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.replicas import Artifacts
    from fairlead.registry.tables import ModelVersionRow
    from fairlead.registry.uploads import Uploads
    from fairlead.sync.worker import Deriver, Handler


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureStore:
    """Use cases, routes and duties of the feature store."""

    definitions: FeatureDefinitions
    comparisons: Comparisons
    snapshots: Snapshots
    expectations: ExpectationSets
    reports: SnapshotReports
    erasures: Erasures
    historical: HistoricalReads
    exports: SnapshotExports
    online: OnlineStores
    servers: FeatureServers
    routing: OnlineRouting
    checks: OnlineChecks
    feast: FeastRepositories
    streams: FeatureStreams
    online_engines: OnlineEngines
    metrics: OnlineMetrics
    _wake: Callable[[], None]
    _duties: Callable[[Collection[str] | None], Duties]

    def routers(self) -> list[APIRouter]:
        """Every router of this package, without the API's prefix."""
        # FastAPI is not needed by a worker.
        from fairlead.featurestore.api import feature_routers
        from fairlead.featurestore.api_erasures import erasures_router
        from fairlead.featurestore.api_expectations import expectations_router
        from fairlead.featurestore.api_exports import exports_router
        from fairlead.featurestore.api_feast import feast_router
        from fairlead.featurestore.api_freshness import freshness_router
        from fairlead.featurestore.api_online_checks import online_checks_router
        from fairlead.featurestore.api_servers import feature_servers_router

        routers = feature_routers(
            definitions=self.definitions,
            comparisons=self.comparisons,
            snapshots=self.snapshots,
            historical=self.historical,
            online=self.online,
            wake=self._wake,
        )
        return [
            *routers,
            exports_router(self.exports),
            expectations_router(self.expectations, self.reports),
            feast_router(self.feast),
            erasures_router(self.erasures, self._wake),
            feature_servers_router(self.servers, self.routing),
            online_checks_router(self.checks, self._wake),
            freshness_router(self.metrics, self.streams.lags),
            *self.streams.routers(),
        ]

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Handlers by kind of work."""
        return self._duties(None).handlers

    def derivers(self, regions: Collection[str] | None) -> Sequence[Deriver]:
        """Derivers; `regions` are those whose online stores are on this machine (None: all)."""
        return self._duties(regions).derivers

    def online_store_path(self, session: Session, version: ModelVersionRow, region: str) -> str | None:
        """The file of the online store that a model version reads in a region; None until something is served there."""
        name = store_for(session, version, region)
        return None if name is None else self.online_engines.of(region).address(name)


def assemble_features(
    *,
    database: Database,
    clock: Clock,
    catalog: Catalog,
    uploads: Uploads,
    artifacts: Artifacts,
    open_store: StoreOpener,
    folder: Path,
    sources: Sources,
    wake: Callable[[], None],
    signing_key: bytes,
    collect_grace: timedelta = GRACE,
    home_region: str | None = None,
    online_choices: Mapping[str, EngineChoice] | None = None,
    stream_rules: StreamRules | None = None,
) -> FeatureStore:
    """Build the feature store.

    Args:
        database: the record.
        clock: the time.
        catalog: the regions.
        uploads: the way into a location.
        artifacts: where damaged replicas are reported.
        open_store: opens a location.
        folder: what this machine keeps: `online/` (the online stores), `rows/` (verified copies, which may be deleted
            at any time), `scratch/`.
        sources: finds the rows of views, in the folders and databases that this process may read.
        wake: tells the worker of this process that the desired state has changed.
        signing_key: signs certificates of erasures: an Ed25519 private key, as its 32 raw bytes.
        collect_grace: how long the collector leaves garbage in each of its states.
        home_region: where this process runs; None where that is not stated (embedded mode).
        online_choices: the engine of each region's online stores; SQLite by default.
        stream_rules: how pushed rows are taken; by default in any region, as in embedded mode.
    """
    online_engines = OnlineEngines(OnlineFolder(root=folder / "online"), online_choices)
    scratch = Scratch(folder / "scratch")
    served = ServedFolder(root=folder / "served")
    replicas = ReplicaRows(database, artifacts=artifacts, open_store=open_store, folder=folder / "rows")

    streams = assemble_streams(
        database=database,
        clock=clock,
        catalog=catalog,
        uploads=uploads,
        open_store=open_store,
        replicas=replicas,
        engines=online_engines,
        folder=folder / "logs",
        scratch=scratch,
        rules=stream_rules or StreamRules(region=home_region, is_anywhere=home_region is None),
    )

    def duties(regions: Collection[str] | None) -> Duties:
        rest = erasure_duties(
            database,
            clock,
            uploads=uploads,
            open_store=open_store,
            replicas=replicas,
            engines=online_engines,
            logs=streams.logs,
            served=served,
            scratch=scratch,
            signing_key=signing_key,
            collect_grace=collect_grace,
        )
        own = feature_duties(
            database,
            clock,
            uploads=uploads,
            open_store=open_store,
            replicas=replicas,
            sources=sources,
            online_engines=online_engines,
            logged=streams.logged,
            served=served,
            scratch=scratch,
            regions=regions,
        )
        return Duties(handlers={**own.handlers, **rest.handlers}, derivers=[*own.derivers, *rest.derivers])

    return FeatureStore(
        definitions=FeatureDefinitions(database, clock),
        comparisons=Comparisons(database, Versions(database, clock)),
        snapshots=Snapshots(database, clock),
        expectations=ExpectationSets(database, clock),
        erasures=Erasures(database, clock),
        reports=SnapshotReports(database, replicas=replicas, scratch=scratch, home_region=home_region),
        exports=SnapshotExports(database, replicas=replicas, home_region=home_region),
        historical=HistoricalReads(database, replicas=replicas, scratch=scratch, home_region=home_region),
        online=OnlineStores(database, clock, catalog=catalog, engines=online_engines, home_region=home_region),
        servers=FeatureServers(database, clock, catalog=catalog),
        routing=OnlineRouting(database, clock, catalog=catalog),
        checks=OnlineChecks(database, clock),
        feast=FeastRepositories(database, clock, replicas=replicas, engines=online_engines, home_region=home_region),
        streams=streams,
        online_engines=online_engines,
        metrics=OnlineMetrics(database, clock),
        _wake=wake,
        _duties=duties,
    )
