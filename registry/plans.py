"""What a promotion would do: the move, each gate's verdict, what is missing where and its price, what it touches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.errors import JsonValue
from fairlead.core.ids import sha256_digest
from fairlead.core.ports import BundleIndex, CopyPricing, DeploymentIndex, PricedCopy, SnapshotIndex
from fairlead.registry import policy, promotion_policy
from fairlead.registry.locations import FILLED_STATES
from fairlead.registry.policy import Candidate, GateResult
from fairlead.registry.promotion_policies import AppliedPromotionPolicy, governing
from fairlead.registry.promotion_policy import Approver, Asked
from fairlead.registry.tables import (
    AliasMoveRow,
    ArtifactRow,
    EnvironmentRow,
    LocationRow,
    ModelVersionRow,
    RegisteredModelRow,
    ReplicaRow,
)
from fairlead.registry.version_facts import snapshot_findings, version_facts
from fairlead.registry.version_records import find_version

VERIFIED = "VERIFIED"
DIGEST_PREFIX = "sha256:"
_STATE_ORDER = (VERIFIED, "COPYING", "PENDING", "FAILED", "CORRUPT")


class NoDeployments:
    """An index for a server that deploys nothing."""

    def following(self, workspace_id: str, model: str, environment: str) -> Sequence[str]:
        del workspace_id, model, environment
        return ()

    def pinned(self, workspace_id: str, model: str, version: int | None) -> Sequence[str]:
        del workspace_id, model, version
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingReplica:
    """A replica that a required region lacks.

    `bytes` is what a copy from `source_region` would move at most, `usd` its price; None where no region has a verified
    replica. The source may be another region that still lacks it: the cheapest way for all of them together is priced.
    `state` is None where none is on its way.
    """

    region: str
    bytes: int | None
    usd: float | None
    source_region: str | None
    state: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a promotion would do, under one revision of the environment's policy and of each that governs the model.

    `facts` are what an auditor asks of the version later; `basis` is what all of it rests on, each part by name, and
    changes when the plan might.
    """

    from_version: int | None
    to_version: int
    policy_revision: int
    policies: Mapping[str, int]
    gates: tuple[GateResult, ...]
    missing_replicas: tuple[MissingReplica, ...]
    deployments: tuple[str, ...]
    facts: Mapping[str, JsonValue]
    basis: Mapping[str, str]
    emergency_roles: frozenset[str] | None = None

    @property
    def failed(self) -> bool:
        """Whether a gate refuses."""
        return any(gate.verdict == "failed" for gate in self.gates)

    @property
    def pending(self) -> bool:
        """Whether a gate waits for people."""
        return any(gate.verdict == "pending" for gate in self.gates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to be planned: a version on its way to an environment that `held` holds, as of a pointer's revision."""

    model: RegisteredModelRow
    version: ModelVersionRow
    environment: EnvironmentRow
    held: int | None
    base_revision: int
    requested_by: str
    approvers: tuple[Approver, ...] = ()
    emergency_roles: frozenset[str] | None = None

    @property
    def reference(self) -> str:
        """`name/version`."""
        return f"{self.model.name}/{self.version.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What plans ask beside the record."""

    catalog: Catalog
    deployments: DeploymentIndex
    copies: CopyPricing | None = None
    bundles: BundleIndex | None = None
    snapshots: SnapshotIndex | None = None


def make_plan(session: Session, around: Surroundings, subject: Subject, now: datetime) -> Plan:
    """Evaluate every policy that governs a promotion and price what is missing."""
    model, version, environment = subject.model, subject.version, subject.environment
    wanted = policy.from_json(environment.policy)
    applied = governing(session, model.workspace_id, model.name, environment.name)
    replicas = _replicas(session, version)
    candidate = Candidate(
        reference=subject.reference,
        metrics=version.metrics,
        replica_states={region: replica.state for region, replica in replicas.items()},
        held_by=_holders(session, version),
        approvers=tuple(each.principal for each in subject.approvers if each.principal != subject.requested_by),
        residency=version.residency,
    )
    facts = _facts(session, around, subject, candidate.replica_states, now)
    asked = Asked(
        candidate=candidate,
        facts=facts,
        now=now,
        requested_by=subject.requested_by,
        approvers=subject.approvers,
        emergency_roles=subject.emergency_roles,
    )
    gates = [*policy.evaluate(wanted, candidate)]
    gates.extend(policy.expectation_gate(found) for found in snapshot_findings(around.snapshots, version))
    for each in applied:
        gates.extend(promotion_policy.evaluate(each.name, each.policy, asked))
    required = dict.fromkeys(
        [*wanted.required_regions, *(region for each in applied for region in each.policy.required_regions)]
    )
    missing = [region for region in required if region not in replicas or replicas[region].state != VERIFIED]
    return Plan(
        from_version=subject.held,
        to_version=version.version,
        policy_revision=environment.revision,
        policies={each.name: each.revision for each in applied},
        gates=tuple(gates),
        missing_replicas=_price_missing(session, around, version, replicas, missing),
        deployments=tuple(around.deployments.following(model.workspace_id, model.name, environment.name)),
        facts={
            "digest": version.artifact_digest,
            "residency": version.residency,
            "snapshot": version.snapshot_digest,
            "bundle": cast("str | None", facts["bundle"]),
            "replicas": dict(candidate.replica_states),
        },
        basis=_basis(subject, applied, facts),
        emergency_roles=subject.emergency_roles,
    )


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """A plan as it is kept and shown."""
    return {
        "moves": {"from": plan.from_version, "to": plan.to_version},
        "policy_revision": plan.policy_revision,
        "policies": dict(plan.policies),
        "gates": [asdict(gate) for gate in plan.gates],
        "missing_replicas": [asdict(replica) for replica in plan.missing_replicas],
        "bytes": sum(replica.bytes or 0 for replica in plan.missing_replicas),
        "usd": sum(replica.usd or 0.0 for replica in plan.missing_replicas),
        "deployments": list(plan.deployments),
        "facts": dict(plan.facts),
        "basis": dict(plan.basis),
        "fingerprint": fingerprint(plan.basis),
        "emergency_roles": None if plan.emergency_roles is None else sorted(plan.emergency_roles),
    }


def fingerprint(basis: Mapping[str, str]) -> str:
    """One digest of all that a plan rests on."""
    return _digest(dict(basis))


def changes_between(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs between two bases, in words."""
    found: list[str] = []
    for name in sorted({*before, *now}):
        was, is_now = before.get(name), now.get(name)
        if was == is_now:
            continue
        if was is None or is_now is None:
            found.append(f"{name} is {'new' if was is None else 'gone'}")
        elif was.startswith(DIGEST_PREFIX):
            found.append(f"{name} changed")
        else:
            found.append(f"{name} was {was[:80]} and is {is_now[:80]}")
    return found


def _facts(
    session: Session, around: Surroundings, subject: Subject, replica_states: Mapping[str, str], now: datetime
) -> dict[str, Any]:
    """The facts that expressions see, shaped as `CONTEXT` says."""
    champion = None
    if subject.held is not None:
        holder = find_version(session, subject.model, subject.held)
        states = {region: replica.state for region, replica in _replicas(session, holder).items()}
        champion = _facts_of(session, around, subject.model, holder, states, now)
    own = _facts_of(session, around, subject.model, subject.version, replica_states, now)
    return {
        **own,
        "champion": champion,
        "model": subject.model.name,
        "environment": subject.environment.name,
        "requested_by": subject.requested_by,
        "now": now,
    }


def _facts_of(  # noqa: PLR0917  (of either version)
    session: Session,
    around: Surroundings,
    model: RegisteredModelRow,
    version: ModelVersionRow,
    replica_states: Mapping[str, str],
    now: datetime,
) -> dict[str, Any]:
    return version_facts(
        session,
        model,
        version,
        replica_states=replica_states,
        bundles=around.bundles,
        snapshots=around.snapshots,
        now=now,
    )


def _basis(subject: Subject, applied: Sequence[AppliedPromotionPolicy], facts: Mapping[str, Any]) -> dict[str, str]:
    """What a plan rests on, but for the time. Plain texts are shown when they change, digests are not."""
    name = subject.environment.name
    basis = {
        f"the pointer {name}": f"at revision {subject.base_revision}",
        f"the policy of {name}": f"at revision {subject.environment.revision}",
        "the state of the version": subject.version.state,
    }
    basis |= {f"the promotion policy {each.name}": f"at revision {each.revision}" for each in applied}
    sides: list[tuple[str, Mapping[str, Any]]] = [("the version", facts), ("the champion", facts["champion"] or {})]
    for whose, known in sides:
        for fact in ("metrics", "tags", "params", "signature", "lineage", "digest"):
            if fact in known:
                basis[f"{fact} of {whose}"] = _digest(known[fact])
        if known:
            basis[f"expectations of {whose}'s snapshot"] = _digest(known["expectations"])
            basis[f"the bundle of {whose}"] = known["bundle"] or "none"
            basis[f"signatures of {whose}"] = ", ".join(sorted(known["signatures"])) or "none"
        evaluations: Mapping[str, Any] = known.get("evaluations") or {}
        for evaluation, found in evaluations.items():
            measured = {"metrics": found["metrics"], "dataset": found["dataset"]}
            basis[f"the evaluation {evaluation} of {whose}"] = _digest(measured)
    basis |= {f"the replica in {region}": state for region, state in facts["replicas"].items()}
    return basis


def _digest(value: object) -> str:
    # Not canonical JSON, which has no floats: only this server's own texts are compared.
    return sha256_digest(json.dumps(value, sort_keys=True).encode())


def _replicas(session: Session, version: ModelVersionRow) -> dict[str, ReplicaRow]:
    """The replica in the best state in each region that has one."""
    query = (
        select(LocationRow.region, ReplicaRow)
        .join(
            ReplicaRow,
            (ReplicaRow.workspace_id == LocationRow.workspace_id) & (ReplicaRow.location_id == LocationRow.id),
        )
        .where(
            ReplicaRow.workspace_id == version.workspace_id,
            ReplicaRow.residency == version.residency,
            ReplicaRow.artifact_digest == version.artifact_digest,
            # What is being retired is no place to promote to.
            LocationRow.state.in_(FILLED_STATES),
        )
        .order_by(LocationRow.name)
    )
    best: dict[str, ReplicaRow] = {}
    for region, replica in session.execute(query):
        if region not in best or _rank(replica) < _rank(best[region]):
            best[region] = replica
    return best


def _rank(replica: ReplicaRow) -> int:
    return _STATE_ORDER.index(replica.state) if replica.state in _STATE_ORDER else len(_STATE_ORDER)


def _holders(session: Session, version: ModelVersionRow) -> frozenset[str]:
    query = select(AliasMoveRow.name).where(
        AliasMoveRow.workspace_id == version.workspace_id,
        AliasMoveRow.model_id == version.model_id,
        AliasMoveRow.to_version == version.version,
        AliasMoveRow.kind.in_(["promote", "rollback"]),
    )
    return frozenset(session.scalars(query))


def _size(session: Session, version: ModelVersionRow) -> int | None:
    if version.artifact_digest is None:
        return None
    artifact = session.get(ArtifactRow, (version.workspace_id, version.residency, version.artifact_digest))
    return None if artifact is None else artifact.size_bytes


def _price_missing(
    session: Session,
    around: Surroundings,
    version: ModelVersionRow,
    replicas: Mapping[str, ReplicaRow],
    missing: Sequence[str],
) -> tuple[MissingReplica, ...]:
    size = _size(session, version)
    priced = _price_together(around.copies, version, missing)
    return tuple(
        _as_priced(priced[region], region, replicas)
        if region in priced
        else _price(around.catalog, region, replicas, size)
        for region in missing
    )


def _price_together(
    copies: CopyPricing | None, version: ModelVersionRow, regions: Sequence[str]
) -> Mapping[str, PricedCopy]:
    """The copies to all these regions, by the way that is cheapest for them together."""
    if copies is None or version.artifact_digest is None or not regions:
        return {}
    return copies.price_copies(version.workspace_id, version.residency, version.artifact_digest, regions)


def _as_priced(copy: PricedCopy, region: str, replicas: Mapping[str, ReplicaRow]) -> MissingReplica:
    present = replicas.get(region)
    return MissingReplica(
        region=region,
        bytes=copy.bytes,
        usd=float(copy.usd),
        source_region=copy.source_region,
        state=None if present is None else present.state,
    )


def _price(catalog: Catalog, region: str, replicas: Mapping[str, ReplicaRow], size: int | None) -> MissingReplica:
    present = replicas.get(region)
    offers: list[tuple[float, str, int]] = []
    for source, replica in replicas.items():
        moved = replica.stored_bytes if replica.stored_bytes is not None else size
        if replica.state == VERIFIED and moved is not None:
            offers.append((catalog.transfer_cost(source, region, moved).value, source, moved))
    usd, source_region, moved_bytes = min(offers) if offers else (None, None, size)
    return MissingReplica(
        region=region,
        bytes=moved_bytes,
        usd=usd,
        source_region=source_region,
        state=None if present is None else present.state,
    )
