"""What the record keeps of promotions, and how it is read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fairlead.core.errors import JsonValue, PromotionNotFound
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_row_id
from fairlead.registry.tables import ApprovalRow, PromotionRow, RegisteredModelRow

PLANNED, AWAITING_APPROVAL = "PLANNED", "AWAITING_APPROVAL"
APPLIED, REFUSED, REJECTED, STALE = "APPLIED", "REFUSED", "REJECTED", "STALE"
WITHDRAWN = "WITHDRAWN"
STATES = (AWAITING_APPROVAL, APPLIED, REFUSED, REJECTED, WITHDRAWN, STALE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One principal's word on a promotion, with the roles that it held for it then."""

    principal: str
    is_approval: bool
    comment: str
    decided_at: datetime
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A promotion. `id` is None for a dry run, which is not kept; `revision` is what applying it made."""

    id: str | None
    state: str
    reference: str
    environment: str
    base_revision: int
    revision: int | None
    reason: str
    plan: Mapping[str, Any]
    requested_by: str
    requested_at: datetime
    approvals: tuple[Approval, ...]
    finished_at: datetime | None


def retire_rivals(
    session: Session, model: RegisteredModelRow, environment: str, now: datetime, *, keep: str | None = None
) -> None:
    """Mark the promotions that waited for a pointer that now moves."""
    session.execute(
        update(PromotionRow)
        .where(
            PromotionRow.workspace_id == model.workspace_id,
            PromotionRow.model_id == model.id,
            PromotionRow.environment == environment,
            PromotionRow.state == AWAITING_APPROVAL,
            PromotionRow.id != (keep or ""),
        )
        .values(state=STALE, finished_at=now)
    )


def find_promotion(session: Session, caller: Caller, promotion_id: str) -> PromotionRow:
    """The row of a promotion.

    Raises:
        PromotionNotFound: if the workspace has none with that id.
    """
    row_id = parse_row_id(promotion_id, PromotionNotFound, what="promotion")
    row = session.get(PromotionRow, (caller.workspace_id, row_id))
    if row is None:
        raise PromotionNotFound(f"There is no promotion {row_id!r}.", hint="List them with: fairlead model promotions")
    return row


def record_event(
    session: Session,
    caller: Caller,
    now: datetime,
    *,
    action: str,
    of: tuple[RegisteredModelRow, PromotionRow],
    facts: Mapping[str, JsonValue] | None = None,
) -> None:
    """Write an audit event about a promotion."""
    model, row = of
    about: dict[str, JsonValue] = {
        "promotion": row.id,
        "environment": row.environment,
        "base_revision": row.base_revision,
        "requested_by": row.requested_by,
    }
    audit.record_at(
        session,
        caller,
        now,
        action=action,
        subject=f"{model.name}/{row.version}",
        residency=model.residency,
        facts={**about, **(facts or {})},
    )


def words_on(session: Session, rows: Sequence[PromotionRow]) -> dict[str, tuple[Approval, ...]]:
    """What was said on each promotion, by its id, in order of time."""
    words: dict[str, tuple[Approval, ...]] = {row.id: () for row in rows}
    if rows:
        query = (
            select(ApprovalRow)
            .where(ApprovalRow.workspace_id == rows[0].workspace_id, ApprovalRow.promotion_id.in_(words))
            .order_by(ApprovalRow.decided_at, ApprovalRow.principal)
        )
        for word in session.scalars(query):
            approval = Approval(
                principal=word.principal,
                is_approval=word.is_approval,
                comment=word.comment,
                decided_at=word.decided_at,
                roles=tuple(word.roles),
            )
            words[word.promotion_id] += (approval,)
    return words


def render_promotions(session: Session, rows: Sequence[PromotionRow]) -> list[Promotion]:
    """Promotions as they are shown."""
    if not rows:
        return []
    words = words_on(session, rows)
    models = select(RegisteredModelRow.id, RegisteredModelRow.name).where(
        RegisteredModelRow.workspace_id == rows[0].workspace_id,
        RegisteredModelRow.id.in_({row.model_id for row in rows}),
    )
    names = dict(session.execute(models).all())
    return [
        Promotion(
            id=row.id,
            state=row.state,
            reference=f"{names[row.model_id]}/{row.version}",
            environment=row.environment,
            base_revision=row.base_revision,
            revision=row.revision,
            reason=row.reason,
            plan=row.plan,
            requested_by=row.requested_by,
            requested_at=row.requested_at,
            approvals=words[row.id],
            finished_at=row.finished_at,
        )
        for row in rows
    ]
