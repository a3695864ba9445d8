"""Policies: what an environment asks of a version before it may hold it. Pure: values in, verdicts out.

A policy is a list of metric thresholds, the regions where the bytes must be verified, the environment that must have
held the version before, and how many principals beside the requester must approve. Every gate answers with its value,
its limit and, where it does not pass, the next step.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from fairlead.catalog import load_catalog, parse_residency, permits
from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.core.ports import SnapshotFinding

Comparison = Literal[">=", "<=", ">", "<"]
Verdict = Literal["passed", "failed", "pending", "overridden"]

APPROVALS_MAX = 10
GATES_MAX = 100

_COMPARE: dict[Comparison, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricGate:
    """A threshold on one metric of the version."""

    metric: str
    comparison: Comparison
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What must be true before an environment points at a version. The empty policy asks for nothing."""

    gates: tuple[MetricGate, ...] = ()
    required_regions: tuple[str, ...] = ()
    approvals: int = 0
    previous_environment: str | None = None
    residency: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is known of a version that asks for an environment.

    `replica_states` holds the best replica's state in each region that has one, `held_by` the environments that hold
    or have held the version, `approvers` those who approved, the requester never among them.
    """

    reference: str
    metrics: Mapping[str, float]
    replica_states: Mapping[str, str]
    held_by: frozenset[str]
    approvers: tuple[str, ...]
    residency: str = "unrestricted"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate's verdict. `pending` waits for people; `failed` refuses; `overridden` was set aside in an emergency.

    `next_step` is None where it passed. `policy` names the promotion policy that asks (None: the environment's own);
    an `expression` comes with the `values` that it used.
    """

    gate: str
    value: float | str | None
    limit: float | str
    verdict: Verdict
    detail: str
    next_step: str | None
    policy: str | None = None
    expression: str | None = None
    values: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])


def evaluate(policy: Policy, candidate: Candidate) -> tuple[GateResult, ...]:
    """Every gate of a policy, in its order: metrics, previous environment, residency, regions, approvals."""
    results = [_metric(gate, candidate) for gate in policy.gates]
    if policy.previous_environment is not None:
        results.append(_previous_environment(policy.previous_environment, candidate))
    if policy.residency:
        results.append(residency_gate(policy.residency, candidate))
    results.extend(region_gate(region, candidate) for region in policy.required_regions)
    if policy.approvals:
        results.append(_approvals(policy.approvals, candidate))
    return tuple(results)


def gate_names(policy: Policy) -> tuple[str, ...]:
    """What a policy asks for, by name, as `evaluate` names it."""
    nothing = Candidate(reference="", metrics={}, replica_states={}, held_by=frozenset(), approvers=())
    return tuple(result.gate for result in evaluate(policy, nothing))


def to_json(policy: Policy) -> dict[str, JsonValue]:
    """A policy as the record keeps it."""
    return {
        "gates": [{"metric": gate.metric, "comparison": gate.comparison, "limit": gate.limit} for gate in policy.gates],
        "required_regions": list(policy.required_regions),
        "approvals": policy.approvals,
        "previous_environment": policy.previous_environment,
        "residency": list(policy.residency),
    }


def from_json(members: Mapping[str, object]) -> Policy:
    """Read a policy from the record; a member that is missing asks for nothing."""
    gates = cast("list[dict[str, object]]", members.get("gates") or [])
    return Policy(
        gates=tuple(
            MetricGate(
                metric=str(gate["metric"]),
                comparison=parse_comparison(str(gate["comparison"])),
                limit=float(cast("float", gate["limit"])),
            )
            for gate in gates
        ),
        required_regions=tuple(cast("list[str]", members.get("required_regions") or [])),
        approvals=cast("int", members.get("approvals") or 0),
        previous_environment=cast("str | None", members.get("previous_environment")),
        residency=tuple(cast("list[str]", members.get("residency") or [])),
    )


def parse_comparison(text: str) -> Comparison:
    """Check a comparison.

    Raises:
        InvalidInput: if it is none.
    """
    if text not in _COMPARE:
        raise InvalidInput(f"{text[:20]!r} is no comparison.", hint=f"Use one of: {' '.join(get_args(Comparison))}")
    return text


def check_policy(policy: Policy) -> None:
    """Refuse a policy whose numbers make no sense.

    Raises:
        InvalidInput: naming what is wrong.
    """
    if not 0 <= policy.approvals <= APPROVALS_MAX:
        raise InvalidInput(f"A policy asks for 0 to {APPROVALS_MAX} approvals.", hint="Lower approvals.")
    if len(policy.gates) + len(policy.required_regions) > GATES_MAX:
        raise InvalidInput(f"A policy holds at most {GATES_MAX} gates and regions.", hint="Leave some out.")
    for gate in policy.gates:
        if not math.isfinite(gate.limit):
            raise InvalidInput(f"The limit of {gate.metric!r} is not a finite number.", hint="Give a number.")
    for residency in policy.residency:
        if parse_residency(residency) != residency:
            raise InvalidInput(f"The residency class {residency!r} is written {residency.lower()!r}.")


