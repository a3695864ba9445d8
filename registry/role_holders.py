"""Who holds which role for a model in an environment: what approvals, overrides and roll-backs ask."""

from __future__ import annotations

from fnmatch import fnmatchcase

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.registry.identity import Caller
from fairlead.registry.tables_governance import RoleBindingRow

ON_CALL = "on-call"
"""The role that may roll an environment back."""


def held_roles(session: Session, caller: Caller, model: str, environment: str) -> frozenset[str]:
    """The roles that are bound to a caller for a model in an environment."""
    bindings = select(RoleBindingRow).where(
        RoleBindingRow.workspace_id == caller.workspace_id, RoleBindingRow.principal.in_(caller.holders())
    )
    return frozenset(
        binding.role
        for binding in session.scalars(bindings)
        if fnmatchcase(model, binding.models) and fnmatchcase(environment, binding.environments)
    )
