"""Carries one deployment's newest revision forward, a step at a time, from what its rows say.

Nothing here waits or asks anybody: a pass looks at what is so, writes down what should be so next, and leaves the rest
to the passes that follow. So it goes on where it was after any crash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.orm import Session

from fairlead.core.ids import Digest
from fairlead.registry.models import to_labels
from fairlead.registry.tables import ModelVersionRow, RegisteredModelRow
from fairlead.serving import revisions
from fairlead.serving.deployment_spec import DeploymentSpec, RegionSpec, Subject, workload_of
from fairlead.serving.desired import RUNNING, STOPPING, regions_of, route_name
from fairlead.serving.measurements import Counts, Measurements, total
from fairlead.serving.recipe import bento_of
from fairlead.serving.revisions import DONE, FINISH, IN_REGION, PENDING, SHIFT, SKIPPED, STOP
from fairlead.serving.strategy import Strategy
from fairlead.serving.tables import DeploymentRegionRow, DeploymentRow
from fairlead.serving.tables_targets import DeploymentRevisionRow, DeploymentStepRow
from fairlead.serving.workload import Workload

MAX_ATTEMPTS = 3
"""How often an endpoint may fail to get ready before its revision is given up."""

StoreOf = Callable[[str], str | None]
"""Where a region's features are read, if the model reads any."""

ImageOf = Callable[[Session, str, str, RegionSpec], str | None]
"""The image of a bundle for a region, by digest, if there is one: (session, workspace_id, bundle_digest, region)."""


