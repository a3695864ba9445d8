"""Roll-back: an environment moves back to a version that held it, at once.

It is for three in the morning: whoever is on call (or an admin) may do it alone, with a reason. Neither approval nor
freeze nor gate stands in the way, since the version passed them when it came. What it did not ask is said in the answer
and kept in the audit event. The revision fence holds here too, and only a recent holder is a way back: to another
version one promotes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import Conflict, InvalidInput, PermissionDenied
from fairlead.core.ports import Clock
from fairlead.registry import policy, promotion_policy
from fairlead.registry.aliases import (
    AliasMove,
    advance_refs,
    check_revision,
    current_pointer,
    move_pointer,
    require_ready,
)
from fairlead.registry.environments import find_environment
from fairlead.registry.identity import Caller
from fairlead.registry.limits import REASON_MAX_LENGTH, parse_text
from fairlead.registry.models import find_model
from fairlead.registry.promotion_policies import governing
from fairlead.registry.promotion_record import retire_rivals
from fairlead.registry.role_holders import ON_CALL, held_roles
from fairlead.registry.tables import AliasMoveRow, RegisteredModelRow
from fairlead.registry.version_records import find_version

RECENT_HOLDERS = 5
"""So many different versions before the present one are a way back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """A move back, and the gates of all policies that it did not ask again."""

    move: AliasMove
    not_rechecked: tuple[str, ...]


class Rollbacks:
    """Moves environments back."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def move_back(
        self,
        caller: Caller,
        model: str,
        environment: str,
        *,
        expected_revision: int,
        reason: str,
        to_version: int | None = None,
    ) -> Rollback:
        """Move an environment back to a recent holder, by default the one that held it before this one.

        No gate is asked again. Rolling back twice in a row therefore returns to where one began.

        Raises:
            PermissionDenied: if the caller is neither on call for the model and environment nor an admin.
            StaleRevision: if the environment's pointer is not at the expected revision.
            Conflict: if there is no such holder among the last five.
            InvalidInput: if no reason is given.
            ModelNotFound, ModelVersionNotFound, EnvironmentNotFound: if there is no such thing.
        """
        if not parse_text(reason, what="reason", max_length=REASON_MAX_LENGTH).strip():
            raise InvalidInput("A roll-back needs a reason.", hint="Say why; it is kept with the move: --reason TEXT")
        with self._database.write() as session:
            model_row = find_model(session, caller.workspace_id, model, lock=True)
            advance_refs(session, caller.workspace_id)
            environment_row = find_environment(session, caller.workspace_id, environment)
            _require_on_call(session, caller, model_row, environment_row.name)
            check_revision(session, model_row, environment_row.name, expected_revision)
            if to_version is not None:
                find_version(session, model_row, to_version)
            target = _holder_to_return_to(session, model_row, environment_row.name, to_version)
            require_ready(model_row, find_version(session, model_row, target))
            skipped = policy.gate_names(policy.from_json(environment_row.policy))
            for applied in governing(session, caller.workspace_id, model_row.name, environment_row.name):
                skipped += promotion_policy.gate_names(applied.name, applied.policy)
            retire_rivals(session, model_row, environment_row.name, self._clock.now())
            move = move_pointer(
                session,
                caller,
                self._clock,
                model_row,
                name=environment_row.name,
                to_version=target,
                kind="rollback",
                facts={"not_rechecked": [*skipped]},
                reason=reason,
            )
            return Rollback(move=move, not_rechecked=skipped)


def _require_on_call(session: Session, caller: Caller, model: RegisteredModelRow, environment: str) -> None:
    if caller.may("admin") or ON_CALL in held_roles(session, caller, model.name, environment):
        return
    raise PermissionDenied(
        f"{caller.principal!r} is not on call for {model.name}@{environment}.",
        hint=f"An admin runs: fairlead role bind {caller.principal} {ON_CALL} --models {model.name} "
        f"--environments {environment}",
        role=ON_CALL,
    )


def _holder_to_return_to(session: Session, model: RegisteredModelRow, name: str, to_version: int | None) -> int:
    held, _ = current_pointer(session, model, name)
    moves = (
        select(AliasMoveRow.to_version)
        .where(
            AliasMoveRow.workspace_id == model.workspace_id,
            AliasMoveRow.model_id == model.id,
            AliasMoveRow.name == name,
            AliasMoveRow.to_version.is_not(None),
            AliasMoveRow.to_version != held,
        )
        .group_by(AliasMoveRow.to_version)
        .order_by(func.max(AliasMoveRow.revision).desc())
    )
    holders = [cast("int", version) for version in session.scalars(moves)]
    recent = holders[:RECENT_HOLDERS]
    if recent and to_version is None:
        return recent[0]
    if to_version in recent:
        return to_version
    if to_version is None:
        detail = f"No version of {model.name!r} held {name} before the present one."
    elif to_version == held:
        detail = f"{name} holds {model.name}/{to_version} already."
    elif to_version in holders:
        detail = (
            f"{model.name}/{to_version} held {name}, but {RECENT_HOLDERS} other versions have since: promote it again."
        )
    else:
        detail = f"{model.name}/{to_version} never held {name}, so there is no way back to it."
    raise Conflict(detail, hint=f"See who held it: fairlead model history {model.name}@{name}")
