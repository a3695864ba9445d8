"""What an auditor asks: which version held a name at a time, by whose word, through which gates, and what it was.

The answer is put together from what was recorded when the pointer moved; what has happened since changes nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.clock import format_time
from fairlead.core.db import Database
from fairlead.core.errors import AliasNotFound
from fairlead.core.ids import parse_alias
from fairlead.core.ports import BundleIndex, Clock
from fairlead.registry.aliases import AliasMove, to_alias_move
from fairlead.registry.identity import Caller
from fairlead.registry.models import find_model
from fairlead.registry.promotion_record import APPLIED, Promotion, render_promotions
from fairlead.registry.tables import (
    AliasMoveRow,
    AuditEventRow,
    LocationRow,
    ModelVersionRow,
    PromotionRow,
    RegisteredModelRow,
    ReplicaRow,
)
from fairlead.registry.version_records import find_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A version that held a name at a time.

    `promotion` is the one by which it came, with gates, values and approvers; for a roll-back the last one by which the
    version had come before, and `not_rechecked` are the gates that the roll-back did not ask. `regions` are those that
    had verified every byte by then. `audit_sequence` is the sealed event that says so.
    """

    reference: str
    at: datetime
    move: AliasMove
    artifact_digest: str | None
    residency: str
    snapshot_digest: str | None
    feature_service: str | None
    run_id: str | None
    code_commit: str | None
    parent_version: int | None
    bundle: str | None
    regions: tuple[str, ...]
    promotion: Promotion | None
    not_rechecked: tuple[str, ...]
    audit_sequence: int | None
    event_hash: str | None


class History:
    """Answers for the past."""

    def __init__(self, database: Database, clock: Clock, bundles: BundleIndex | None = None) -> None:
        self._database = database
        self._clock = clock
        self._bundles = bundles

    def held_at(self, caller: Caller, model: str, alias: str, at: datetime | None = None) -> Holding:
        """The version that held an alias or environment at a time; None: now.

        Raises:
            ModelNotFound: if there is no such model.
            AliasNotFound: if nothing held the name then.
        """
        name = parse_alias(alias)
        moment = self._clock.now() if at is None else at
        with self._database.read() as session:
            row = find_model(session, caller.workspace_id, model)
            move = session.scalars(
                select(AliasMoveRow)
                .where(
                    AliasMoveRow.workspace_id == row.workspace_id,
                    AliasMoveRow.model_id == row.id,
                    AliasMoveRow.name == name,
                    AliasMoveRow.moved_at <= moment,
                )
                .order_by(AliasMoveRow.revision.desc())
                .limit(1)
            ).one_or_none()
            if move is None or move.to_version is None:
                raise AliasNotFound(
                    f"No version of {row.name!r} held {name!r} at {format_time(moment)}.",
                    hint=f"See its moves with: fairlead model history {row.name}@{name}",
                    model=row.name,
                    alias=name,
                )
            return self._render(session, row, move, find_version(session, row, move.to_version), moment)

    def _render(
        self,
        session: Session,
        model: RegisteredModelRow,
        move: AliasMoveRow,
        version: ModelVersionRow,
        at: datetime,
    ) -> Holding:
        promotion = _promotion(session, move)
        facts = cast("Mapping[str, Any]", (promotion.plan.get("facts") if promotion else None) or {})
        event = _event(session, model, move)
        bundle = facts.get("bundle")
        if bundle is None and self._bundles is not None:
            bundle = self._bundles.bundle_of(model.workspace_id, model.id, version.version)
        return Holding(
            reference=f"{model.name}/{version.version}",
            at=at,
            move=to_alias_move(move),
            artifact_digest=version.artifact_digest,
            residency=version.residency,
            snapshot_digest=version.snapshot_digest,
            feature_service=version.feature_service,
            run_id=version.run_id,
            code_commit=version.code_commit,
            parent_version=version.parent_version,
            bundle=bundle,
            regions=_regions(session, version, facts, at),
            promotion=promotion,
            not_rechecked=tuple(cast("list[str]", event.facts.get("not_rechecked") or []) if event else ()),
            audit_sequence=None if event is None else event.sequence,
            event_hash=None if event is None else event.event_hash,
        )


def _promotion(session: Session, move: AliasMoveRow) -> Promotion | None:
    query = select(PromotionRow).where(
        PromotionRow.workspace_id == move.workspace_id,
        PromotionRow.model_id == move.model_id,
        PromotionRow.environment == move.name,
        PromotionRow.version == move.to_version,
        PromotionRow.state == APPLIED,
        PromotionRow.revision <= move.revision,
    )
    row = session.scalars(query.order_by(PromotionRow.revision.desc()).limit(1)).one_or_none()
    return None if row is None else render_promotions(session, [row])[0]


def _event(session: Session, model: RegisteredModelRow, move: AliasMoveRow) -> AuditEventRow | None:
    query = select(AuditEventRow).where(
        AuditEventRow.workspace_id == model.workspace_id,
        AuditEventRow.happened_at == move.moved_at,
        AuditEventRow.subject == f"{model.name}/{move.to_version}",
        AuditEventRow.action.in_([f"model.{move.kind}", f"alias.{move.kind}"]),
    )
    said = (move.name, move.revision)
    return next(
        (event for event in session.scalars(query) if (event.facts.get("alias"), event.facts.get("revision")) == said),
        None,
    )


def _regions(session: Session, version: ModelVersionRow, facts: Mapping[str, Any], at: datetime) -> tuple[str, ...]:
    query = (
        select(LocationRow.region)
        .join(
            ReplicaRow,
            (ReplicaRow.workspace_id == LocationRow.workspace_id) & (ReplicaRow.location_id == LocationRow.id),
        )
        .where(
            ReplicaRow.workspace_id == version.workspace_id,
            ReplicaRow.residency == version.residency,
            ReplicaRow.artifact_digest == version.artifact_digest,
            ReplicaRow.verified_at <= at,
        )
    )
    recorded = cast("Mapping[str, str]", facts.get("replicas") or {})
    return tuple(sorted({*session.scalars(query), *(name for name, state in recorded.items() if state == "VERIFIED")}))
