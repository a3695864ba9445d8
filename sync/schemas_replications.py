"""What crosses the wire about replication plans and what became of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead.registry.wire import Amount, AnswerModel, RequestModel
from fairlead.sync.distribution import Copies, Hop
from fairlead.sync.plans import ReplicationPlan

REFERENCE_MAX_LENGTH = 600
REGIONS_MAX = 100

Reference = Annotated[
    str,
    Field(
        min_length=1,
        max_length=REFERENCE_MAX_LENGTH,
        description="A digest, `name/VERSION` or `name@alias`.",
        examples=["churn@production"],
    ),
]
Deadline = Annotated[
    float | None, Field(gt=0, lt=1e9, description="Within how many seconds the last destination should have it.")
]


class PlanIn(RequestModel):
    """What to plan. Regions ask what it would take to bring it to these; without, it is those that lack it."""

    of: Reference
    deadline_seconds: Deadline = None
    regions: Annotated[list[str] | None, Field(min_length=1, max_length=REGIONS_MAX)] = None


class HopOut(AnswerModel):
    """One copy. Seconds count from the start of the plan; a relay only passes the artifact on."""

    source: str
    source_region: str
    location: str
    region: str
    bytes: int
    egress_usd: Amount
    request_usd: Amount
    usd: Amount
    begins_seconds: float
    ends_seconds: float
    is_relay: bool
    is_estimate: bool

    @classmethod
    def of(cls, hop: Hop) -> HopOut:
        """Render a record."""
        return cls(
            source=hop.source.name,
            source_region=hop.source.region,
            location=hop.destination.name,
            region=hop.destination.region,
            bytes=hop.bytes,
            egress_usd=hop.egress_usd,
            request_usd=hop.request_usd,
            usd=hop.usd,
            begins_seconds=round(hop.begins_seconds, 3),
            ends_seconds=round(hop.ends_seconds, 3),
            is_relay=hop.is_relay,
            is_estimate=hop.is_estimate,
        )


class CopiesOut(AnswerModel):
    """Some copies, and what they come to."""

    hops: list[HopOut]
    bytes: int
    usd: Amount
    seconds: float

    @classmethod
    def of(cls, copies: Copies) -> CopiesOut:
        """Render a record."""
        return cls(
            hops=[HopOut.of(hop) for hop in copies.hops],
            bytes=copies.bytes,
            usd=copies.usd,
            seconds=round(copies.seconds, 3),
        )


class BindingOut(AnswerModel):
    """A rule that made the plan dearer, and what the cheapest plan would cost without it."""

    rule: str
    detail: str
    usd_without: Amount


class PlanOut(AnswerModel):
    """A plan: the cheapest tree, copying directly, the rules that bound it, and how good it is proved to be."""

    artifact: str
    residency: str
    is_what_if: bool
    deadline_seconds: float | None
    tree: CopiesOut
    direct: CopiesOut
    saved_usd: Amount
    bindings: list[BindingOut]
    is_optimal: bool
    bound_usd: Amount

    @classmethod
    def of(cls, plan: ReplicationPlan) -> PlanOut:
        """Render a record."""
        distribution = plan.distribution
        return cls(
            artifact=plan.artifact,
            residency=plan.residency,
            is_what_if=plan.is_what_if,
            deadline_seconds=distribution.deadline_seconds,
            tree=CopiesOut.of(distribution.tree),
            direct=CopiesOut.of(distribution.direct),
            saved_usd=distribution.saved_usd,
            bindings=[
                BindingOut(rule=each.rule, detail=each.detail, usd_without=each.usd_without)
                for each in distribution.bindings
            ],
            is_optimal=distribution.is_optimal,
            bound_usd=distribution.bound_usd,
        )


class HopStatusOut(AnswerModel):
    """One replica's hop as planned and as made; dollars are null where nothing was planned or paid."""

    location: str
    region: str
    state: str
    is_wanted: bool
    planned_source: str | None
    planned_bytes: int | None
    planned_usd: Amount | None
    source: str | None
    moved_bytes: int | None
    actual_usd: Amount | None