def no_image(_session: Session, _workspace_id: str, _digest: str, _region: RegionSpec) -> str | None:
    """For targets that run a bundle's own files."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One pass over a deployment whose revision is ROLLING or LIVE.

    `here` are the regions that hold a VERIFIED replica of its bundle; elsewhere nothing changes. `is_right` says
    whether a region runs what its row wants. `measured` is what the gateway has counted, None where it cannot be asked.
    """

    session: Session
    row: DeploymentRow
    revision: DeploymentRevisionRow
    here: frozenset[str]
    store_of: StoreOf
    image_of: ImageOf
    is_right: Callable[[DeploymentRegionRow], bool]
    measured: Measurements | None
    now: datetime

    def advance(self) -> None:
        """Move the revision on as far as it goes now, and say of every region what it should run."""
        spec = DeploymentSpec.from_json(self.revision.document)
        is_live = self.revision.state == revisions.LIVE
        steps: Sequence[DeploymentStepRow] = () if is_live else revisions.steps_of(self.session, self.revision)
        for _ in range(len(steps) + 1):
            self._want(spec, steps)
            if self._failure(spec, steps) or not any(self._move(spec, step, steps) for step in steps):
                break
        if self.revision.state == revisions.ROLLING and all(step.state in {DONE, SKIPPED} for step in steps):
            revisions.finish(self.session, self.row, self.revision, self.now)

    def _want(self, spec: DeploymentSpec, steps: Sequence[DeploymentStepRow]) -> None:
        """Write down what each region should run, as far as the steps have come."""
        shifts = [step for step in steps if step.action == SHIFT]
        is_done = not shifts or any(step.action == FINISH and step.state != PENDING for step in steps)
        percent = max((step.traffic_percent or 0 for step in shifts if step.state != PENDING), default=0)
        former = None if is_done else revisions.live_revision(self.session, self.row)
        subject = self._subject(spec)
        rows = {each.region: each for each in regions_of(self.session, self.row)}
        waiting = set[str | None]() if is_done else {step.region for step in steps if step.action == revisions.START}
        for each in spec.regions:
            row = rows.get(each.region)
            if row is None or row.state == STOPPING or each.region in waiting or each.region not in self.here:
                continue
            beside = None if former is None else self._former(former, row)
            wanted = self._workload(subject, each, traffic_percent=100 if beside is None else percent, former=beside)
            if row.wanted_workload != (said := wanted.to_json()):
                row.wanted_workload = said
            row.wanted_version, row.wanted_digest = self.revision.version, self.revision.bundle_digest
            row.wanted_revision = self.revision.pointer_revision

    def _move(self, spec: DeploymentSpec, step: DeploymentStepRow, steps: Sequence[DeploymentStepRow]) -> bool:
        """Do what a step needs next; whether another look at what follows is worth it."""
        if step.state in {DONE, SKIPPED, revisions.FAILED}:
            return False
        before = [each for each in steps if each.number < step.number]
        is_barred = any(each.state not in {DONE, SKIPPED} for each in before)
        # Regions that follow one another without a shift between are independent.
        if is_barred and (step.action not in IN_REGION or any(each.action not in IN_REGION for each in before)):
            return False
        was = step.state
        if step.state == PENDING:
            step.state = "RUNNING"
            if step.action != SHIFT:
                step.started_at = self.now
            if step.action in {SHIFT, FINISH}:
                return True
        if self._is_done(spec, step):
            step.state, step.finished_at = DONE, self.now
        return step.state != was and step.state == DONE

    def _is_done(self, spec: DeploymentSpec, step: DeploymentStepRow) -> bool:
        rows = {each.region: each for each in regions_of(self.session, self.row)}
        if step.action in IN_REGION:
            row = rows.get(step.region or "")
            # A region that is on its way out by itself is waited for no longer.
            return row is None or row.state == STOPPING or (self._has_wish(row) and self.is_right(row))
        if step.action == STOP:
            row = rows.get(step.region or "")
            if row is not None and row.state != STOPPING:
                row.state, row.updated_at = STOPPING, self.now
            return row is None
        concerned = [row for row in rows.values() if row.state != STOPPING and self._has_wish(row)]
        if not all(self.is_right(row) for row in concerned):
            return False
        return step.action == FINISH or self._is_watched(spec, step)

    def _has_wish(self, row: DeploymentRegionRow) -> bool:
        return row.wanted_digest == self.revision.bundle_digest

    def _is_watched(self, spec: DeploymentSpec, step: DeploymentStepRow) -> bool:
        """Whether a share of traffic has been in force for as long as it is to be."""
        if step.started_at is None:
            step.started_at = self.now
        if self.measured is not None and "before" not in (step.measured or {}):
            step.measured = {"before": self._counts().to_json()}
        strategy = spec.strategy
        assert strategy is not None  # noqa: S101  (a revision without one has no such step)
        seen = self._seen(step)
        step.measured = {**(step.measured or {}), "seen": seen.to_json()}
        step.detail = _sentence(seen)
        return (self.now - step.started_at).total_seconds() >= strategy.pause_seconds

    def _failure(self, spec: DeploymentSpec, steps: Sequence[DeploymentStepRow]) -> bool:
        """Give the revision up if it must be; whether it was."""
        for step in steps:
            if step.action in IN_REGION and step.attempts >= MAX_ATTEMPTS and step.state != SKIPPED:
                return self._give_up(step, f"It did not get ready in {step.region}. {step.detail or ''}".strip())
            if step.action == SHIFT and step.state == "RUNNING" and step.started_at is not None:
                reason = None if spec.strategy is None else violation(spec.strategy, self._seen(step))
                if reason is not None:
                    return self._give_up(step, f"At {step.traffic_percent} % of the requests {reason}")
        return False

    def _give_up(self, step: DeploymentStepRow, why: str) -> bool:
        if revisions.fail(self.session, self.row, self.revision, why[-4000:], self.now) is None:
            return False
        step.state = revisions.FAILED
        for row in regions_of(self.session, self.row):
            if row.state == revisions.FAILED:
                row.state, row.error_code, row.error_detail = RUNNING, None, None
        return True

    def _counts(self) -> Counts:
        name, digest = route_name(self.row), self.revision.bundle_digest
        found = self.measured or {}
        return total(counts for (where, _, what), counts in found.items() if (where, what) == (name, digest))

    def _seen(self, step: DeploymentStepRow) -> Counts:
        if self.measured is None:
            kept = (step.measured or {}).get("seen")
            return Counts() if kept is None else Counts.from_json(kept)
        before = (step.measured or {}).get("before")
        return Counts() if before is None else self._counts().since(Counts.from_json(before))

    def _subject(self, spec: DeploymentSpec) -> Subject:
        model = self.session.get_one(RegisteredModelRow, (self.row.workspace_id, self.row.model_id))
        labels = to_labels(model)
        said = {"owner": labels.owner, "team": labels.team, "cost_centre": labels.cost_centre}
        return Subject(
            workspace=self.row.workspace_id,
            deployment=self.row.name,
            model=model.name,
            residency=self.row.residency,
            labels=said,
            environment=spec.environment,
            bento=self._bento(model),
            version=self.revision.version or 0,
            bundle_digest=Digest(self.revision.bundle_digest or ""),
        )

    def _bento(self, model: RegisteredModelRow) -> str | None:
        version = self.session.get(ModelVersionRow, (model.workspace_id, model.id, self.revision.version or 0))
        if version is None or version.artifact_digest is None:
            return None
        return bento_of(f"{model.name}/{version.version}", version.artifact_digest)

    def _workload(
        self, subject: Subject, spec: RegionSpec, *, traffic_percent: int, former: Workload | None
    ) -> Workload:
        image = self.image_of(self.session, self.row.workspace_id, subject.bundle_digest, spec)
        return workload_of(
            subject,
            spec,
            online_store=self.store_of(spec.region),
            image=image,
            traffic_percent=traffic_percent,
            former=former,
        )

    def _former(self, live: DeploymentRevisionRow, row: DeploymentRegionRow) -> Workload | None:
        """What goes on beside the new one in a region; None where the old one is no other, or does not run there."""
        if live.bundle_digest in {None, self.revision.bundle_digest} or row.workload is None:
            return None
        if (row.running_target or row.target) != row.target:
            return None
        runs = Workload.from_json(row.workload)
        for each in (runs, runs.former):
            if each is not None and each.bundle_digest == live.bundle_digest:
                return _alone(each)
        return None


def violation(strategy: Strategy, seen: Counts) -> str | None:
    """Which limit of a strategy is broken, as the end of a sentence; None: none, or too little was seen to say."""
    if seen.requests < strategy.min_requests:
        return None
    if strategy.max_error_rate is not None and seen.error_rate > strategy.max_error_rate:
        return (
            f"{seen.errors} of {seen.requests} failed: {seen.error_rate:.2%}, where at most "
            f"{strategy.max_error_rate:.2%} may."
        )
    p95 = seen.p95_ms
    if strategy.max_p95_ms is not None and p95 is not None and p95 > strategy.max_p95_ms:
        return f"the 95th percentile took {p95:g} ms, where it may take {strategy.max_p95_ms:g} ms."
    return None


def _sentence(seen: Counts) -> str:
    p95 = seen.p95_ms
    timing = "" if p95 is None else f", p95 {p95:g} ms"
    return f"{seen.requests} requests, {seen.errors} failed{timing}"


def _alone(workload: Workload) -> Workload:
    return replace(workload, traffic_percent=100, former=None)
