"""The wire models of promotion policies and evaluations."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from fairlead.registry.gates import EXPRESSION_MAX_LENGTH
from fairlead.registry.limits import NUMBERS_MAX_COUNT, REASON_MAX_LENGTH
from fairlead.registry.policy import APPROVALS_MAX, GATES_MAX
from fairlead.registry.promotion_policy import FREEZES_MAX, PATTERN_MAX_LENGTH, PATTERNS_MAX, ROLE_MAX_LENGTH
from fairlead.registry.schemas import Name
from fairlead.registry.wire import AnswerModel, RequestModel, Time

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=PATTERN_MAX_LENGTH)]
Patterns = Annotated[list[Pattern], Field(max_length=PATTERNS_MAX)]
Role = Annotated[str, StringConstraints(min_length=1, max_length=ROLE_MAX_LENGTH)]
Reason = Annotated[str, StringConstraints(max_length=REASON_MAX_LENGTH)]
Moment = Annotated[str, StringConstraints(max_length=40)]


class PromotionMatchIn(RequestModel):
    """What a policy is about; what is left out matches everything. `*` and `?` are wild cards."""

    models: Patterns = Field(default_factory=list[str])
    environments: Patterns = Field(default_factory=list[str])


class ExpressionGateIn(RequestModel):
    """An expression that must be true; `message` is told to whomever it refuses."""

    name: Name
    expression: Annotated[
        str,
        StringConstraints(min_length=1, max_length=EXPRESSION_MAX_LENGTH),
        Field(examples=["champion == null || metrics.auc >= champion.metrics.auc - 0.002"]),
    ]
    message: Reason = ""


class ApproversIn(RequestModel):
    """So many principals who hold a role, never the requester; no role: anyone who may approve."""

    count: Annotated[int, Field(ge=1, le=APPROVALS_MAX)] = 1
    role: Role | None = None


class SignaturesIn(RequestModel):
    """So many signatures of different signers that count; no pattern of signers: of any that the workspace trusts."""

    count: Annotated[int, Field(ge=1, le=APPROVALS_MAX)] = 1
    signers: Patterns = Field(default_factory=list[str])


class FreezeIn(RequestModel):
    """A time when nothing is promoted: `from` and `until`, or a cron `schedule` that says when it begins."""

    name: Name
    reason: Reason
    timezone: Annotated[str, StringConstraints(max_length=64)] = "UTC"
    from_: Annotated[Moment | None, Field(alias="from", examples=["2026-12-20T18:00"])] = None
    until: Moment | None = None
    schedule: Annotated[str | None, StringConstraints(max_length=200), Field(examples=["0 18 * * 5"])] = None
    duration: Annotated[str | None, StringConstraints(max_length=40), Field(examples=["60h"])] = None


class PromotionPolicyIn(RequestModel):
    """What must be true before one of the environments points at a version of one of the models."""

    match: PromotionMatchIn = Field(default_factory=PromotionMatchIn)
    gates: Annotated[list[ExpressionGateIn], Field(max_length=GATES_MAX)] = Field(
        default_factory=list[ExpressionGateIn]
    )
    approvals: Annotated[list[ApproversIn], Field(max_length=APPROVALS_MAX)] = Field(default_factory=list[ApproversIn])
    signatures: SignaturesIn | None = None
    freezes: Annotated[list[FreezeIn], Field(max_length=FREEZES_MAX)] = Field(default_factory=list[FreezeIn])
    override_roles: Annotated[
        list[Role], Field(max_length=20, description="Who may set freezes aside in an emergency.")
    ] = Field(default_factory=list[str])
    required_regions: Annotated[list[str], Field(max_length=GATES_MAX)] = Field(default_factory=list[str])
    residency: Annotated[list[str], Field(max_length=GATES_MAX)] = Field(default_factory=list[str])


class PromotionMatchOut(AnswerModel):
    """What a policy is about."""

    models: list[str]
    environments: list[str]


class ExpressionGateOut(AnswerModel):
    """An expression that must be true."""

    name: str
    expression: str
    message: str


class ApproversOut(AnswerModel):
    """So many principals who hold a role."""

    count: int
    role: str | None


class SignaturesOut(AnswerModel):
    """So many signatures of different signers that count."""

    count: int
    signers: list[str]


class FreezeOut(AnswerModel):
    """A time when nothing is promoted."""

    name: str
    reason: str
    timezone: str
    from_: Annotated[str | None, Field(alias="from")] = None
    until: str | None = None
    schedule: str | None = None
    duration: str | None = None


class PromotionPolicyOut(AnswerModel):
    """A policy; `revision` is the answer's ETag."""

    name: str
    match: PromotionMatchOut
    gates: list[ExpressionGateOut]
    approvals: list[ApproversOut]
    signatures: SignaturesOut | None
    freezes: list[FreezeOut]
    override_roles: list[str]
    required_regions: list[str]
    residency: list[str]
    revision: int
    updated_by: str
    updated_at: Time


class EvaluationIn(RequestModel):
    """What was measured of a version, on what."""

    name: Name
    metrics: Annotated[dict[str, float], Field(min_length=1, max_length=NUMBERS_MAX_COUNT)]
    dataset: Name | None = None


class EvaluationOut(AnswerModel):
    """One evaluation of a version."""

    id: str
    reference: str
    name: str
    dataset: str | None
    metrics: dict[str, float]
    created_by: str
    created_at: Time
