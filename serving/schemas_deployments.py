"""Deployments as JSON: what may be asked for, plans, revisions with their steps, drift."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fairlead.registry.wire import AnswerModel, RequestModel, Time


class ScalingIn(RequestModel):
    """How many replicas a region has; what is left out is taken from the placement."""

    min_replicas: int | None = Field(default=None, ge=0, le=10_000)
    max_replicas: int | None = Field(default=None, ge=1, le=10_000)
    requests_per_second_per_replica: float | None = Field(default=None, gt=0)


class DeploymentIn(RequestModel):
    """What should run. Give `environment` or `version`, and `placement_id` or `regions`."""

    model: str = Field(max_length=300)
    name: str | None = Field(default=None, description="The model's name where it is left out.", max_length=300)
    environment: str | None = Field(default=None, max_length=300)
    version: int | None = Field(default=None, ge=1, lt=2**31)
    placement_id: str | None = Field(default=None, max_length=64)
    regions: list[str] | None = Field(default=None, max_length=200)
    targets: dict[str, str] = Field(
        default_factory=dict[str, str], description="By region, `*` for the others; else `local`.", max_length=200
    )
    scaling: ScalingIn = Field(default_factory=ScalingIn)
    strategy: dict[str, Any] | None = Field(
        default=None,
        description="`canary` or `blue_green`; none: each region moves as soon as its endpoint is ready.",
        examples=[{"canary": {"steps": [5, 25, 100], "pause": "5m", "max_error_rate": 0.01}}],
    )
    plan_digest: str | None = Field(
        default=None, max_length=71, description="Of a plan: apply only if it would be the same now."
    )
    dry_run: bool = False


class RollbackIn(RequestModel):
    """Which revision to make the newest again, and why."""

    to_revision: int | None = Field(default=None, ge=1, lt=2**31, description="None: the last that was live before.")
    reason: str = Field(min_length=1)


class PlanStepOut(AnswerModel):
    """What would happen in one region; amounts of an hour have their value of before beside them."""

    region: str
    action: Literal["start", "replace", "scale", "keep", "stop"]
    target: str | None
    from_target: str | None
    from_version: int | None
    to_version: int | None
    replicas: int | None
    from_replicas: int | None
    instances: list[dict[str, Any]] | None
    bytes: int
    usd: str
    carbon_g: str
    source_region: str | None
    usd_per_hour: str | None
    from_usd_per_hour: str | None
    carbon_g_per_hour: str | None
    from_carbon_g_per_hour: str | None


class DeploymentPlanOut(AnswerModel):
    """What a deployment would change; `digest` names all that the plan rests on."""

    name: str
    model: str
    environment: str | None
    version: int | None
    residency: str
    bundle_state: str
    bundle_digest: str | None
    from_revision: int
    strategy: dict[str, Any] | None
    steps: list[PlanStepOut]
    bytes: int
    usd: str
    carbon_g: str
    usd_per_hour: str | None
    from_usd_per_hour: str | None
    carbon_g_per_hour: str | None
    from_carbon_g_per_hour: str | None
    digest: str


class ProposalOut(AnswerModel):
    """A new placement of a deployment, and what applying it would change."""

    placement_id: str
    plan: DeploymentPlanOut


class RegionOut(AnswerModel):
    """One region of a deployment."""

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
    shares: dict[str, float] | None
    differences: list[str]
    error_code: str | None
    error_detail: str | None
    updated_at: Time


class StepOut(AnswerModel):
    """One step of a revision, with what the gateway saw within it."""

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
    started_at: Time | None
    finished_at: Time | None


class DeploymentOut(AnswerModel):
    """A deployment and its regions."""

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
    regions: list[RegionOut]
    steps: list[StepOut]
    advice: list[str]
    endpoint: str | None
    created_by: str
    created_at: Time


class RevisionOut(AnswerModel):
    """One state that a deployment was to have."""

    number: int
    cause: str
    state: str
    environment: str | None
    version: int | None
    bundle_digest: str | None
    regions: list[str]
    strategy: dict[str, Any] | None
    why: str | None
    created_by: str
    created_at: Time
    finished_at: Time | None
    steps: list[StepOut]


class RegionDriftOut(AnswerModel):
    """How what runs in a region differs from what should."""

    region: str
    target: str
    drift: Literal["none", "missing", "unready", "changed", "outdated", "unwanted", "unknown"]
    wanted_version: int | None
    version: int | None
    wanted_digest: str | None
    bundle_digest: str | None
    details: list[str]
