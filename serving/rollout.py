"""Makes deployments true: derives what each region should run, and runs it there.

The deriver follows pointers: when a promotion or a roll-back moves an environment, the next pass finds every region
that runs something else, asks for the version's bundle where there is none, and requires a deploy where the bundle is
READY and VERIFIED in that very region. A region whose process has died is found the same way. Until a region's new
endpoint is healthy its old one goes on serving.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog, Residency, check
from fairlead.core.db import Database
from fairlead.core.errors import FairleadError, JsonValue
from fairlead.core.ids import Digest, RegionId
from fairlead.core.ports import Clock
from fairlead.registry import audit, ledger, work
from fairlead.registry.identity import system_caller
from fairlead.registry.models import to_labels
from fairlead.registry.tables import RegisteredModelRow
from fairlead.registry.work import LeasedWork
from fairlead.serving.artifacts import verified_replicas
from fairlead.serving.bundles import READY, want_bundle
from fairlead.serving.desired import (
    ACTIVE,
    DELETING,
    DEPLOYING,
    FAILED,
    RUNNING,
    STOPPING,
    WAITING,
    desired_of,
    regions_of,
    route_name,
)
from fairlead.serving.leaving import leave
from fairlead.serving.routing import Endpoint, Route, write_table
from fairlead.serving.tables import BundleRow, DeploymentRegionRow, DeploymentRow
from fairlead.serving.targets import DeployTarget, EndpointSpec, NoLongerWanted, RunningEndpoint

DEPLOY = "deploy"
"""The work of making one region of a deployment right; its subject is `{deployment id}/{region}`."""

OnlineStoreOf = Callable[[Session, str, str, str], str | None]
"""The path of a region's online store: (session, workspace_id, feature_service, region); None until it is there."""


