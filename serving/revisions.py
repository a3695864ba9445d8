"""The revisions of a deployment: each state that it was to have, and the steps that make it so.

A revision is made by whoever applies or rolls back, and by a pointer that moves. The newest is rolled out; it is LIVE
once all of its steps are done. One that fails gives way to the LIVE one before it, which goes on as if nothing had been
asked for, until something newer is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from fairlead.core.errors import JsonValue, NotFound
from fairlead.core.ids import RegionId
from fairlead.registry import audit
from fairlead.registry.identity import system_caller
from fairlead.serving.deployment_spec import DeploymentSpec, RegionSpec
from fairlead.serving.desired import RUNNING, STOPPING, WAITING, regions_of
from fairlead.serving.tables import DeploymentRegionRow, DeploymentRow
from fairlead.serving.tables_targets import DeploymentRevisionRow, DeploymentStepRow

PENDING, ROLLING, LIVE, FAILED, SUPERSEDED = "PENDING", "ROLLING", "LIVE", "FAILED", "SUPERSEDED"
DONE, SKIPPED = "DONE", "SKIPPED"
START, REPLACE, SCALE, KEEP, SHIFT, FINISH, STOP = "start", "replace", "scale", "keep", "shift", "finish", "stop"
IN_REGION = frozenset({START, REPLACE, SCALE, KEEP})
"""The steps that are done once a region runs what it should."""


def spec_of(row: DeploymentRow, regions: Sequence[DeploymentRegionRow]) -> DeploymentSpec:
    """What was asked for last; for a row that is older than specifications, what its regions say."""
    if row.spec:
        return DeploymentSpec.from_json(row.spec)
    return DeploymentSpec(
        environment=row.environment,
        version=row.version,
        placement_id=row.placement_id,
        regions=tuple(
            RegionSpec(region=RegionId(each.region), usd_per_hour=each.usd_per_hour)
            for each in regions
            if each.state != STOPPING
        ),
    )


def add_revision(
    session: Session,
    row: DeploymentRow,
    spec: DeploymentSpec,
    *,
    cause: str,
    by: str,
    now: datetime,
    why: str | None = None,
) -> DeploymentRevisionRow:
    """Make a revision, which takes the place of what is being rolled out."""
    for other in _in_states(session, row, PENDING, ROLLING):
        other.state, other.finished_at = SUPERSEDED, now
        other.why = other.why or f"Revision {row.revision + 1} came before it was done."
        _end_steps(session, other, SKIPPED, now)
    row.revision += 1
    revision = DeploymentRevisionRow(
        workspace_id=row.workspace_id,
        deployment_id=row.id,
        number=row.revision,
        cause=cause,
        document=spec.to_json(),
        pointer_revision=0,
        state=PENDING,
        why=why,
        created_by=by,
        created_at=now,
    )
    session.add(revision)
    session.flush()
    return revision


def find_revision(session: Session, row: DeploymentRow, number: int) -> DeploymentRevisionRow | None:
    """One revision by its number."""
    return session.get(DeploymentRevisionRow, (row.workspace_id, row.id, number))


def live_revision(session: Session, row: DeploymentRow) -> DeploymentRevisionRow | None:
    """The revision that is in force while a newer one is rolled out, or once it is done."""
    found = _in_states(session, row, LIVE)
    return found[-1] if found else None


def active_revision(session: Session, row: DeploymentRow) -> DeploymentRevisionRow | None:
    """The revision that the regions are on their way to: the newest, unless it failed."""
    newest = find_revision(session, row, row.revision)
    return newest if newest is None or newest.state in {PENDING, ROLLING, LIVE} else live_revision(session, row)


def steps_of(session: Session, revision: DeploymentRevisionRow) -> Sequence[DeploymentStepRow]:
    """The steps of a revision, in order; none before it is rolled out."""
    query = (
        select(DeploymentStepRow)
        .where(
            DeploymentStepRow.workspace_id == revision.workspace_id,
            DeploymentStepRow.deployment_id == revision.deployment_id,
            DeploymentStepRow.revision == revision.number,
        )
        .order_by(DeploymentStepRow.number)
    )
    return session.scalars(query).all()


def lay_out(session: Session, row: DeploymentRow, spec: DeploymentSpec, now: datetime) -> None:
    """Give every region of a specification its row; those of regions that it leaves out are left alone."""
    # One that is just being stopped must not go away after it was given back.
    present = {each.region: each for each in regions_of(session, row, lock=True)}
    for position, each in enumerate(spec.regions):
        region = present.get(each.region)
        if region is None:
            region = DeploymentRegionRow(
                workspace_id=row.workspace_id, deployment_id=row.id, region=each.region, state=WAITING, updated_at=now
            )
            session.add(region)
        elif region.state == STOPPING:
            region.state, region.updated_at = WAITING, now
        region.position, region.target = position, each.target
        region.usd_per_hour, region.carbon_g_per_hour = each.usd_per_hour, each.carbon_g_per_hour
        region.shares = None if each.shares is None else dict(each.shares)
        region.instances = None if each.instances is None else [dict(one) for one in each.instances]
    session.flush()


def change_of(now: DeploymentRegionRow | None, spec: RegionSpec, digest: str | None) -> str:
    """What a revision does in a region, seeing what runs there: start, replace, scale or keep."""
    if now is None or now.bundle_digest is None or now.state == STOPPING:
        return START
    if now.bundle_digest != digest or spec.target != (now.running_target or now.target):
        return REPLACE
    runs = now.workload or {}
    wanted: dict[str, Any] = spec_size(spec)
    has_changed = any(runs.get(name, value) != value for name, value in wanted.items())
    return SCALE if has_changed else KEEP


def spec_size(spec: RegionSpec) -> dict[str, Any]:
    """The part of a workload that says how much of it runs, as JSON."""
    return {"scaling": asdict(spec.scaling), "resources": asdict(spec.resources)}


def begin(session: Session, row: DeploymentRow, revision: DeploymentRevisionRow, now: datetime) -> None:
    """Write down the steps of a revision whose version and bundle are known, and start with them."""
    spec = DeploymentSpec.from_json(revision.document)
    live = live_revision(session, row)
    present = {each.region: each for each in regions_of(session, row)}
    changes = {each.region: change_of(present.get(each.region), each, revision.bundle_digest) for each in spec.regions}
    lay_out(session, row, spec, now)
    wanted = {each.region for each in spec.regions}
    gone = [each for each in present if each not in wanted]
    is_other = live is not None and live.bundle_digest != revision.bundle_digest
    # What an unfinished canary has begun to replace is kept, and gets no more requests than a new one would.
    is_gradual = spec.strategy is not None and is_other and any(change != START for change in changes.values())
    steps: list[dict[str, Any]] = []
    if is_gradual and spec.strategy is not None:
        # A region where nothing runs yet would turn all of its requests to the new revision, so it waits.
        steps += [{"region": each, "action": change} for each, change in changes.items() if change != START]
        steps += [{"action": SHIFT, "traffic_percent": percent} for percent in spec.strategy.steps]
        steps += [{"action": FINISH}]
        steps += [{"region": each, "action": change} for each, change in changes.items() if change == START]
    else:
        steps += [{"region": each, "action": change} for each, change in changes.items()]
    steps += [{"region": each, "action": STOP} for each in gone]
    for number, step in enumerate(steps, start=1):
        session.add(
            DeploymentStepRow(
                workspace_id=row.workspace_id,
                deployment_id=row.id,
                revision=revision.number,
                number=number,
                state=PENDING,
                attempts=0,
                **step,
            )
        )
    revision.state = ROLLING
    session.flush()


def finish(session: Session, row: DeploymentRow, revision: DeploymentRevisionRow, now: datetime) -> None:
    """A revision whose steps are all done is LIVE, and the one before it is history."""
    for other in _in_states(session, row, LIVE):
        other.state, other.finished_at = SUPERSEDED, now
    revision.state, revision.finished_at = LIVE, now
    _record(session, row, revision, "deployment.live", now)


def was_live(session: Session, revision: DeploymentRevisionRow) -> bool:
    """Whether a revision was reached everywhere: what came before it was done has steps that were skipped, or none."""
    steps = steps_of(session, revision)
    return all(step.state == DONE for step in steps) and revision.bundle_digest is not None


def reached_before(session: Session, row: DeploymentRow, number: int | None) -> DeploymentRevisionRow:
    """The revision to go back to: the one that is named, or the last that was LIVE before the newest.

    Raises:
        NotFound: if it does not exist or was never LIVE, or there is none.
    """
    query = select(DeploymentRevisionRow).where(
        DeploymentRevisionRow.workspace_id == row.workspace_id,
        DeploymentRevisionRow.deployment_id == row.id,
        DeploymentRevisionRow.number < row.revision,
        # What was superseded before it was reached never ran everywhere.
        DeploymentRevisionRow.state.in_([LIVE, SUPERSEDED]),
        DeploymentRevisionRow.bundle_digest.is_not(None),
    )
    if number is not None:
        query = query.where(DeploymentRevisionRow.number == number)
    found = session.scalars(query.order_by(DeploymentRevisionRow.number.desc())).all()
    reached = [each for each in found if each.state == LIVE or was_live(session, each)]
    if not reached:
        what = "no earlier revision that was live" if number is None else f"no revision {number} that was live"
        raise NotFound(
            f"The deployment {row.name!r} has {what}.",
            hint=f"See its revisions: fairlead deploy history {row.name}",
            deployment=row.name,
        )
    return reached[0]


def fail(
    session: Session, row: DeploymentRow, revision: DeploymentRevisionRow, why: str, now: datetime
) -> DeploymentRevisionRow | None:
    """Give a revision up, and go back to the LIVE one before it, which is answered; None: there is none."""
    live = live_revision(session, row)
    if live is None or live.number == revision.number:
        return None
    revision.state, revision.why, revision.finished_at = FAILED, why, now
    _end_steps(session, revision, SKIPPED, now)
    spec = DeploymentSpec.from_json(live.document)
    lay_out(session, row, spec, now)
    kept = {each.region for each in spec.regions}
    for each in regions_of(session, row):
        if each.region not in kept and each.state != STOPPING:
            each.state, each.updated_at = STOPPING, now
    _record(session, row, revision, "deployment.fail", now)
    return live


def forget(session: Session, row: DeploymentRow) -> None:
    """Remove a deployment's revisions and steps, with the deployment itself."""
    for table in (DeploymentStepRow, DeploymentRevisionRow):
        session.execute(
            delete(table).where(table.workspace_id == row.workspace_id, table.deployment_id == row.id),
            execution_options={"synchronize_session": "fetch"},
        )


