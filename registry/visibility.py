"""What a caller who may not see everything sees: the rows of their models, as if there were no others.

A request of such a caller is narrowed once, where its permission is checked. Every session that it opens then finds
the rows of visible models alone, whoever asks and however, so that what is hidden is answered like what is not there;
and it writes no row of a model or environment that the caller may not change. Callers who may do something everywhere
are not narrowed, and pay nothing.

Rows are of a model if they have a `model_id`. Artifacts, replicas, uploads and approvals are of the versions, bundles
and promotions that name them. All other rows are the workspace's: routes that show them are not open to the narrowed.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import and_, event, or_, select, true
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from fairlead.core.db import Base, watch_sessions
from fairlead.core.errors import PermissionDenied
from fairlead.core.prepared import WATCHED
from fairlead.registry.permissions import Patterns, Scope
from fairlead.registry.tables import (
    AliasMoveRow,
    ApprovalRow,
    ArtifactRow,
    AuditEventRow,
    ModelVersionRow,
    PromotionRow,
    RegisteredModelRow,
    ReplicaRow,
    UploadRow,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from sqlalchemy import ColumnElement, FromClause, Select
    from sqlalchemy.sql.base import ExecutableOption

    from fairlead.registry.identity import Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """A caller who holds the scope of their request for some models and environments only."""

    caller: Caller
    scope: Scope

    def require(self, model: str, environment: str | None) -> None:
        """Refuse what the caller may not do to a model, in an environment (None: in none).

        Raises:
            PermissionDenied: if no grant covers both.
        """
        if self.caller.may(self.scope, model=model, environment=environment):
            return
        where = "" if environment is None else f" in {environment!r}"
        raise PermissionDenied(
            f"{self.caller.principal!r} may not do this to {model!r}{where}: it needs the scope {self.scope!r} there.",
            hint="Ask an admin for a role: fairlead role bind",
            scope=self.scope,
        )

    def criteria(self, *scopes: Scope) -> list[ExecutableOption]:
        """What every statement is narrowed by: the models for which the caller holds one of the scopes."""
        if any(self.caller.may(scope) for scope in scopes):
            return []
        models = RegisteredModelRow.__table__
        is_ours = models.c.workspace_id == self.caller.workspace_id
        granted = [grant.models for grant in self.caller.grants if not grant.scopes.isdisjoint(scopes)]
        seen = select(models.c.id).where(is_ours, _any_match(models.c.name, granted))
        return [
            with_loader_criteria(entity, criterion, include_aliases=True)
            for entity, criterion in (
                (RegisteredModelRow, _any_match(RegisteredModelRow.name, granted)),
                *((entity, entity.model_id.in_(seen)) for entity in _rows_of_models()),
                (ApprovalRow, ApprovalRow.promotion_id.in_(_column(PromotionRow, "id", seen))),
                (UploadRow, self._is_seen_upload(seen)),
                (ArtifactRow, self._is_seen_digest(ArtifactRow.digest, seen)),
                (ReplicaRow, self._is_seen_digest(ReplicaRow.artifact_digest, seen)),
                (AuditEventRow, _is_of_models(granted)),
            )
        ]

    def _is_seen_upload(self, seen: Select[Any]) -> ColumnElement[bool]:
        own = UploadRow.created_by == self.caller.principal
        return or_(own, UploadRow.id.in_(_column(ModelVersionRow, "upload_id", seen)))

    def _is_seen_digest(self, digest: Any, seen: Select[Any]) -> ColumnElement[bool]:
        """Of a version, of its features' snapshot or its bundle, or the caller's own upload."""
        workspace_id = self.caller.workspace_id
        uploads = UploadRow.__table__
        # Until it was read back, what an upload is of is its client's word.
        sent = select(uploads.c.artifact_digest).where(
            uploads.c.workspace_id == workspace_id,
            uploads.c.created_by == self.caller.principal,
            uploads.c.state == "READY",
        )
        wanted = [digest.in_(_column(ModelVersionRow, "artifact_digest", seen)), digest.in_(sent)]
        tables = Base.metadata.tables
        # Tables of packages above this one, where they are in use.
        if "bundles" in tables:
            bundles = tables["bundles"]
            wanted.append(digest.in_(select(bundles.c.digest).where(bundles.c.model_id.in_(seen))))
        if "snapshots" in tables:
            snapshots, parts = tables["snapshots"], tables["snapshot_parts"]
            named = select(parts.c.artifact_digest).where(
                parts.c.workspace_id == workspace_id,
                parts.c.snapshot_id == snapshots.c.id,
                snapshots.c.workspace_id == workspace_id,
                snapshots.c.digest.in_(_column(ModelVersionRow, "snapshot_digest", seen)),
            )
            wanted.append(digest.in_(named))
        return or_(*wanted)


class Access:
    """Who makes the request that runs in this context, once that is known."""

    __slots__ = ("caller", "narrowed")

    def __init__(self) -> None:
        self.caller: Caller | None = None
        self.narrowed: Narrowed | None = None


_access: ContextVar[Access | None] = ContextVar("access", default=None)


@contextmanager
def unnarrowed() -> Generator[None]:
    """Let sessions that are opened in the block find everything: for what decides, and is not shown."""
    token = _access.set(None)
    try:
        yield
    finally:
        _access.reset(token)


def begin_access() -> Access:
    """Begin a request, of nobody yet. What is learned of its caller counts for all that runs on its behalf."""
    access = Access()
    _access.set(access)
    return access


def current_access() -> Access | None:
    """The access of the request that runs here; None outside of one."""
    return _access.get()


def _watch(session: Session) -> None:
    access = _access.get()
    if access is not None and access.narrowed is not None:
        narrow(session, access.narrowed)


def narrow(session: Session, narrowed: Narrowed) -> None:
    """Let a session find, and write, only what a caller may see and change."""
    seen = narrowed.criteria("read", narrowed.scope)
    changed = narrowed.criteria(narrowed.scope)

    def execute(state: ORMExecuteState) -> None:
        if state.is_orm_statement and not state.is_insert:
            state.statement = cast("Any", state.statement).options(*(seen if state.is_select else changed))

    def flush(_session: Session, _context: object, _instances: object) -> None:
        for row in (*session.new, *session.dirty, *session.deleted):
            _check(session, narrowed, row)

    session.info[WATCHED] = narrowed
    event.listen(session, "do_orm_execute", execute)
    event.listen(session, "before_flush", flush)


watch_sessions(_watch)


def require_change(session: Session, model: str, environment: str | None = None) -> None:
    """Refuse what the session's caller may not do to a model, in an environment: for rows written without the ORM.

    Raises:
        PermissionDenied: if the caller may change some models only, and not this one.
    """
    narrowed: Narrowed | None = session.info.get(WATCHED)
    if narrowed is not None:
        narrowed.require(model, environment)


def _check(session: Session, narrowed: Narrowed, row: object) -> None:
    """Refuse a row of a model, or of a model in an environment, that the caller may not change."""
    if isinstance(row, RegisteredModelRow):
        narrowed.require(row.name, None)
    elif isinstance(row, AliasMoveRow) and row.kind in {"promote", "rollback"}:
        narrowed.require(_model_name(session, row), row.name)
    elif hasattr(row, "model_id"):
        # What is of no environment, though its kind could be, is for those who are limited to none.
        environment = (cast("Any", row).environment or "") if hasattr(row, "environment") else None
        narrowed.require(_model_name(session, row), environment)


def _model_name(session: Session, row: Any) -> str:
    model = session.get(RegisteredModelRow, (row.workspace_id, row.model_id))
    return "" if model is None else model.name


def _rows_of_models() -> Iterable[Any]:
    for mapper in Base.registry.mappers:
        if "model_id" in mapper.columns:
            yield mapper.class_


def _column(entity: Any, name: str, seen: Select[Any]) -> Select[Any]:
    """A column of the rows of visible models."""
    table = cast("FromClause", entity.__table__)
    return select(table.c[name]).where(table.c.model_id.in_(seen), table.c[name].is_not(None))


def _is_of_models(granted: list[Patterns]) -> ColumnElement[bool]:
    """Events about a model, a version or an alias: `churn`, `churn/3`, `churn@production`."""
    actions = or_(*(AuditEventRow.action.like(f"{noun}.%") for noun in ("model", "version", "alias", "bundle")))
    subjects = [
        and_(
            true(),
            *(
                or_(*(AuditEventRow.subject.like(_like(pattern) + rest, escape="\\") for rest in ("", "/%", "@%")))
                for pattern in patterns
            ),
        )
        for patterns in granted
    ]
    return and_(actions, or_(*subjects))


def _any_match(name: Any, granted: list[Patterns]) -> ColumnElement[bool]:
    return or_(
        *(and_(true(), *(name.like(_like(pattern), escape="\\") for pattern in patterns)) for patterns in granted)
    )


def _like(pattern: str) -> str:
    """A pattern with * and ? as one of SQL's."""
    for character in "\\%_":
        pattern = pattern.replace(character, "\\" + character)
    return pattern.replace("*", "%").replace("?", "_")
