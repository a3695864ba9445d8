"""Aliases: movable pointers to versions, each move fenced by the revision it starts from.

`revision` counts an alias's moves from 1; 0 is an alias that was never set. A move names the revision that the caller
saw, and is refused where someone moved it since, so moves are linearizable: on PostgreSQL movers of one model queue
at its row, on SQLite every writer queues. Each move is kept with its reason, and makes the workspace's
`refs_revision` grow, after which signed refs are published again.

An environment is an alias that only a promotion or a roll-back moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import identity_key

from fairlead.core.db import Database
from fairlead.core.errors import AliasNotFound, Conflict, JsonValue, NotReady, StaleRevision
from fairlead.core.ids import parse_alias
from fairlead.core.ports import Clock
from fairlead.core.prepared import Prepared, run_together
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.models import find_model, lock_model, require_unarchived
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import (
    AliasMoveRow,
    AliasRow,
    EnvironmentRow,
    WorkspaceRow,
)
from fairlead.registry.version_records import READY, look_at_version
from fairlead.registry.visibility import require_change

MoveKind = Literal["set", "delete", "promote", "rollback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A pointer as it stands; `version` is None where it was deleted or, for an environment, never set."""

    name: str
    version: int | None
    revision: int
    moved_by: str | None
    moved_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """One move of a pointer. `revision` is the one that it made."""

    name: str
    kind: str
    from_version: int | None
    to_version: int | None
    revision: int
    promotion_id: str | None
    reason: str
    moved_by: str
    moved_at: datetime


