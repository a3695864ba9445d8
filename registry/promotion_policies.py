"""Promotion policies in the record: applied, shown, removed.

The present policy is in the row; every earlier one is in the audit event that replaced it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import JsonValue, PromotionPolicyNotFound
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.promotion_policy import PromotionPolicy, check_policy, from_json, to_json
from fairlead.registry.revisions import require_revision
from fairlead.registry.tables import EnvironmentRow, WorkspaceRow
from fairlead.registry.tables_governance import PromotionPolicyRow


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedPromotionPolicy:
    """A policy and its revision."""

    name: str
    policy: PromotionPolicy
    revision: int
    updated_by: str
    updated_at: datetime


class PromotionPolicies:
    """Applies, shows and removes promotion policies."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def list(self, caller: Caller, page: PageRequest) -> Page[AppliedPromotionPolicy]:
        """Policies by name."""
        query = select(PromotionPolicyRow).where(PromotionPolicyRow.workspace_id == caller.workspace_id)
        listing = ("promotion-policies", caller.workspace_id)
        with self._database.read() as session:
            return page.fetch(session, query, [PromotionPolicyRow.name], listing=listing).map(_to_applied)

    def get(self, caller: Caller, name: str) -> AppliedPromotionPolicy:
        """One policy.

        Raises:
            PromotionPolicyNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            return _to_applied(_find(session, caller, name))

    def put(
        self, caller: Caller, name: str, policy: PromotionPolicy, *, expected_revision: int | None
    ) -> AppliedPromotionPolicy:
        """Apply a policy: create it or replace it. Without an expected revision it replaces whatever is there.

        A policy that is there already, word for word, keeps its revision.

        Raises:
            InvalidInput: if the policy could not be evaluated; for an expression with `line` and `column`.
            StaleRevision: if it is not at the expected revision (0: not there).
        """
        parse_name(name, what="promotion policy")
        check_policy(policy)
        document: dict[str, JsonValue] = to_json(policy)
        with self._database.write() as session:
            _wait_for_promotions(session, caller.workspace_id)
            row = session.get(PromotionPolicyRow, (caller.workspace_id, name), with_for_update=True)
            before = None if row is None else dict(row.document)
            _check_revision(name, 0 if row is None else row.revision, expected_revision)
            if row is not None and before == document:
                return _to_applied(row)
            if row is None:
                row = PromotionPolicyRow(workspace_id=caller.workspace_id, name=name, revision=0)
                session.add(row)
            row.document, row.revision = document, row.revision + 1
            row.updated_by, row.updated_at = caller.principal, self._clock.now()
            session.flush()
            facts: Mapping[str, JsonValue] = {"revision": row.revision, "before": before, "after": document}
            audit.record(session, caller, self._clock, action="promotion-policy.apply", subject=name, facts=facts)
            return _to_applied(row)

    def delete(self, caller: Caller, name: str, *, expected_revision: int | None) -> None:
        """Remove a policy; what it asked for is asked for no longer.

        Raises:
            PromotionPolicyNotFound: if there is none of that name.
            StaleRevision: if it is not at the expected revision.
        """
        with self._database.write() as session:
            _wait_for_promotions(session, caller.workspace_id)
            row = _find(session, caller, name, lock=True)
            _check_revision(name, row.revision, expected_revision)
            facts: Mapping[str, JsonValue] = {"revision": row.revision, "before": dict(row.document)}
            session.delete(row)
            session.flush()
            audit.record(session, caller, self._clock, action="promotion-policy.delete", subject=name, facts=facts)


def governing(session: Session, workspace_id: str, model: str, environment: str) -> list[AppliedPromotionPolicy]:
    """The policies that a promotion of a model to an environment must pass, by name."""
    rows = session.scalars(
        select(PromotionPolicyRow)
        .where(PromotionPolicyRow.workspace_id == workspace_id)
        .order_by(PromotionPolicyRow.name)
        .execution_options(populate_existing=True)
    )
    return [applied for applied in map(_to_applied, rows) if applied.policy.governs(model, environment)]


def _wait_for_promotions(session: Session, workspace_id: str) -> None:
    # A promotion holds its environment while it is decided, so no policy changes under it. In the order in which
    # promotions take them: environments, then the workspace.
    environments = select(EnvironmentRow.name).where(EnvironmentRow.workspace_id == workspace_id)
    session.execute(environments.order_by(EnvironmentRow.name).with_for_update()).all()
    # Also what was never there: two that create one policy wait for each other here.
    session.get(WorkspaceRow, workspace_id, with_for_update={"key_share": True})


def _find(session: Session, caller: Caller, name: str, *, lock: bool = False) -> PromotionPolicyRow:
    key = (caller.workspace_id, parse_name(name, what="promotion policy"))
    row = session.get(PromotionPolicyRow, key, with_for_update=lock or None)
    if row is None:
        raise PromotionPolicyNotFound(f"There is no promotion policy {name[:80]!r}.", hint="See: fairlead policy list")
    return row


def _check_revision(name: str, actual: int, expected: int | None) -> None:
    require_revision(
        f"The promotion policy {name!r}",
        actual,
        expected,
        hint=f"Look at it and try again: fairlead policy show {name}",
    )


def _to_applied(row: PromotionPolicyRow) -> AppliedPromotionPolicy:
    return AppliedPromotionPolicy(
        name=row.name,
        policy=from_json(row.document),
        revision=row.revision,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )
