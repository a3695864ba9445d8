"""The handler of `deploy`: makes one region of a deployment run what its row wants, or stops it there."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog, Residency, check
from fairlead.core.db import Database
from fairlead.core.errors import EndpointUnavailable, FairleadError, JsonValue, Unavailable
from fairlead.core.ids import RegionId
from fairlead.core.ports import Clock
from fairlead.registry import audit, ledger, work
from fairlead.registry.identity import system_caller
from fairlead.registry.models import to_labels
from fairlead.registry.tables import RegisteredModelRow
from fairlead.registry.work import LeasedWork
from fairlead.serving import revisions
from fairlead.serving.desired import FAILED, RUNNING, STOPPING, WAITING
from fairlead.serving.rollout import OpenTarget
from fairlead.serving.route_book import RouteBook
from fairlead.serving.tables import BundleRow, DeploymentRegionRow, DeploymentRow
from fairlead.serving.targets import LOCAL, EndpointKey, EndpointSpec, NoLongerWanted, RunningEndpoint, StillStarting
from fairlead.serving.workload import Workload

LOOK_AGAIN = timedelta(seconds=1)
"""When to come back to what is still starting; others have their turn meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is to be done in one region: run `spec` on `target`, or nothing (None) and end what runs on `targets`.

    `leaves_first`: it moves on before it has ended where it was before; a row remembers one such place.
    """

    spec: EndpointSpec | None
    key: EndpointKey
    target: str
    targets: tuple[str, ...]
    leaves_first: bool
    version: int | None
    revision: int


class Deployer:
    """The handler of `deploy`."""

    def __init__(
        self, database: Database, clock: Clock, *, catalog: Catalog, open_target: OpenTarget, routes: RouteBook
    ) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._open_target = open_target
        self._routes = routes

    def __call__(self, leased: LeasedWork) -> None:
        """Make one region run what it should, or stop it; what it should do is looked up again while it starts."""
        with self._database.read() as session:
            job = _job(session, leased)
        try:
            if job is not None and job.spec is None:
                self._stop(leased, job)
                return
            with contextlib.suppress(NoLongerWanted):
                if job is not None and job.spec is not None:
                    self._run(leased, job, job.spec)
        except StillStarting:
            reason = Unavailable("It is getting ready.", hint="Wait.")
            work.postpone(self._database, leased, self._clock.now() + LOOK_AGAIN, reason)
            return
        with self._database.write() as session:
            work.finish(session, leased)

    def _run(self, leased: LeasedWork, job: _Job, spec: EndpointSpec) -> None:
        def is_wanted() -> bool:
            with self._database.read() as session:
                now = _job(session, leased)
            if now is None or now.spec is None or now.target != job.target:
                return False
            return _answer_alike(now.spec, spec)

        try:
            # Asked again where it counts: nothing runs outside its class, whatever a row says.
            check(Residency(spec.residency), spec.region)
            target = self._open_target(leased.workspace_id, job.target)
            if job.leaves_first:
                self._leave(leased, job)
            target.ensure(spec, lambda running: self._switch(leased, job, running), is_wanted)
            self._leave(leased, job)
        except FairleadError as error:
            with contextlib.suppress(FairleadError), self._database.write() as session:
                self._note_failure(session, leased, error)
            raise

    def _note_failure(self, session: Session, leased: LeasedWork, error: FairleadError) -> None:
        row = _region_row(session, leased, lock=True)
        work.check_lease(session, leased)
        if row is None:
            return
        row.error_code, row.error_detail = error.code, str(error)[-4000:]
        if row.state == STOPPING:
            return
        row.state, row.updated_at = FAILED, self._clock.now()
        deployment = session.get_one(DeploymentRow, (row.workspace_id, row.deployment_id))
        revision = revisions.active_revision(session, deployment)
        if revision is None or not isinstance(error, EndpointUnavailable):
            # That a target or a replica cannot be reached says nothing of the revision.
            return
        for step in revisions.steps_of(session, revision):
            if step.region == row.region and step.action in revisions.IN_REGION:
                step.attempts += 1
                step.detail = str(error)[-2000:]

    def _switch(self, leased: LeasedWork, job: _Job, running: RunningEndpoint) -> None:
        """Record the endpoint that is healthy now, and turn traffic to it."""
        now = self._clock.now()
        with self._database.write() as session:
            row = _region_row(session, leased, lock=True)
            work.check_lease(session, leased)
            if row is None:
                return
            before = (row.url, row.bundle_digest)
            from_version = row.version
            if row.state != STOPPING:
                row.state = RUNNING
            if row.running_target is not None and row.running_target != job.target:
                row.leaving_target = row.running_target
            row.version, row.bundle_digest = job.version, running.spec.bundle_digest
            row.online_store, row.running_target = running.spec.online_store, job.target
            row.workload = running.spec.workload.to_json()
            row.url, row.process_id, row.identity = running.url, running.process_id, running.identity
            row.former_url, row.former_identity = running.former_url, running.former_identity
            row.health, row.unready_since, row.differences, row.updated_at = "up", None, None, now
            row.error_code = row.error_detail = None
            if before != (running.url, running.spec.bundle_digest):
                self._record(session, leased, job, running, from_version)
        self._routes.publish()

    def _leave(self, leased: LeasedWork, job: _Job) -> None:
        """End what still runs on the target that the region has left."""
        with self._database.read() as session:
            row = _region_row(session, leased)
            left = None if row is None else row.leaving_target
        if left is None:
            return
        self._open_target(leased.workspace_id, left).stop(job.key)
        with self._database.write() as session:
            row = _region_row(session, leased, lock=True)
            work.check_lease(session, leased)
            if row is not None and row.leaving_target == left:
                row.leaving_target, row.updated_at = None, self._clock.now()

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
            "target": job.target,
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
            subject=job.key.deployment,
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
            subject=job.key.deployment,
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
        try:
            for target in job.targets:
                self._open_target(leased.workspace_id, target).stop(job.key)
        except FairleadError as error:
            with contextlib.suppress(FairleadError), self._database.write() as session:
                self._note_failure(session, leased, error)
            raise
        with self._database.write() as session:
            row = _region_row(session, leased, lock=True)
            if row is not None and row.state == STOPPING:
                session.delete(row)
                audit.record_at(
                    session,
                    system_caller(leased.workspace_id, "worker"),
                    self._clock.now(),
                    action="deployment.stop",
                    subject=job.key.deployment,
                    residency=leased.residency,
                    facts={"region": leased.region, "version": row.version, "bundle": row.bundle_digest},
                )
            elif row is not None:
                # Wanted again meanwhile: what the row remembers does not run any more.
                row.url = row.bundle_digest = row.version = row.process_id = row.former_url = row.identity = None
                row.workload = row.running_target = row.leaving_target = row.health = None
                row.state, row.error_code, row.error_detail = WAITING, None, None
            work.finish(session, leased)


def _answer_alike(one: EndpointSpec, other: EndpointSpec) -> bool:
    """Whether the same processes serve for both; their shares of the traffic may differ."""
    formers = (one.former, other.former)
    if not one.answers_like(other) or (formers[0] is None) != (formers[1] is None):
        return False
    return formers[0] is None or formers[1] is None or formers[0].answers_like(formers[1])


def _job(session: Session, leased: LeasedWork) -> _Job | None:
    row = _region_row(session, leased)
    deployment = session.get(DeploymentRow, (leased.workspace_id, leased.subject.partition("/")[0]))
    if row is None or deployment is None:
        return None
    spec = None
    if row.state != STOPPING:
        if row.wanted_workload is None:
            return None
        workload = Workload.from_json(row.wanted_workload)
        spec = EndpointSpec(workspace_id=row.workspace_id, workload=workload, note=_note(session, deployment))
    known = (row.running_target or LOCAL, row.leaving_target)
    return _Job(
        spec=spec,
        key=EndpointKey(row.workspace_id, deployment.name, RegionId(row.region)),
        target=row.target,
        # A first start that was cut short has left its traces where it was meant to run.
        targets=tuple(dict.fromkeys(each for each in (row.target, *known) if each is not None)),
        leaves_first=row.leaving_target not in {None, row.target} and row.running_target != row.target,
        version=row.wanted_version,
        revision=row.wanted_revision,
    )


def _note(session: Session, deployment: DeploymentRow) -> str:
    """Who wanted what a deployment should be now, and why."""
    revision = revisions.active_revision(session, deployment)
    if revision is None:
        return ""
    said = {"apply": "applied", "follow": "followed its environment", "rollback": "rolled back"}
    cause = said.get(revision.cause, revision.cause)
    return f"Revision {revision.number} of the deployment: {cause} by {revision.created_by}."


def _region_row(session: Session, leased: LeasedWork, *, lock: bool = False) -> DeploymentRegionRow | None:
    """The region's row; with `lock`, before the lock of the work, as the deriver takes them."""
    deployment_id, _, region = leased.subject.partition("/")
    return session.get(DeploymentRegionRow, (leased.workspace_id, deployment_id, region), with_for_update=lock)