def adopt(session: Session, row: DeploymentRow, now: datetime) -> None:
    """Give a deployment that is older than revisions its first one, which is what it runs."""
    regions = regions_of(session, row)
    spec = spec_of(row, regions)
    row.spec = spec.to_json()
    revision = add_revision(session, row, spec, cause="apply", by=row.created_by, now=now)
    runs = [each for each in regions if each.state == RUNNING]
    if runs and len({each.bundle_digest for each in runs}) == 1 and len(runs) == len(spec.regions):
        revision.version, revision.bundle_digest = runs[0].version, runs[0].bundle_digest
        revision.state, revision.finished_at = LIVE, now


def without_regions(session: Session, row: DeploymentRow, left: Sequence[str]) -> None:
    """Take regions that a deployment has left out of what it was asked for, and out of what it goes back to."""

    def narrowed(document: Mapping[str, Any]) -> dict[str, Any]:
        spec = DeploymentSpec.from_json(document)
        return replace(spec, regions=tuple(each for each in spec.regions if each.region not in left)).to_json()

    row.spec = narrowed(row.spec)
    for revision in _in_states(session, row, PENDING, ROLLING, LIVE):
        revision.document = narrowed(revision.document)
        for step in steps_of(session, revision):
            if step.region in left and step.state not in {DONE, SKIPPED}:
                step.state = SKIPPED


