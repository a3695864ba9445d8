"""What applying a deployment would change: a comparison of what is asked for with what runs, priced.

A plan may be kept and applied later. Its `digest` names all that it rests on: what runs, what is asked for and which
version that is now; bytes on their way to a region and their price are no part of it, since copies go on by themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.canonical import canonical_json
from fairlead.core.errors import JsonValue
from fairlead.registry.ledger import Cost, decimal_text, transfer_cost
from fairlead.registry.tables import ArtifactRow, RegisteredModelRow
from fairlead.serving.artifacts import verified_replicas
from fairlead.serving.deployment_spec import DeploymentSpec, RegionSpec
from fairlead.serving.desired import STOPPING, Desired, regions_of
from fairlead.serving.revisions import KEEP, REPLACE, START, STOP, change_of
from fairlead.serving.tables import DeploymentRegionRow, DeploymentRow


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """What would happen in one region: `start`, `replace`, `scale`, `keep` or `stop`.

    `bytes` still have to come to the region from `source_region`, for `usd` and `carbon_g` (decimal text). `replicas`
    is the least number of them. What is of an hour has its value of before beside it; None: nobody said.
    """

    region: str
    action: str
    target: str | None
    from_target: str | None
    from_version: int | None
    to_version: int | None
    replicas: int | None
    from_replicas: int | None
    instances: tuple[Mapping[str, Any], ...] | None
    bytes: int
    usd: str
    carbon_g: str
    source_region: str | None
    usd_per_hour: str | None
    from_usd_per_hour: str | None
    carbon_g_per_hour: str | None
    from_carbon_g_per_hour: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPlan:
    """What a deployment would change. `bundle_state` is MISSING where the version was never bundled.

    `from_revision` is the deployment's newest revision (0: there is none), and `digest` names what the plan rests on.
    """

    name: str
    model: str
    environment: str | None
    version: int | None
    residency: str
    bundle_state: str
    bundle_digest: str | None
    from_revision: int
    strategy: Mapping[str, Any] | None
    steps: tuple[PlanStep, ...]
    bytes: int
    usd: str
    carbon_g: str
    usd_per_hour: str | None
    from_usd_per_hour: str | None
    carbon_g_per_hour: str | None
    from_carbon_g_per_hour: str | None
    digest: str


def make_plan(
    session: Session,
    catalog: Catalog,
    model: RegisteredModelRow,
    *,
    name: str,
    spec: DeploymentSpec,
    desired: Desired,
) -> DeploymentPlan:
    """Compare a specification with what a deployment of that name runs, if there is one."""
    row = session.scalars(
        select(DeploymentRow).where(DeploymentRow.workspace_id == model.workspace_id, DeploymentRow.name == name)
    ).one_or_none()
    present = {} if row is None else {each.region: each for each in regions_of(session, row)}
    before = [each for each in present.values() if each.state != STOPPING]
    steps: list[PlanStep] = []
    total = (Decimal(0), Decimal(0))
    for each in spec.regions:
        size, cost, source = _to_bring(session, catalog, model, desired, each.region)
        step = _step(each, present.pop(each.region, None), desired, size=size, cost=cost, source=source)
        total = (total[0] + Decimal(step.usd), total[1] + Decimal(step.carbon_g))
        steps.append(step)
    steps += [_stop(gone) for gone in present.values()]
    version = None if desired.version is None else desired.version.version
    strategy = None if spec.strategy is None else spec.strategy.to_json()
    basis: dict[str, Any] = {
        "name": name,
        "model": model.id,
        "environment": spec.environment,
        "version": version,
        "residency": model.residency,
        "from_revision": 0 if row is None else row.revision,
        "strategy": strategy,
        "spec": spec.to_json(),
        "steps": [[step.region, step.action, step.from_version, step.from_target] for step in steps],
    }
    return DeploymentPlan(
        name=name,
        model=model.name,
        environment=spec.environment,
        version=version,
        residency=model.residency,
        bundle_state="MISSING" if desired.bundle is None else desired.bundle.state,
        bundle_digest=None if desired.bundle is None else desired.bundle.digest,
        from_revision=0 if row is None else row.revision,
        strategy=strategy,
        steps=tuple(steps),
        bytes=sum(step.bytes for step in steps),
        usd=decimal_text(total[0]) or "0",
        carbon_g=decimal_text(total[1]) or "0",
        usd_per_hour=_total([each.usd_per_hour for each in spec.regions]),
        from_usd_per_hour=_total([each.usd_per_hour for each in before]),
        carbon_g_per_hour=_total([each.carbon_g_per_hour for each in spec.regions]),
        from_carbon_g_per_hour=_total([each.carbon_g_per_hour for each in before]),
        digest=f"sha256:{hashlib.sha256(canonical_json(_without_floats(basis))).hexdigest()}",
    )


def _step(
    spec: RegionSpec,
    now: DeploymentRegionRow | None,
    desired: Desired,
    *,
    size: int,
    cost: Cost | None,
    source: str | None,
) -> PlanStep:
    digest = None if desired.bundle is None else desired.bundle.digest
    action = change_of(now, spec, digest)
    version = None if desired.version is None else desired.version.version
    if action == REPLACE and now is not None and digest is None and now.version == version:
        # Its bundle was built by an older recipe and the new one is not there yet.
        action = KEEP if spec.target == (now.running_target or now.target) else REPLACE
    runs = None if now is None or action == START else now
    return PlanStep(
        region=spec.region,
        action=action,
        target=spec.target,
        from_target=None if runs is None else runs.running_target or runs.target,
        from_version=None if runs is None else runs.version,
        to_version=version,
        replicas=spec.scaling.min_replicas,
        from_replicas=None if runs is None else _replicas(runs),
        instances=spec.instances,
        bytes=size,
        usd=decimal_text(Decimal(0) if cost is None else cost.usd) or "0",
        carbon_g=decimal_text(Decimal(0) if cost is None else cost.gco2) or "0",
        source_region=source,
        usd_per_hour=spec.usd_per_hour,
        from_usd_per_hour=None if now is None else now.usd_per_hour,
        carbon_g_per_hour=spec.carbon_g_per_hour,
        from_carbon_g_per_hour=None if now is None else now.carbon_g_per_hour,
    )


def _stop(gone: DeploymentRegionRow) -> PlanStep:
    return PlanStep(
        region=gone.region,
        action=STOP,
        target=None,
        from_target=gone.running_target or gone.target,
        from_version=gone.version,
        to_version=None,
        replicas=None,
        from_replicas=_replicas(gone),
        instances=None,
        bytes=0,
        usd="0",
        carbon_g="0",
        source_region=None,
        usd_per_hour=None,
        from_usd_per_hour=gone.usd_per_hour,
        carbon_g_per_hour=None,
        from_carbon_g_per_hour=gone.carbon_g_per_hour,
    )


def _replicas(row: DeploymentRegionRow) -> int | None:
    scaling = (row.workload or {}).get("scaling")
    return None if scaling is None else int(scaling["min_replicas"])


def _total(amounts: Sequence[str | None]) -> str | None:
    known = [Decimal(each) for each in amounts if each is not None]
    return decimal_text(sum(known, Decimal(0))) if known else None


def _to_bring(
    session: Session, catalog: Catalog, model: RegisteredModelRow, desired: Desired, region: str
) -> tuple[int, Cost | None, str | None]:
    """Bytes that still have to come to a region, what that costs, and from where.

    Until the bundle exists its model stands for it: a bundle's files are the model's but for some tens of KB.
    """
    if desired.version is None or desired.version.artifact_digest is None:
        return 0, None, None
    digest = desired.version.artifact_digest
    if desired.bundle is not None and desired.bundle.digest is not None:
        digest = desired.bundle.digest
    sources = {
        location.region for location, _ in verified_replicas(session, model.workspace_id, model.residency, digest)
    }
    artifact = session.get(ArtifactRow, (model.workspace_id, model.residency, digest))
    if region in sources or not sources or artifact is None:
        return 0, None, None
    costs = {
        source: transfer_cost(catalog, source_region=source, region=region, size_bytes=artifact.size_bytes)
        for source in sources
    }
    source = min(costs, key=lambda each: (costs[each].usd, each))
    return artifact.size_bytes, costs[source], source


def _without_floats(value: Any) -> JsonValue:
    """The same JSON with fractions as text: canonical JSON has none."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _without_floats(item) for key, item in cast("Mapping[object, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_without_floats(item) for item in cast("Sequence[Any]", value)]
    return cast("JsonValue", value)
