"""Promotion policies: what the owners of some models ask, beside what an environment asks of every model.

A policy names models and environments by pattern. All that match a promotion must pass, and the environment's own
policy too. Pure: a policy and facts in, verdicts out. A version of a policy is kept as it was applied.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import cast

from fairlead.catalog import load_catalog, parse_residency
from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.core.ids import parse_name
from fairlead.core.signatures import SignaturePolicy
from fairlead.registry.freeze import Freeze, check_freeze, freeze_from_json, freeze_to_json, frozen_until, until_text
from fairlead.registry.gates import EVALUATION_SECONDS, CannotEvaluate, compile_expression
from fairlead.registry.limits import parse_text
from fairlead.registry.policy import (
    APPROVALS_MAX,
    GATES_MAX,
    Candidate,
    GateResult,
    Verdict,
    region_gate,
    residency_gate,
)

PATTERNS_MAX = 100
PATTERN_MAX_LENGTH = 255
FREEZES_MAX = 50
ROLE_MAX_LENGTH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionGate:
    """A named expression that must be true; `message` tells whoever it refuses what to do."""

    name: str
    expression: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvers:
    """So many principals who hold a role; no role: anyone who may approve."""

    count: int
    role: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionPolicy:
    """What must be true before one of the environments points at a version of one of the models."""

    models: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    gates: tuple[ExpressionGate, ...] = ()
    approvals: tuple[Approvers, ...] = ()
    signatures: SignaturePolicy | None = None
    freezes: tuple[Freeze, ...] = ()
    override_roles: tuple[str, ...] = ()
    required_regions: tuple[str, ...] = ()
    residency: tuple[str, ...] = ()

    def governs(self, model: str, environment: str) -> bool:
        """Whether the policy is about a model in an environment; no pattern means all."""
        return _is_like(self.models, model) and _is_like(self.environments, environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approver:
    """Someone who approved, with the roles that they held when they did."""

    principal: str
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a policy is asked about: the facts of its expressions, who approved, and whether it is an emergency.

    `emergency_roles` are the roles of a requester who declared one; None: there is none.
    """

    candidate: Candidate
    facts: Mapping[str, object]
    now: datetime
    requested_by: str
    approvers: tuple[Approver, ...] = ()
    emergency_roles: frozenset[str] | None = None
    deadline: float = field(default_factory=lambda: time.monotonic() + EVALUATION_SECONDS)


def evaluate(name: str, policy: PromotionPolicy, asked: Asked) -> tuple[GateResult, ...]:
    """Every gate of a policy, in its order: expressions, signatures, residency, regions, freezes, approvals."""
    results = [_expression(name, gate, asked) for gate in policy.gates]
    if policy.signatures is not None:
        results.append(_signatures(name, policy.signatures, asked))
    if policy.residency:
        results.append(residency_gate(policy.residency, asked.candidate, policy=name))
    results.extend(region_gate(region, asked.candidate, policy=name) for region in policy.required_regions)
    results.extend(_freeze(name, policy, freeze, asked) for freeze in policy.freezes)
    if policy.approvals:
        results.extend(_approvals(name, policy.approvals, asked))
    return tuple(results)


def gate_names(name: str, policy: PromotionPolicy) -> tuple[str, ...]:
    """What a policy asks for, by name, as `evaluate` names it."""
    return (
        *(f"{name}: {gate.name}" for gate in policy.gates),
        *([f"{name}: signatures"] if policy.signatures is not None else []),
        *([f"{name}: residency"] if policy.residency else []),
        *(f"{name}: replica in {region}" for region in policy.required_regions),
        *(f"{name}: freeze {freeze.name}" for freeze in policy.freezes),
        *(f"{name}: {_title(approvers)}" for approvers in policy.approvals),
    )


def to_json(policy: PromotionPolicy) -> dict[str, JsonValue]:
    """A policy as the record keeps it, and as its owners write it."""
    return {
        "match": {"models": [*policy.models], "environments": [*policy.environments]},
        "gates": [{"name": gate.name, "expression": gate.expression, "message": gate.message} for gate in policy.gates],
        "approvals": [{"count": each.count, "role": each.role} for each in policy.approvals],
        "signatures": None
        if policy.signatures is None
        else {"count": policy.signatures.count, "signers": [*policy.signatures.signers]},
        "freezes": [freeze_to_json(freeze) for freeze in policy.freezes],
        "override_roles": [*policy.override_roles],
        "required_regions": [*policy.required_regions],
        "residency": [*policy.residency],
    }