class Aliases:
    """Sets, deletes and shows aliases, and the history of any pointer."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def set(self, caller: Caller, model: str, alias: str, version: int, *, expected_revision: int | None) -> AliasMove:
        """Point an alias at a READY version; with `expected_revision` None, wherever it pointed before.

        Raises:
            StaleRevision: if the alias is not at the expected revision (0 for one that was never set).
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
            NotReady: if the version's bytes are not verified.
            Archived: if the version is archived.
            Conflict: if the name belongs to an environment.
            InvalidName: if the name cannot be an alias.
        """
        return self._move(caller, model, alias, version, expected_revision)

    def delete(self, caller: Caller, model: str, alias: str, *, expected_revision: int | None) -> AliasMove:
        """Delete an alias; its history stays and its revisions go on.

        Raises:
            StaleRevision: if the alias is not at the expected revision.
            ModelNotFound, AliasNotFound: if there is no such thing.
            Conflict: if the name belongs to an environment.
        """
        return self._move(caller, model, alias, None, expected_revision)

    def get(self, caller: Caller, model: str, alias: str) -> Alias:
        """One pointer; an environment's is there, at revision 0, before it is set.

        Raises:
            ModelNotFound, AliasNotFound: if there is no such thing.
        """
        name = parse_alias(alias)
        with self._database.read() as session:
            model_row = find_model(session, caller.workspace_id, model)
            row = session.get(AliasRow, (model_row.workspace_id, model_row.id, name))
            if row is not None:
                return _to_alias(row)
            if session.get(EnvironmentRow, (caller.workspace_id, name)) is None:
                raise _alias_not_found(model_row, name)
            return Alias(name=name, version=None, revision=0, moved_by=None, moved_at=None)

    def list(self, caller: Caller, model: str, page: PageRequest) -> Page[Alias]:
        """The pointers of a model that stand somewhere, by name, environments among them.

        Raises:
            ModelNotFound: if there is no such model.
        """
        with self._database.read() as session:
            row = find_model(session, caller.workspace_id, model)
            query = select(AliasRow).where(
                AliasRow.workspace_id == row.workspace_id, AliasRow.model_id == row.id, AliasRow.version.is_not(None)
            )
            listing = ("aliases", row.workspace_id, row.id)
            return page.fetch(session, query, [AliasRow.name], listing=listing).map(_to_alias)

    def history(self, caller: Caller, model: str, alias: str, page: PageRequest) -> Page[AliasMove]:
        """The moves of a pointer, newest first; none where it was never set.

        Raises:
            ModelNotFound: if there is no such model.
        """
        name = parse_alias(alias)
        with self._database.read() as session:
            row = find_model(session, caller.workspace_id, model)
            query = select(AliasMoveRow).where(
                AliasMoveRow.workspace_id == row.workspace_id,
                AliasMoveRow.model_id == row.id,
                AliasMoveRow.name == name,
            )
            listing = ("history", row.workspace_id, row.id, name)
            rows = page.fetch(session, query, [AliasMoveRow.revision], listing=listing, descending=True)
            return rows.map(to_alias_move)

    def _move(
        self, caller: Caller, model: str, alias: str, version: int | None, expected_revision: int | None
    ) -> AliasMove:
        name = parse_alias(alias)
        with self._database.write() as session:
            model_row = lock_model(session, caller.workspace_id, model)
            _refuse_environment(session, model_row, name, version)
            if expected_revision is not None:
                check_revision(session, model_row, name, expected_revision)
            if version is None:
                if current_pointer(session, model_row, name)[0] is None:
                    raise _alias_not_found(model_row, name)
            else:
                version_row = look_at_version(session, model_row, version)
                require_unarchived(model_row, version_row)
                require_ready(model_row, version_row)
            move = move_pointer(
                session,
                caller,
                self._clock,
                model_row,
                name=name,
                to_version=version,
                kind="delete" if version is None else "set",
                facts={},
            )
            # Last, since all movers of a workspace take turns from here on.
            advance_refs(session, caller.workspace_id)
            # An environment may have taken the name until the workspace was locked, and none can now.
            _refuse_environment(session, model_row, name, version)
            return move


_ADVANCE_REFS = Prepared(
    update(WorkspaceRow)
    .where(WorkspaceRow.workspace_id == bindparam("in_workspace"))
    .values(refs_revision=WorkspaceRow.refs_revision + 1)
    # Nobody holds the row: what is read of it is read anew.
    .execution_options(synchronize_session=False)
)
_ENVIRONMENT = Prepared(
    select(EnvironmentRow.rank).where(
        EnvironmentRow.workspace_id == bindparam("in_workspace"), EnvironmentRow.name == bindparam("called")
    )
)
_OF_POINTER = (
    AliasRow.workspace_id == bindparam("in_workspace"),
    AliasRow.model_id == bindparam("of_model"),
    AliasRow.name == bindparam("called"),
)
_POINTER = Prepared(select(AliasRow.version, AliasRow.revision).where(*_OF_POINTER))
_MOVED = ("version", "revision", "moved_by", "moved_at")
_SET_POINTER = Prepared(
    insert(AliasRow.__table__),  # pyright: ignore[reportArgumentType]  (a table)
    columns=("workspace_id", "model_id", "name", *_MOVED),
)
_MOVE_POINTER = Prepared(
    update(AliasRow)
    .where(*_OF_POINTER)
    .values({name: bindparam(f"new_{name}", type_=AliasRow.__table__.c[name].type) for name in _MOVED})
    .execution_options(synchronize_session=False)
)
_KEEP_MOVE = Prepared(
    insert(AliasMoveRow.__table__),  # pyright: ignore[reportArgumentType]  (a table)
    columns=tuple(AliasMoveRow.__table__.columns.keys()),
)


def _refuse_environment(session: Session, model: Any, name: str, version: int | None) -> None:
    if _ENVIRONMENT.first(session, in_workspace=model.workspace_id, called=name) is not None:
        raise Conflict(
            f"{name!r} is an environment, which only a promotion or a roll-back moves.",
            hint=f"Run: fairlead model promote {model.name}/{version or 'VERSION'} --to {name}",
            environment=name,
        )


def advance_refs(session: Session, workspace_id: str) -> None:
    """Note that a pointer moves in this transaction. Locks the workspace: movers take it after their model."""
    _ADVANCE_REFS.run(session, {"in_workspace": workspace_id})


def current_pointer(session: Session, model: Any, name: str) -> tuple[int | None, int]:
    """The version and revision of a pointer; None and 0 where it was never set."""
    row = _POINTER.first(session, in_workspace=model.workspace_id, of_model=model.id, called=name)
    return (None, 0) if row is None else (row.version, row.revision)


def check_revision(session: Session, model: Any, name: str, expected: int) -> None:
    """Refuse a move that starts from a revision which is no longer current.

    Raises:
        StaleRevision: with `expected` and `actual`.
    """
    _, actual = current_pointer(session, model, name)
    if actual != expected:
        raise StaleRevision(
            f"{model.name}@{name} is at revision {actual}, not {expected}: someone moved it first.",
            hint=f"See who and why: fairlead model history {model.name}@{name}",
            expected=expected,
            actual=actual,
        )


def require_ready(model: Any, row: Any) -> None:
    """Refuse a version whose bytes are not verified: no pointer ever names one.

    Raises:
        NotReady: with the version's state.
    """
    if row.state != READY:
        because = f": {row.error_detail}" if row.error_detail else ""
        raise NotReady(
            f"{model.name}/{row.version} is {row.state}, not READY{because}.",
            hint=f"Wait for it, or look at it: fairlead model show {model.name}/{row.version}",
            state=row.state,
        )


def move_pointer(
    session: Session,
    caller: Caller,
    clock: Clock,
    model: Any,
    *,
    name: str,
    to_version: int | None,
    kind: MoveKind,
    facts: Mapping[str, JsonValue],
    reason: str = "",
    promotion_id: str | None = None,
) -> AliasMove:
    """Move a pointer of a locked model, whose revision was checked, and write its history and audit event.

    The caller has locked the model, and calls `advance_refs` in the same transaction.
    """
    is_of_environment = kind in {"promote", "rollback"}
    require_change(session, model.name)
    if is_of_environment:
        require_change(session, model.name, name)
    now = clock.now()
    from_version, before = current_pointer(session, model, name)
    revision = before + 1
    of_model = {"workspace_id": model.workspace_id, "model_id": model.id, "name": name}
    moved = {"version": to_version, "revision": revision, "moved_by": caller.principal, "moved_at": now}
    if before == 0:
        pointing = _SET_POINTER, {**of_model, **moved}
    else:
        of_pointer = {"in_workspace": model.workspace_id, "of_model": model.id, "called": name}
        pointing = _MOVE_POINTER, {**of_pointer, **{f"new_{key}": value for key, value in moved.items()}}
        held = session.identity_map.get(identity_key(AliasRow, tuple(of_model.values())))
        if held is not None:
            session.expire(held)
    move = AliasMove(
        name=name,
        revision=revision,
        kind=kind,
        from_version=from_version,
        to_version=to_version,
        promotion_id=promotion_id,
        reason=reason,
        moved_by=caller.principal,
        moved_at=now,
    )
    said: dict[str, JsonValue] = {
        "alias": name,
        "from": from_version,
        "to": to_version,
        "revision": revision,
        "reason": reason,
    }
    telling = audit.recording(
        caller,
        now,
        action=f"model.{kind}" if is_of_environment else f"alias.{kind}",
        subject=f"{model.name}@{name}" if to_version is None else f"{model.name}/{to_version}",
        residency=model.residency,
        facts={**facts, **said},
    )
    keeping = _KEEP_MOVE, {**of_model, **{each.name: getattr(move, each.name) for each in fields(move)}}
    run_together(session, pointing, keeping, telling)
    return move


def to_alias_move(row: AliasMoveRow) -> AliasMove:
    """A move as it was recorded."""
    return AliasMove(
        name=row.name,
        kind=row.kind,
        from_version=row.from_version,
        to_version=row.to_version,
        revision=row.revision,
        promotion_id=row.promotion_id,
        reason=row.reason,
        moved_by=row.moved_by,
        moved_at=row.moved_at,
    )


def _alias_not_found(model: Any, name: str) -> AliasNotFound:
    return AliasNotFound(
        f"{model.name!r} has no alias {name!r}.",
        hint=f"See its aliases with: fairlead model show {model.name}",
        model=model.name,
        alias=name,
    )


def _to_alias(row: AliasRow) -> Alias:
    return Alias(
        name=row.name, version=row.version, revision=row.revision, moved_by=row.moved_by, moved_at=row.moved_at
    )
