"""What a promotion would do: the move, each gate's verdict, what is missing where and its price, what it touches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.ports import CopyPricing, DeploymentIndex, PricedCopy
from fairlead.registry import policy
from fairlead.registry.locations import FILLED_STATES
from fairlead.registry.policy import Candidate, GateResult
from fairlead.registry.tables import (
    AliasMoveRow,
    ArtifactRow,
    EnvironmentRow,
    LocationRow,
    ModelVersionRow,
    RegisteredModelRow,
    ReplicaRow,
)

VERIFIED = "VERIFIED"
_STATE_ORDER = (VERIFIED, "COPYING", "PENDING", "FAILED", "CORRUPT")


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
    """What a promotion would do, under one revision of the environment's policy."""

    from_version: int | None
    to_version: int
    policy_revision: int
    gates: tuple[GateResult, ...]
    missing_replicas: tuple[MissingReplica, ...]
    deployments: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether a gate refuses."""
        return any(gate.verdict == "failed" for gate in self.gates)

    @property
    def pending(self) -> bool:
        """Whether a gate waits for people."""
        return any(gate.verdict == "pending" for gate in self.gates)


def make_plan(
    session: Session,
    catalog: Catalog,
    deployments: DeploymentIndex,
    *,
    model: RegisteredModelRow,
    version: ModelVersionRow,
    environment: EnvironmentRow,
    held: int | None,
    approvers: tuple[str, ...],
    copies: CopyPricing | None = None,
) -> Plan:
    """Evaluate the environment's policy for a version and price what is missing."""
    wanted = policy.from_json(environment.policy)
    replicas = _replicas(session, version)
    candidate = Candidate(
        reference=f"{model.name}/{version.version}",
        metrics=version.metrics,
        replica_states={region: replica.state for region, replica in replicas.items()},
        held_by=_holders(session, version),
        approvers=approvers,
    )
    missing = [
        region for region in wanted.required_regions if region not in replicas or replicas[region].state != VERIFIED
    ]
    size = _size(session, version)
    priced = _price_together(copies, version, missing)
    return Plan(
        from_version=held,
        to_version=version.version,
        policy_revision=environment.revision,
        gates=policy.evaluate(wanted, candidate),
        missing_replicas=tuple(
            _as_priced(priced[region], region, replicas)
            if region in priced
            else _price(catalog, region, replicas, size)
            for region in missing
        ),
        deployments=tuple(deployments.following(model.workspace_id, model.name, environment.name)),
    )


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """A plan as it is kept and shown."""
    return {
        "moves": {"from": plan.from_version, "to": plan.to_version},
        "policy_revision": plan.policy_revision,
        "gates": [asdict(gate) for gate in plan.gates],
        "missing_replicas": [asdict(replica) for replica in plan.missing_replicas],
        "bytes": sum(replica.bytes or 0 for replica in plan.missing_replicas),
        "usd": sum(replica.usd or 0.0 for replica in plan.missing_replicas),
        "deployments": list(plan.deployments),
    }


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