def from_json(document: Mapping[str, object]) -> PromotionPolicy:
    """Read a policy from the record."""
    match = cast("Mapping[str, list[str]]", document.get("match") or {})
    gates = cast("list[Mapping[str, str]]", document.get("gates") or [])
    approvals = cast("list[Mapping[str, object]]", document.get("approvals") or [])
    signatures = cast("Mapping[str, object] | None", document.get("signatures"))
    freezes = cast("list[Mapping[str, object]]", document.get("freezes") or [])

    def texts(name: str) -> tuple[str, ...]:
        return tuple(cast("list[str]", document.get(name) or []))

    return PromotionPolicy(
        models=tuple(match.get("models") or ()),
        environments=tuple(match.get("environments") or ()),
        gates=tuple(
            ExpressionGate(name=gate["name"], expression=gate["expression"], message=gate.get("message") or "")
            for gate in gates
        ),
        approvals=tuple(
            Approvers(count=cast("int", each["count"]), role=cast("str | None", each.get("role"))) for each in approvals
        ),
        signatures=None
        if signatures is None
        else SignaturePolicy(
            count=cast("int", signatures.get("count", 1)),
            signers=tuple(cast("list[str]", signatures.get("signers") or [])),
        ),
        freezes=tuple(freeze_from_json(freeze) for freeze in freezes),
        override_roles=texts("override_roles"),
        required_regions=texts("required_regions"),
        residency=texts("residency"),
    )


def check_policy(policy: PromotionPolicy) -> None:
    """Refuse a policy that could not be evaluated.

    Raises:
        InvalidInput: naming the part; for an expression with `gate`, `line` and `column`.
        UnknownRegion, UnknownResidency: if the catalog has no such thing.
    """
    for patterns in (policy.models, policy.environments):
        if len(patterns) > PATTERNS_MAX or any(not 0 < len(each) <= PATTERN_MAX_LENGTH for each in patterns):
            raise InvalidInput(
                f"A policy matches at most {PATTERNS_MAX} patterns of 1 to {PATTERN_MAX_LENGTH} characters."
            )
    if len(policy.gates) + len(policy.required_regions) > GATES_MAX or len(policy.freezes) > FREEZES_MAX:
        raise InvalidInput(
            f"A policy holds at most {GATES_MAX} gates and regions and {FREEZES_MAX} freezes.", hint="Make two of it."
        )
    for text in (*policy.models, *policy.environments, *(freeze.reason for freeze in policy.freezes)):
        parse_text(text, what="pattern or reason")
    for gate in policy.gates:
        parse_text(gate.expression + gate.message, what="expression or message")
    _check_names([gate.name for gate in policy.gates], what="gate")
    _check_names([freeze.name for freeze in policy.freezes], what="freeze")
    for gate in policy.gates:
        try:
            compile_expression(gate.expression)
        except InvalidInput as error:
            raise InvalidInput(
                f"The gate {gate.name!r}: {error.detail}", hint=error.hint, gate=gate.name, **error.attributes
            ) from None
    for freeze in policy.freezes:
        check_freeze(freeze)
    _check_approvals(policy)
    _check_signatures(policy.signatures or SignaturePolicy())
    for region in policy.required_regions:
        load_catalog().region(region)
    for residency in policy.residency:
        if parse_residency(residency) != residency:
            raise InvalidInput(f"{residency!r} is written {residency.lower()!r}.")


def _check_approvals(policy: PromotionPolicy) -> None:
    if sum(each.count for each in policy.approvals) > APPROVALS_MAX or any(each.count < 1 for each in policy.approvals):
        raise InvalidInput(f"A policy asks for 1 to {APPROVALS_MAX} approvals.", hint="Change the counts.")
    for role in [*policy.override_roles, *(each.role for each in policy.approvals if each.role is not None)]:
        if len(parse_name(role, what="role")) > ROLE_MAX_LENGTH:
            raise InvalidInput(f"The role {role[:40]!r} is longer than {ROLE_MAX_LENGTH} characters.")


def _check_signatures(wanted: SignaturePolicy) -> None:
    if not 0 < wanted.count <= APPROVALS_MAX or len(wanted.signers) > PATTERNS_MAX:
        raise InvalidInput(
            f"A policy asks for 1 to {APPROVALS_MAX} signatures, of at most {PATTERNS_MAX} patterns of signers."
        )
    for pattern in wanted.signers:
        parse_text(pattern, what="pattern", max_length=PATTERN_MAX_LENGTH)


def assign(approvals: Sequence[Approvers], approvers: Sequence[Approver]) -> tuple[tuple[str, ...], ...]:
    """Who fills which request for approval: each principal fills one place, and as many are filled as can be."""
    places = [index for index, each in enumerate(approvals) for _ in range(each.count)]
    filled: dict[int, int] = {}

    def fill(person: int, tried: set[int]) -> bool:
        for place, index in enumerate(places):
            role = approvals[index].role
            if place in tried or (role is not None and role not in approvers[person].roles):
                continue
            tried.add(place)
            if place not in filled or fill(filled[place], tried):
                filled[place] = person
                return True
        return False

    for person in range(len(approvers)):
        fill(person, set())
    return tuple(
        tuple(approvers[filled[place]].principal for place, of in enumerate(places) if of == index and place in filled)
        for index in range(len(approvals))
    )