class RouteBook:
    """Publishes the routing table from the record. Publishing is safe at any time, from any process of the machine."""

    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self.path = path

    def publish(self) -> None:
        """Write the table of every deployment that runs somewhere."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever is last to write has read last.
        with self.path.with_suffix(".lock").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with self._database.read() as session:
                rows = session.scalars(select(DeploymentRow).where(DeploymentRow.state == ACTIVE)).all()
                table = {route_name(row): _route(session, row) for row in rows}
            write_table(self.path, {name: route for name, route in table.items() if route.endpoints})


def _route(session: Session, row: DeploymentRow) -> Route:
    return Route(
        residency=row.residency,
        endpoints=tuple(
            Endpoint(
                region=RegionId(each.region), url=each.url, bundle_digest=each.bundle_digest or "", order=each.position
            )
            for each in regions_of(session, row)
            if each.url is not None and each.state != STOPPING
        ),
    )


class RolloutDeriver:
    """The deriver of deployments (see `fairlead.sync.worker.Deriver`)."""

    def __init__(self, target: DeployTarget, online_store: OnlineStoreOf) -> None:
        self._target = target
        self._online_store = online_store

    def __call__(self, session: Session, now: datetime) -> None:
        """Require a deploy for every region that does not run what it should."""
        for row in session.scalars(select(DeploymentRow)).all():
            regions = regions_of(session, row)
            if row.state == DELETING:
                for each in regions:
                    each.state = STOPPING
                if not regions:
                    session.delete(row)
            else:
                leave(session, row, regions, now)
                self._derive(session, row, [each for each in regions if each.state != STOPPING], now)
            for each in regions:
                if each.state == STOPPING:
                    _require(session, row, each, now)

    def _derive(self, session: Session, row: DeploymentRow, regions: list[DeploymentRegionRow], now: datetime) -> None:
        model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
        desired = desired_of(session, model, row.environment, row.version)
        version = desired.version
        if version is None or version.state != READY:
            return
        bundle = desired.bundle or want_bundle(session, model, version, by="fairlead:worker", now=now)
        if bundle.state != READY or bundle.digest is None:
            return
        places = verified_replicas(session, row.workspace_id, row.residency, bundle.digest)
        here = {location.region for location, _ in places}
        for each in regions:
            if each.region not in here:
                continue
            store = None
            if version.feature_service is not None:
                store = self._online_store(session, row.workspace_id, version.feature_service, each.region)
            wanted = (version.version, bundle.digest, store, desired.revision)
            if wanted != (each.wanted_version, each.wanted_digest, each.wanted_store, each.wanted_revision):
                each.wanted_version, each.wanted_digest, each.wanted_store, each.wanted_revision = wanted
                work.hasten(session, workspace_id=row.workspace_id, kind=DEPLOY, subject=_subject(each), now=now)
            if not self._is_right(row, each):
                if each.state in {WAITING, RUNNING}:
                    each.state, each.updated_at = DEPLOYING, now
                _require(session, row, each, now)

    def _is_right(self, row: DeploymentRow, each: DeploymentRegionRow) -> bool:
        if each.state != RUNNING or each.url is None:
            return False
        if (each.bundle_digest, each.online_store) != (each.wanted_digest, each.wanted_store):
            return False
        running = self._target.observe(row.workspace_id, row.name, each.region)
        return running is not None and running.url == each.url


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    spec: EndpointSpec | None  # None: stop
    deployment: str
    version: int | None
    revision: int


class Deployer:
    """The handler of `deploy`."""

    def __init__(
        self, database: Database, clock: Clock, *, catalog: Catalog, target: DeployTarget, routes: RouteBook
    ) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._target = target
        self._routes = routes

    def __call__(self, leased: LeasedWork) -> None:
        """Make one region run what it should, or stop it; what it should do is looked up again while it starts."""
        while True:
            with self._database.read() as session:
                job = _job(session, leased)
            if job is not None and job.spec is None:
                self._stop(leased, job)
                return
            with contextlib.suppress(NoLongerWanted):
                if job is not None and job.spec is not None:
                    self._run(leased, job, job.spec)
                with self._database.write() as session:
                    work.finish(session, leased)
                return

    def _run(self, leased: LeasedWork, job: _Job, spec: EndpointSpec) -> None:
        def is_wanted() -> bool:
            with self._database.read() as session:
                now = _job(session, leased)
            return now is not None and now.spec == spec

        try:
            # Asked again where it counts: nothing runs outside its class, whatever a row says.
            check(Residency(spec.residency), spec.region)
            self._target.ensure(spec, lambda running: self._switch(leased, job, running), is_wanted)
        except FairleadError as error:
            with contextlib.suppress(FairleadError), self._database.write() as session:
                work.check_lease(session, leased)
                row = _region_row(session, leased)
                if row is not None and row.state != STOPPING:
                    row.state, row.updated_at = FAILED, self._clock.now()
                    row.error_code, row.error_detail = error.code, str(error)[-4000:]
            raise

    def _switch(self, leased: LeasedWork, job: _Job, running: RunningEndpoint) -> None:
        """Record the endpoint that is healthy now, and turn traffic to it."""
        now = self._clock.now()
        with self._database.write() as session:
            work.check_lease(session, leased)
            row = _region_row(session, leased)
            if row is None:
                return
            before = (row.url, row.bundle_digest)
            from_version = row.version
            if row.state != STOPPING:
                row.state = RUNNING
            row.version, row.bundle_digest, row.online_store = (
                job.version,
                running.spec.bundle_digest,
                running.spec.online_store,
            )
            row.url, row.process_id, row.updated_at = running.url, running.process_id, now
            row.error_code = row.error_detail = None
            if before != (running.url, running.spec.bundle_digest):
                self._record(session, leased, job, running, from_version)
        self._routes.publish()

    def _record(
        self, session: Session, leased: LeasedWork, job: _Job, running: RunningEndpoint, from_version: int | None
    ) -> None:
        now = self._clock.now()
        spec = running.spec
        deployment = session.get_one(DeploymentRow, (leased.workspace_id, leased.subject.partition("/")[0]))
        model = session.get_one(RegisteredModelRow, (leased.workspace_id, deployment.model_id))
        facts: dict[str, JsonValue] = {
            "model": model.name,
            "environment": deployment.environment,
            "region": spec.region,
            "from_version": from_version,
            "to_version": job.version,
            "bundle": spec.bundle_digest,
            "revision": job.revision,
        }
        audit.record_at(
            session,
            system_caller(leased.workspace_id, "worker"),
            now,
            action="deployment.run",
            subject=job.deployment,
            residency=leased.residency,
            facts=facts,
        )
        bundle = session.scalars(
            select(BundleRow).where(
                BundleRow.workspace_id == leased.workspace_id, BundleRow.digest == spec.bundle_digest
            )
        ).first()
        size = 0 if bundle is None or bundle.size_bytes is None else bundle.size_bytes
        # The bundle comes from the region's own replica; bringing that there is in the ledger as its replication.
        cost = ledger.transfer_cost(self._catalog, source_region=spec.region, region=spec.region, size_bytes=size)
        labels = to_labels(model)
        ledger.record(
            session,
            workspace_id=leased.workspace_id,
            residency=leased.residency,
            cause=f"deploy/{leased.subject}/{spec.bundle_digest}/{job.revision}",
            kind="deploy",
            subject=job.deployment,
            source_region=spec.region,
            region=spec.region,
            planned_bytes=size,
            moved_bytes=size,
            planned=cost,
            actual=cost,
            labels={"owner": labels.owner, "team": labels.team, "cost_centre": labels.cost_centre},
            now=now,
        )

    def _stop(self, leased: LeasedWork, job: _Job) -> None:
        # Traffic leaves first: a region that is STOPPING is in no table.
        self._routes.publish()
        self._target.stop(leased.workspace_id, job.deployment, leased.region)
        with self._database.write() as session:
            row = _region_row(session, leased)
            if row is not None and row.state == STOPPING:
                session.delete(row)
                audit.record_at(
                    session,
                    system_caller(leased.workspace_id, "worker"),
                    self._clock.now(),
                    action="deployment.stop",
                    subject=job.deployment,
                    residency=leased.residency,
                    facts={"region": leased.region, "version": row.version, "bundle": row.bundle_digest},
                )
            elif row is not None:
                # Wanted again meanwhile: what the row remembers does not run any more.
                row.url = row.bundle_digest = row.version = row.process_id = None
                row.state = WAITING
            work.finish(session, leased)


def _job(session: Session, leased: LeasedWork) -> _Job | None:
    row = _region_row(session, leased)
    deployment = session.get(DeploymentRow, (leased.workspace_id, leased.subject.partition("/")[0]))
    if row is None or deployment is None:
        return None
    spec = None
    if row.state != STOPPING:
        if row.wanted_digest is None:
            return None
        spec = EndpointSpec(
            workspace_id=row.workspace_id,
            deployment=deployment.name,
            region=RegionId(row.region),
            residency=deployment.residency,
            bundle_digest=Digest(row.wanted_digest),
            online_store=row.wanted_store,
        )
    return _Job(spec=spec, deployment=deployment.name, version=row.wanted_version, revision=row.wanted_revision)


def _region_row(session: Session, leased: LeasedWork) -> DeploymentRegionRow | None:
    deployment_id, _, region = leased.subject.partition("/")
    return session.get(DeploymentRegionRow, (leased.workspace_id, deployment_id, region))


def _subject(each: DeploymentRegionRow) -> str:
    return f"{each.deployment_id}/{each.region}"


def _require(session: Session, row: DeploymentRow, each: DeploymentRegionRow, now: datetime) -> None:
    work.require_work(
        session,
        workspace_id=row.workspace_id,
        residency=row.residency,
        kind=DEPLOY,
        subject=_subject(each),
        region=each.region,
        priority=work.URGENT,
        now=now,
    )
