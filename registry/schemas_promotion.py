"""The wire models of environments, promotions and roll-backs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from fairlead.registry.limits import REASON_MAX_LENGTH
from fairlead.registry.policy import APPROVALS_MAX, GATES_MAX, Comparison, Verdict
from fairlead.registry.schemas import AliasMoveOut, Name
from fairlead.registry.wire import AnswerModel, RequestModel, Time, VersionNumber

Reason = Annotated[str, StringConstraints(max_length=REASON_MAX_LENGTH)]


class MetricGateIn(RequestModel):
    """A threshold on one metric."""

    metric: Name
    comparison: Comparison
    limit: float


class PolicyIn(RequestModel):
    """What must be true before the environment points at a version."""

    gates: Annotated[list[MetricGateIn], Field(max_length=GATES_MAX)] = Field(default_factory=list[MetricGateIn])
    required_regions: Annotated[list[str], Field(max_length=GATES_MAX)] = Field(default_factory=list[str])
    approvals: Annotated[int, Field(ge=0, le=APPROVALS_MAX, description="By others than the requester.")] = 0
    previous_environment: Annotated[str | None, Field(description="The version must hold it now or have held it.")] = (
        None
    )
    residency: Annotated[
        list[str], Field(max_length=GATES_MAX, description="Residency classes of data it is for; none: all.")
    ] = Field(default_factory=list[str])


class EnvironmentIn(RequestModel):
    """An environment's place in the order, and its policy."""

    rank: Annotated[int, Field(ge=0, le=1_000_000)]
    policy: PolicyIn = Field(default_factory=PolicyIn)


class MetricGateOut(AnswerModel):
    """A threshold on one metric."""

    metric: str
    comparison: Comparison
    limit: float


class PolicyOut(AnswerModel):
    """What must be true before the environment points at a version."""

    gates: list[MetricGateOut]
    required_regions: list[str]
    approvals: int
    previous_environment: str | None
    residency: list[str]


class EnvironmentOut(AnswerModel):
    """An environment; `revision` is that of its policy, and the answer's ETag."""

    name: str
    rank: int
    policy: PolicyOut
    revision: int
    updated_by: str
    updated_at: Time


class PromotionIn(RequestModel):
    """A request to move an environment to a version. A dry run plans and keeps nothing."""

    version: VersionNumber
    environment: Name
    reason: Reason = ""
    dry_run: bool = False
    emergency: Annotated[
        bool, Field(description="Set freezes aside, for those who hold a role that the policy names; needs a reason.")
    ] = False
    basis: Annotated[
        dict[str, str] | None,
        Field(max_length=5_000, description="That of a plan; `plan-outdated` if anything of it has changed."),
    ] = None


class MovesOut(AnswerModel):
    """The versions that the environment leaves and takes."""

    from_: Annotated[int | None, Field(alias="from")]
    to: int


class GateOut(AnswerModel):
    """One gate's verdict; `next_step` says how to pass it. `policy` is null for the environment's own policy."""

    gate: str
    value: float | str | None
    limit: float | str
    verdict: Verdict
    detail: str
    next_step: str | None
    policy: str | None = None
    expression: str | None = None
    values: dict[str, Any] = Field(default_factory=dict[str, Any])


class MissingReplicaOut(AnswerModel):
    """A replica that a required region lacks, and what copying it costs at most."""

    region: str
    bytes: int | None
    usd: float | None
    source_region: str | None
    state: str | None


class PlanOut(AnswerModel):
    """What a promotion does."""

    moves: MovesOut
    policy_revision: int
    gates: list[GateOut]
    missing_replicas: list[MissingReplicaOut]
    bytes: int
    usd: float
    deployments: Annotated[list[str], Field(description="Deployments that follow the environment.")]
    policies: Annotated[
        dict[str, int], Field(description="The promotion policies that govern it, and their revisions.")
    ] = Field(default_factory=dict[str, int])
    facts: Annotated[dict[str, Any], Field(description="Digest, snapshot, bundle and replicas at that time.")] = Field(
        default_factory=dict[str, Any]
    )
    basis: Annotated[dict[str, str], Field(description="What the plan rests on.")] = Field(
        default_factory=dict[str, str]
    )
    fingerprint: str | None = None
    emergency_roles: list[str] | None = None


class ApprovalOut(AnswerModel):
    """One principal's word on a promotion."""

    principal: str
    is_approval: bool
    comment: str
    decided_at: Time
    roles: list[str] = Field(default_factory=list[str])


class PromotionOut(AnswerModel):
    """A promotion; `id` is null for a dry run."""

    id: str | None
    state: Annotated[
        str, Field(description="PLANNED, AWAITING_APPROVAL, APPLIED, REFUSED, REJECTED, WITHDRAWN or STALE.")
    ]
    reference: str
    environment: str
    base_revision: int
    revision: int | None
    reason: str
    plan: PlanOut
    requested_by: str
    requested_at: Time
    approvals: list[ApprovalOut]
    finished_at: Time | None


class DecisionIn(RequestModel):
    """An approver's word."""

    comment: Reason = ""


class RollbackIn(RequestModel):
    """Where to go back to, and why."""

    to_version: Annotated[
        VersionNumber | None, Field(description="A version that held the environment; null: the one before.")
    ] = None
    reason: Reason


class RollbackOut(AliasMoveOut):
    """The move back; `not_rechecked` are the policy's gates that were not asked again."""

    not_rechecked: list[str] = Field(default_factory=list)


class HoldingOut(AnswerModel):
    """A version that held a name at a time, as it was recorded then."""

    reference: str
    at: Time
    move: AliasMoveOut
    artifact_digest: str | None
    residency: str
    snapshot_digest: str | None
    feature_service: str | None
    run_id: str | None
    code_commit: str | None
    parent_version: int | None
    bundle: str | None
    regions: Annotated[list[str], Field(description="Those that had verified every byte by then.")]
    promotion: Annotated[PromotionOut | None, Field(description="By which it came, or had come before a roll-back.")]
    not_rechecked: list[str]
    audit_sequence: Annotated[int | None, Field(description="Of the event in the sealed audit log.")]
    event_hash: str | None
