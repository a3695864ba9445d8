"""Which copies go first: those that a promotion to production waits for, then repairs, then the rest.

Production is the environment of the highest rank. It waits for a version's replicas where it holds that version, or
where somebody asked to promote it: the request awaits approval, or was refused within the last day, perhaps because
just these replicas are missing. Where the environment's policy names regions, those are the ones it waits for.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from fairlead.core.errors import BudgetExhausted
from fairlead.registry import policy, work
from fairlead.registry.promotion_record import AWAITING_APPROVAL, REFUSED
from fairlead.registry.replicas import REPLICATE, ReplicaKey
from fairlead.registry.tables import AliasRow, EnvironmentRow, ModelVersionRow, PromotionRow, WorkRow

_REFUSAL_COUNTS_FOR = timedelta(days=1)


def derive_priorities(session: Session, now: datetime) -> None:
    """Raise the copies that production waits for; one that a budget kept waiting is due at once."""
    usual = select(WorkRow).where(WorkRow.kind == REPLICATE, WorkRow.priority > work.PROMOTED)
    waiting: dict[str, list[WorkRow]] = {}
    for row in session.scalars(usual).all():
        waiting.setdefault(row.workspace_id, []).append(row)
    for workspace_id, rows in waiting.items():
        urgent = _find_urgent(session, workspace_id, rows, now)
        of_these = (WorkRow.workspace_id == workspace_id, WorkRow.id.in_(urgent))
        if urgent:
            session.execute(update(WorkRow).where(*of_these).values(priority=work.PROMOTED))
            held_up = (WorkRow.error_code == BudgetExhausted.code, WorkRow.not_before > now)
            session.execute(update(WorkRow).where(*of_these, *held_up).values(not_before=now))


def _find_urgent(session: Session, workspace_id: str, rows: list[WorkRow], now: datetime) -> list[str]:
    production = session.scalars(
        select(EnvironmentRow)
        .where(EnvironmentRow.workspace_id == workspace_id)
        .order_by(EnvironmentRow.rank.desc(), EnvironmentRow.name)
        .limit(1)
    ).one_or_none()
    if production is None:
        return []
    regions = policy.from_json(production.policy).required_regions
    artifacts = _awaited_artifacts(session, production, now)
    urgent: list[str] = []
    for row in rows:
        key = ReplicaKey.from_subject(row.workspace_id, row.subject)
        if (key.residency, key.artifact_digest) in artifacts and (not regions or row.region in regions):
            urgent.append(row.id)
    return urgent


def _awaited_artifacts(session: Session, production: EnvironmentRow, now: datetime) -> set[tuple[str, str]]:
    """Residency class and digest of what production holds or somebody asked to promote to it."""
    of_version = select(ModelVersionRow.residency, ModelVersionRow.artifact_digest).where(
        ModelVersionRow.workspace_id == production.workspace_id, ModelVersionRow.artifact_digest.is_not(None)
    )
    held = of_version.join(
        AliasRow,
        and_(
            AliasRow.workspace_id == ModelVersionRow.workspace_id,
            AliasRow.model_id == ModelVersionRow.model_id,
            AliasRow.version == ModelVersionRow.version,
        ),
    ).where(AliasRow.name == production.name)
    asked = of_version.join(
        PromotionRow,
        and_(
            PromotionRow.workspace_id == ModelVersionRow.workspace_id,
            PromotionRow.model_id == ModelVersionRow.model_id,
            PromotionRow.version == ModelVersionRow.version,
        ),
    ).where(
        PromotionRow.environment == production.name,
        or_(
            PromotionRow.state == AWAITING_APPROVAL,
            and_(PromotionRow.state == REFUSED, PromotionRow.requested_at > now - _REFUSAL_COUNTS_FOR),
        ),
    )
    return {(residency, digest or "") for query in (held, asked) for residency, digest in session.execute(query).all()}