def _in_states(session: Session, row: DeploymentRow, *states: str) -> Sequence[DeploymentRevisionRow]:
    query = (
        select(DeploymentRevisionRow)
        .where(
            DeploymentRevisionRow.workspace_id == row.workspace_id,
            DeploymentRevisionRow.deployment_id == row.id,
            DeploymentRevisionRow.state.in_(states),
        )
        .order_by(DeploymentRevisionRow.number)
    )
    return session.scalars(query).all()


def _end_steps(session: Session, revision: DeploymentRevisionRow, pending: str, now: datetime) -> None:
    for step in steps_of(session, revision):
        if step.state not in {DONE, FAILED, SKIPPED}:
            step.state = pending if step.state == PENDING else FAILED if revision.state == FAILED else SKIPPED
            step.finished_at = now


def _record(session: Session, row: DeploymentRow, revision: DeploymentRevisionRow, action: str, now: datetime) -> None:
    facts: dict[str, JsonValue] = {
        "deployment": row.id,
        "revision": revision.number,
        "version": revision.version,
        "bundle": revision.bundle_digest,
        "why": revision.why,
    }
    audit.record_at(
        session,
        system_caller(row.workspace_id, "worker"),
        now,
        action=action,
        subject=row.name,
        residency=row.residency,
        facts=facts,
    )
