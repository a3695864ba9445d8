"""Role bindings: that somebody, or a group, has a role for some models and environments.

A role is a built-in one (`permissions.ROLES`), which gives scopes to tokens that go by roles; or a name that promotion
policies ask for (`risk-officer`), or `on-call`, which may roll back. The latter give no scope: they say for which
models and environments their holder's word counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput, RoleBindingNotFound
from fairlead.core.ids import NAME_MAX_LENGTH, parse_name
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import GROUP_PREFIX, Caller, parse_principal
from fairlead.registry.limits import parse_row_id, parse_text
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.permissions import ROLES, is_grantable
from fairlead.registry.promotion_policy import ROLE_MAX_LENGTH
from fairlead.registry.tables import WorkspaceRow
from fairlead.registry.tables_governance import RoleBindingRow


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleBinding:
    """That `principal` (or `group:NAME`) has a role; `models` and `environments` are patterns."""

    id: str
    principal: str
    role: str
    models: str
    environments: str
    created_by: str
    created_at: datetime


class RoleBindings:
    """Binds roles, shows who has which, and takes them away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def bind(
        self,
        caller: Caller,
        *,
        principal: str,
        role: str,
        models: str = "*",
        environments: str = "*",
        key: IdempotencyKey | None = None,
    ) -> RoleBinding:
        """Bind a role; one that is bound already is answered as it is.

        Raises:
            InvalidName, InvalidInput: if a part is not valid.
        """
        wanted = {
            "principal": _parse_holder(principal),
            "role": _parse_role(role),
            "models": _parse_pattern(models, what="models"),
            "environments": _parse_pattern(environments, what="environments"),
        }

        if role in ROLES and not (is_grantable(models) and is_grantable(environments)):
            raise InvalidInput(
                f"The role {role!r} is bound for patterns of * and ? alone.", hint="Bind it once for each name instead."
            )

        def bind(session: Session) -> RoleBinding:
            # Two that bind the same wait for each other here.
            session.get(WorkspaceRow, caller.workspace_id, with_for_update={"key_share": True})
            query = select(RoleBindingRow).filter_by(workspace_id=caller.workspace_id, **wanted)
            row = session.scalars(query).one_or_none()
            if row is None:
                row = RoleBindingRow(
                    workspace_id=caller.workspace_id,
                    **wanted,
                    created_by=caller.principal,
                    created_at=self._clock.now(),
                )
                session.add(row)
                session.flush()
                audit.record(session, caller, self._clock, action="role.bind", subject=row.id, facts={**wanted})
            return _to_binding(row)

        with self._database.write() as session:
            return run_once(session, caller, self._clock, key, result_type=RoleBinding, action=lambda: bind(session))

    def list(self, caller: Caller, page: PageRequest, *, principal: str | None = None) -> Page[RoleBinding]:
        """Bindings, oldest first."""
        query = select(RoleBindingRow).where(RoleBindingRow.workspace_id == caller.workspace_id)
        if principal is not None:
            query = query.where(RoleBindingRow.principal == _parse_holder(principal))
        listing = ("role-bindings", caller.workspace_id, principal)
        with self._database.read() as session:
            return page.fetch(session, query, [RoleBindingRow.id], listing=listing).map(_to_binding)

    def unbind(self, caller: Caller, binding_id: str) -> None:
        """Take a role away; what was approved in it stays approved.

        Raises:
            RoleBindingNotFound: if there is no such binding.
        """
        row_id = parse_row_id(binding_id, RoleBindingNotFound, what="role binding")
        with self._database.write() as session:
            row = session.get(RoleBindingRow, (caller.workspace_id, row_id), with_for_update=True)
            if row is None:
                raise RoleBindingNotFound(f"There is no role binding {row_id!r}.", hint="See: fairlead role list")
            facts = {
                "principal": row.principal,
                "role": row.role,
                "models": row.models,
                "environments": row.environments,
            }
            session.delete(row)
            audit.record(session, caller, self._clock, action="role.unbind", subject=row_id, facts={**facts})


def _parse_holder(text: str) -> str:
    if text.startswith(GROUP_PREFIX):
        return GROUP_PREFIX + parse_name(text.removeprefix(GROUP_PREFIX), what="group")
    return parse_principal(text)


def _parse_role(text: str) -> str:
    if len(parse_name(text, what="role")) > ROLE_MAX_LENGTH:
        raise InvalidInput(f"The role {text[:40]!r} is longer than {ROLE_MAX_LENGTH} characters.", hint="Shorten it.")
    return text


def _parse_pattern(text: str, *, what: str) -> str:
    if not text:
        raise InvalidInput(f"The pattern of {what} is empty.", hint="Write * for all.")
    return parse_text(text, what=f"pattern of {what}", max_length=NAME_MAX_LENGTH)


def _to_binding(row: RoleBindingRow) -> RoleBinding:
    return RoleBinding(
        id=row.id,
        principal=row.principal,
        role=row.role,
        models=row.models,
        environments=row.environments,
        created_by=row.created_by,
        created_at=row.created_at,
    )