def _expression(policy: str, gate: ExpressionGate, asked: Asked) -> GateResult:
    found = compile_expression(gate.expression).evaluate(asked.facts, deadline=asked.deadline)
    verdict: Verdict = "passed" if found.is_true else "failed"
    values = ", ".join(f"{path} is {_said(value)}" for path, value in found.used.items()) or "no fact was asked"
    detail = f"{values}." if found.error is None else found.error.detail
    if verdict == "failed" and gate.message:
        detail = f"{detail} {gate.message}"
    return GateResult(
        gate=gate.name,
        value=None if found.is_true is None else str(found.is_true).lower(),
        limit="true",
        verdict=verdict,
        detail=detail,
        next_step=None if verdict == "passed" else _next_step(found.error, asked),
        policy=policy,
        expression=gate.expression,
        values=dict(found.used),
    )


def _signatures(policy: str, wanted: SignaturePolicy, asked: Asked) -> GateResult:
    facts = cast("Mapping[str, Mapping[str, float]]", asked.facts["signatures"])
    given = {signer: int(each["sequence"]) for signer, each in facts.items() if wanted.admits(signer)}
    verdict: Verdict = "passed" if len(given) >= wanted.count else "failed"
    by = ", ".join(f"{signer} (sequence {sequence})" for signer, sequence in given.items())
    whose = f" of {' or '.join(wanted.signers)}" if wanted.signers else ""
    return GateResult(
        gate="signatures",
        value=len(given),
        limit=wanted.count,
        verdict=verdict,
        detail=f"{len(given)} of {wanted.count} signatures{whose} count{f': {by}' if by else ''}.",
        next_step=None
        if verdict == "passed"
        else f"Whoever answers for it signs it: fairlead model sign {asked.candidate.reference} --key FILE",
        policy=policy,
    )


def _said(value: JsonValue) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _next_step(error: CannotEvaluate | None, asked: Asked) -> str:
    if error is not None and error.root == "champion":
        return f"No version holds {asked.facts.get('environment')} yet; let the gate say: champion == null || ..."
    if error is not None and error.root == "evaluations":
        return f"Record it: fairlead model evaluate {asked.candidate.reference} --name NAME --metric NAME=NUMBER"
    if error is not None and error.root == "metrics":
        return f"Register a version with the metric: fairlead model register --metric {error.member}=VALUE"
    return "Register a version that passes, or have the policy's owners change it."


def _freeze(policy: str, whole: PromotionPolicy, freeze: Freeze, asked: Asked) -> GateResult:
    until = frozen_until(freeze, asked.now)
    verdict: Verdict = "passed"
    detail, next_step = "It is not frozen now.", None
    if until is not None:
        detail = f"Frozen until {until_text(until)}: {freeze.reason}"
        overriding = sorted((asked.emergency_roles or frozenset()) & set(whole.override_roles))
        if overriding:
            verdict = "overridden"
            detail += f" Overridden in an emergency by {asked.requested_by} as {overriding[0]}."
        else:
            verdict = "failed"
            who = f" In an emergency, {' or '.join(whole.override_roles)}: --emergency." if whole.override_roles else ""
            next_step = f"Ask again after {until_text(until)}.{who}"
    return GateResult(
        gate=f"freeze {freeze.name}",
        value=None if until is None else until_text(until),
        limit="not frozen",
        verdict=verdict,
        detail=detail,
        next_step=next_step,
        policy=policy,
    )


def _approvals(policy: str, approvals: Sequence[Approvers], asked: Asked) -> Iterable[GateResult]:
    # Whoever asks never approves, whatever was recorded.
    others = [each for each in asked.approvers if each.principal != asked.requested_by]
    for wanted, given in zip(approvals, assign(approvals, others), strict=True):
        is_enough = len(given) >= wanted.count
        who = f" by {', '.join(given)}" if given else ""
        as_role = "" if wanted.role is None else f" as {wanted.role}"
        yield GateResult(
            gate=_title(wanted),
            value=len(given),
            limit=wanted.count,
            verdict="passed" if is_enough else "pending",
            detail=f"{len(given)} of {wanted.count} approvals{as_role}{who}.",
            next_step=None
            if is_enough
            else f"Someone other than the requester{as_role} runs: fairlead model approve PROMOTION",
            policy=policy,
        )


def _title(approvers: Approvers) -> str:
    return "approvals" if approvers.role is None else f"approvals by {approvers.role}"


def _is_like(patterns: Sequence[str], value: str) -> bool:
    return not patterns or any(fnmatchcase(value, pattern) for pattern in patterns)


def _check_names(names: Sequence[str], *, what: str) -> None:
    for name in names:
        parse_name(name, what=what)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"Two {what}s are called {twice!r}.", hint="Give each its own name.")