def _metric(gate: MetricGate, candidate: Candidate) -> GateResult:
    name = f"{gate.metric} {gate.comparison} {gate.limit:g}"
    value = candidate.metrics.get(gate.metric)
    if value is None:
        verdict: Verdict = "failed"
        detail = f"{candidate.reference} has no metric {gate.metric!r}."
        next_step: str | None = (
            f"Register a version with the metric: fairlead model register --metric {gate.metric}=VALUE"
        )
    elif _COMPARE[gate.comparison](value, gate.limit):
        verdict, detail, next_step = "passed", f"{gate.metric} is {value:g}.", None
    else:
        verdict = "failed"
        detail = f"{gate.metric} is {value:g}; the policy asks for {gate.comparison} {gate.limit:g}."
        next_step = "Register a version that reaches the limit, or have an admin change the policy."
    return GateResult(gate=name, value=value, limit=gate.limit, verdict=verdict, detail=detail, next_step=next_step)


def _previous_environment(environment: str, candidate: Candidate) -> GateResult:
    has_held = environment in candidate.held_by
    return GateResult(
        gate=f"held {environment} before",
        value="yes" if has_held else "no",
        limit="yes",
        verdict="passed" if has_held else "failed",
        detail=f"{candidate.reference} {'holds or has held' if has_held else 'never held'} {environment}.",
        next_step=None if has_held else f"Run: fairlead model promote {candidate.reference} --to {environment}",
    )


def residency_gate(allowed: Sequence[str], candidate: Candidate, *, policy: str | None = None) -> GateResult:
    """Whether a version's residency class is one of those that an environment is for."""
    is_allowed = candidate.residency in allowed
    whose = "the environment's policy" if policy is None else f"the policy {policy!r}"
    return GateResult(
        gate="residency",
        value=candidate.residency,
        limit=", ".join(allowed),
        verdict="passed" if is_allowed else "failed",
        detail=f"{candidate.reference} has the residency class {candidate.residency!r}; {whose} admits "
        f"{', '.join(allowed)}.",
        next_step=None if is_allowed else "Promote it to an environment that is for data of this class.",
        policy=policy,
    )


def region_gate(region: str, candidate: Candidate, *, policy: str | None = None) -> GateResult:
    """Whether a version may be in a region at all, and every byte of it was read back there."""
    state = candidate.replica_states.get(region)
    jurisdiction = load_catalog().region(region).jurisdiction
    is_verified = state == "VERIFIED"
    if not permits(parse_residency(candidate.residency), jurisdiction):
        is_verified = False
        detail = (
            f"The residency class {candidate.residency!r} of {candidate.reference} keeps its bytes out of {region}, "
            f"which is in {jurisdiction}."
        )
        next_step: str | None = "Promote it to an environment whose regions its residency class permits."
    elif is_verified:
        detail, next_step = f"Every byte of the replica in {region} was read back.", None
    elif state is None:
        detail = f"{candidate.reference} has no replica in {region}, and none is on its way."
        next_step = f"Check that a location there may hold it: fairlead location add NAME --region {region} --url URL"
    else:
        detail = f"The replica in {region} is {state}."
        next_step = f"Wait for it: fairlead model where {candidate.reference}"
    return GateResult(
        gate=f"replica in {region}",
        value=state,
        limit="VERIFIED",
        verdict="passed" if is_verified else "failed",
        detail=detail,
        next_step=next_step,
        policy=policy,
    )


def expectation_gate(finding: SnapshotFinding) -> GateResult:
    """Whether the features that a version pins are as somebody expects; a mere warning is told and refuses nothing."""
    is_met = finding.is_passed or not finding.is_required
    said = "as expected" if finding.is_passed else "not as expected"
    warns = "" if is_met == finding.is_passed else " That is a warning."
    return GateResult(
        gate=f"expectation {finding.name} ({finding.measure})",
        value=finding.value,
        limit=finding.limit,
        verdict="passed" if is_met else "failed",
        detail=f"The snapshot that it was trained on is {said}.{warns} {finding.detail}".rstrip(),
        next_step=None if is_met else "Train it on a snapshot that passes; see: fairlead features report SNAPSHOT",
    )


def _approvals(needed: int, candidate: Candidate) -> GateResult:
    given = len(candidate.approvers)
    is_enough = given >= needed
    who = f" by {', '.join(candidate.approvers)}" if candidate.approvers else ""
    return GateResult(
        gate="approvals",
        value=given,
        limit=needed,
        verdict="passed" if is_enough else "pending",
        detail=f"{given} of {needed} approvals{who}.",
        next_step=None if is_enough else "Someone other than the requester runs: fairlead model approve PROMOTION",
    )
