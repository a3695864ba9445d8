"""A deployment as it is shown: its regions, its revisions with their steps, and what it would be wise to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.catalog.residency import parse_residency, permits
from fairlead.core.ids import RegionId
from fairlead.registry.locations import traffic_locations
from fairlead.registry.tables import RegisteredModelRow
from fairlead.serving import revisions
from fairlead.serving.desired import RUNNING, STOPPING, desired_of, regions_of, route_name
from fairlead.serving.measurements import Counts
from fairlead.serving.tables import DeploymentRegionRow, DeploymentRow, PlacementRow
from fairlead.serving.tables_targets import DeploymentRevisionRow, DeploymentStepRow
from fairlead.serving.targets import LOCAL, DeployTarget, EndpointSpec
from fairlead.serving.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionStatus:
    """One region of a deployment.

    `health` is what was last seen: `up`, `unready` (it lives and does not answer), `down`, or `unknown` where its
    target cannot be asked. `traffic_percent` is its newest revision's share of the region's requests.
    """

    region: str
    target: str
    state: str
    health: str
    version: int | None
    bundle_digest: str | None
    traffic_percent: int
    former_version: int | None
    replicas: int | None
    endpoint_url: str | None
    process_id: int | None
    usd_per_hour: str | None
    carbon_g_per_hour: str | None
    shares: Mapping[str, float] | None
    differences: tuple[str, ...]
    error_code: str | None
    error_detail: str | None
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStatus:
    """One step of a revision; `requests`, `error_rate` and `p95_ms` are what the gateway saw in it, if it was asked."""

    number: int
    action: str
    region: str | None
    traffic_percent: int | None
    state: str
    attempts: int
    detail: str | None
    requests: int | None
    error_rate: float | None
    p95_ms: float | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One state that a deployment was to have. `why` is the reason given for it, or for giving it up."""

    number: int
    cause: str
    state: str
    environment: str | None
    version: int | None
    bundle_digest: str | None
    regions: tuple[str, ...]
    strategy: Mapping[str, Any] | None
    why: str | None
    created_by: str
    created_at: datetime
    finished_at: datetime | None
    steps: tuple[StepStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment and its regions, in the order in which requests try them.

    `desired_version` and `bundle_digest` are what every region is on its way to, `revision` the newest state asked
    for, and `live_revision` the last one that was reached everywhere. `failure` says why the newest one was given up.
    `advice` names what has changed around it, each with the command to type; `endpoint` is the one address.
    """

    name: str
    model: str
    environment: str | None
    state: str
    residency: str
    desired_version: int | None
    bundle_digest: str | None
    placement_id: str | None
    revision: int
    revision_state: str | None
    live_revision: int | None
    failure: str | None
    regions: tuple[RegionStatus, ...]
    steps: tuple[StepStatus, ...]
    advice: tuple[str, ...]
    endpoint: str | None
    created_by: str
    created_at: datetime


def show_deployment(session: Session, catalog: Catalog, row: DeploymentRow, address: str | None) -> Deployment:
    """One deployment as its rows say; nothing is asked of any target."""
    model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
    desired = desired_of(session, model, row.environment, row.version)
    newest = revisions.find_revision(session, row, row.revision)
    live = revisions.live_revision(session, row)
    has_failed = newest is not None and newest.state == revisions.FAILED
    held = live if has_failed else None
    regions = regions_of(session, row)
    return Deployment(
        name=row.name,
        model=model.name,
        environment=row.environment,
        state=row.state,
        residency=row.residency,
        desired_version=held.version if held else None if desired.version is None else desired.version.version,
        bundle_digest=held.bundle_digest if held else None if desired.bundle is None else desired.bundle.digest,
        placement_id=row.placement_id,
        revision=row.revision,
        revision_state=None if newest is None else newest.state,
        live_revision=None if live is None else live.number,
        failure=newest.why if newest is not None and has_failed else None,
        regions=tuple(_region(each) for each in regions),
        steps=() if newest is None else tuple(map(_step, revisions.steps_of(session, newest))),
        advice=tuple(_advice(session, catalog, model, row)),
        endpoint=None if address is None else f"{address}/{quote(route_name(row))}",
        created_by=row.created_by,
        created_at=row.created_at,
    )


def local_specs(session: Session, row: DeploymentRow) -> dict[str, EndpointSpec]:
    """What runs of a deployment on this machine, by region."""
    return {
        each.region: EndpointSpec(workspace_id=each.workspace_id, workload=Workload.from_json(each.workload))
        for each in regions_of(session, row)
        if each.workload is not None and each.running_target == LOCAL
    }


def seen_now(deployment: Deployment, here: Mapping[str, EndpointSpec], local: DeployTarget) -> Deployment:
    """The deployment with the health of what runs on this machine, which is asked."""

    def look(each: RegionStatus) -> RegionStatus:
        if each.region not in here:
            return each
        running = local.observe(here[each.region])
        if running is None or running.url != each.endpoint_url:
            return replace(each, health="down")
        return replace(each, health="up" if running.is_ready else "unready")

    return replace(deployment, regions=tuple(map(look, deployment.regions)))


def show_revision(session: Session, row: DeploymentRevisionRow) -> Revision:
    """One revision with its steps."""
    document = row.document
    return Revision(
        number=row.number,
        cause=row.cause,
        state=row.state,
        environment=document["environment"],
        version=row.version,
        bundle_digest=row.bundle_digest,
        regions=tuple(each["region"] for each in document["regions"]),
        strategy=document["strategy"],
        why=row.why,
        created_by=row.created_by,
        created_at=row.created_at,
        finished_at=row.finished_at,
        steps=tuple(map(_step, revisions.steps_of(session, row))),
    )


def _region(row: DeploymentRegionRow) -> RegionStatus:
    workload = row.workload or {}
    former = workload.get("former")
    scaling = workload.get("scaling")
    seen = row.health or ("up" if row.state == RUNNING else "down")
    return RegionStatus(
        region=row.region,
        target=row.target,
        state=row.state,
        health=seen if row.url is not None or row.state == RUNNING else "down",
        version=row.version,
        bundle_digest=row.bundle_digest,
        traffic_percent=int(workload.get("traffic_percent", 100)),
        former_version=None if former is None else former["version"],
        replicas=None if scaling is None else scaling["min_replicas"],
        endpoint_url=row.url,
        process_id=row.process_id,
        usd_per_hour=row.usd_per_hour,
        carbon_g_per_hour=row.carbon_g_per_hour,
        shares=row.shares,
        differences=tuple(row.differences or ()),
        error_code=row.error_code,
        error_detail=row.error_detail,
        updated_at=row.updated_at,
    )


def _step(row: DeploymentStepRow) -> StepStatus:
    seen = (row.measured or {}).get("seen")
    counts = None if seen is None else Counts.from_json(seen)
    p95 = None if counts is None else counts.p95_ms
    return StepStatus(
        number=row.number,
        action=row.action,
        region=row.region,
        traffic_percent=row.traffic_percent,
        state=row.state,
        attempts=row.attempts,
        detail=row.detail,
        requests=None if counts is None else counts.requests,
        error_rate=None if counts is None else round(counts.error_rate, 6),
        # The last class has no upper bound.
        p95_ms=None if p95 is None or p95 == float("inf") else p95,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _advice(session: Session, catalog: Catalog, model: RegisteredModelRow, row: DeploymentRow) -> list[str]:
    """What a deployment rests on that is so no more."""
    found: list[str] = []
    residency = parse_residency(model.residency)
    here = {location.region for location in traffic_locations(session, row.workspace_id)}
    solve = f"To place it anew: fairlead deploy replan {row.name}"
    for each in regions_of(session, row):
        if each.state == STOPPING:
            continue
        region = catalog.tables.regions_by_id.get(RegionId(each.region))
        if region is None:
            found.append(f"{each.region} is in the catalog no more. {solve}")
        elif not permits(residency, region.jurisdiction) or (model.regions and each.region not in model.regions):
            found.append(f"{each.region} is where {model.name} may be no longer. {solve}")
        elif each.region not in here:
            found.append(f"{each.region} has no location any more, or one that is being given up. {solve}")
    placement = row.placement_id
    if placement is not None and session.get(PlacementRow, (row.workspace_id, placement)) is None:
        found.append(f"Its placement {placement} is gone. {solve}")
    return found
