"""Replications: what bringing an artifact to where it is wanted would move, cost and take, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairlead.sdk.records import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedHop(Record):
    """One copy of a plan. Dollars are decimal text; seconds count from the start of the plan.

    A relay only passes the artifact on. `is_estimate`: the tariff or the throughput of the pair is one.
    """

    source: str
    source_region: str
    location: str
    region: str
    bytes: int
    egress_usd: str
    request_usd: str
    usd: str
    begins_seconds: float
    ends_seconds: float
    is_relay: bool
    is_estimate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCopies(Record):
    """Some copies, each after the one that feeds it, and what they come to."""

    hops: tuple[PlannedHop, ...]
    bytes: int
    usd: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBinding(Record):
    """A rule that made a plan dearer, and what the cheapest plan would cost without it."""

    rule: str
    detail: str
    usd_without: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicationPlan(Record):
    """The cheapest tree of copies, and what copying directly would cost.

    Where `is_optimal`, no plan under the same rules is cheaper; else none is cheaper than `bound_usd`.
    """

    artifact: str
    residency: str
    is_what_if: bool
    deadline_seconds: float | None = None
    tree: PlannedCopies
    direct: PlannedCopies
    saved_usd: str
    bindings: tuple[PlanBinding, ...]
    is_optimal: bool
    bound_usd: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HopStatus(Record):
    """One replica's hop as planned and as made; None where nothing was planned, moved or paid."""

    location: str
    region: str
    state: str
    is_wanted: bool
    planned_source: str | None = None
    planned_bytes: int | None = None
    planned_usd: str | None = None
    source: str | None = None
    moved_bytes: int | None = None
    actual_usd: str | None = None


class Replications:
    """Plans of copies, and what became of them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def plan(
        self, of: str, *, regions: Sequence[str] | None = None, deadline_seconds: float | None = None
    ) -> ReplicationPlan:
        """The cheapest way for an artifact to get to where it is wanted and not VERIFIED yet; changes nothing.

        `of` is a digest, `churn/3` or `churn@production`. `regions` ask what it would take to bring it to these
        instead, also where no location is yet.

        Raises:
            ReplicaUnavailable: if no replica is VERIFIED to copy from.
            ResidencyViolation: if a region may not hold it.
            DistributionInfeasible: if no way meets the deadline; says how long the quickest takes.
        """
        body: dict[str, JsonValue] = {"of": of}
        if regions is not None:
            body["regions"] = list(regions)
        if deadline_seconds is not None:
            body["deadline_seconds"] = float(deadline_seconds)
        return ReplicationPlan.from_json(self._transport.post("/api/v1/replications/plan", body))

    def status(self, of: str) -> tuple[HopStatus, ...]:
        """Each replica's hop as it was planned and as it was made, by location."""
        return tuple(map(HopStatus.from_json, self._transport.items("/api/v1/replications", of=of)))
