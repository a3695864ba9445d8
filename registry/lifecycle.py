"""Archived, deleted and restored: what happens to models and versions that are needed no more.

An archived model or version is hidden from lists and from `latest`, readable as ever, and not promotable. A deleted one
is not there: every way to it answers 404. Both are taken back as long as its bytes are kept, which is until a retention
policy lets them go (`retention`). Names and numbers are never given to anything else.

Nothing that an environment or a deployment holds is archived or deleted: the refusal says what to type first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import BytesReleased, JsonValue, ModelVersionNotFound, VersionInUse
from fairlead.core.ids import VERSION_MAX
from fairlead.core.ports import Clock, DeploymentIndex
from fairlead.registry import audit
from fairlead.registry.aliases import advance_refs, move_pointer
from fairlead.registry.models import RegisteredModel, find_any_model, find_model, render_models
from fairlead.registry.tables import AliasRow, EnvironmentRow, ModelVersionRow, RegisteredModelRow
from fairlead.registry.version_records import ModelVersion, find_version, render_versions

if TYPE_CHECKING:
    from fairlead.registry.identity import Caller


class Lifecycle:
    """Archives, deletes and restores models and versions. Repeating any of it changes nothing."""

    def __init__(self, database: Database, clock: Clock, deployments: DeploymentIndex | None = None) -> None:
        self._database = database
        self._clock = clock
        self._deployments = deployments

    def archive_model(self, caller: Caller, name: str, *, is_archived: bool) -> RegisteredModel:
        """Archive a model with all its versions, or take it out of the archive again.

        Raises:
            ModelNotFound: if there is no such model.
            VersionInUse: if an environment or a deployment holds a version of it.
        """
        with self._database.write() as session:
            model = find_model(session, caller.workspace_id, name, lock=True)
            if is_archived != (model.archived_at is not None):
                if is_archived:
                    require_unused(session, self._deployments, model, None)
                archive(session, caller, self._clock.now(), of=(model, None), is_archived=is_archived)
            return render_models(session, [model])[0]

    def archive_version(self, caller: Caller, name: str, version: int, *, is_archived: bool) -> ModelVersion:
        """Archive a version, or take it out of the archive again.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
            VersionInUse: if an environment or a deployment holds it.
        """
        with self._database.write() as session:
            model = find_model(session, caller.workspace_id, name, lock=True)
            row = find_version(session, model, version)
            if is_archived != (row.archived_at is not None):
                if is_archived:
                    require_unused(session, self._deployments, model, version)
                archive(session, caller, self._clock.now(), of=(model, row), is_archived=is_archived)
            return render_versions(session, model, [row])[0]

    def delete_model(self, caller: Caller, name: str) -> None:
        """Delete a model with its versions and aliases; all but the aliases can be restored.

        Raises:
            ModelNotFound: if there is no such model.
            VersionInUse: if an environment or a deployment holds a version of it.
        """
        with self._database.write() as session:
            model = find_model(session, caller.workspace_id, name, lock=True)
            delete_model(session, caller, self._clock, self._deployments, model=model)

    def delete_version(self, caller: Caller, name: str, version: int) -> None:
        """Delete a version and the aliases that point to it; the version can be restored.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
            VersionInUse: if an environment or a deployment holds it.
        """
        with self._database.write() as session:
            model = find_model(session, caller.workspace_id, name, lock=True)
            row = find_version(session, model, version)
            delete_version(session, caller, self._clock, self._deployments, of=(model, row))

    def restore_model(self, caller: Caller, name: str) -> RegisteredModel:
        """Restore a deleted model, with the versions that were deleted together with it and still have their bytes.

        Raises:
            ModelNotFound: if there was never one of that name.
        """
        with self._database.write() as session:
            model = find_any_model(session, caller.workspace_id, name, lock=True)
            if model.deleted_at is not None:
                versions = [
                    row
                    for row in _versions_of(session, model)
                    if row.deleted_at == model.deleted_at and row.released_at is None
                ]
                for row in versions:
                    row.deleted_at = None
                model.deleted_at, model.updated_at = None, self._clock.now()
                facts: dict[str, JsonValue] = {"versions": [row.version for row in versions]}
                record_event(session, caller, self._clock.now(), action="model.restore", of=(model, None), facts=facts)
                session.flush()
            return render_models(session, [model])[0]

    def restore_version(self, caller: Caller, name: str, version: int) -> ModelVersion:
        """Restore a deleted version.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there was never such a thing, or the model itself is deleted.
            BytesReleased: if its bytes were let go.
        """
        with self._database.write() as session:
            model = find_model(session, caller.workspace_id, name, lock=True)
            row = None
            if 0 < version <= VERSION_MAX:
                row = session.get(ModelVersionRow, (model.workspace_id, model.id, version))
            if row is None:
                raise ModelVersionNotFound(
                    f"{model.name!r} never had a version {version}.",
                    hint=f"See those that were deleted: fairlead model show {model.name} --state deleted",
                    model=model.name,
                )
            if row.released_at is not None:
                raise BytesReleased(
                    f"The bytes of {model.name}/{version} were let go when their retention ended.",
                    hint="Register its files again; they become a new version.",
                )
            if row.deleted_at is not None:
                row.deleted_at = None
                model.updated_at = self._clock.now()
                record_event(session, caller, self._clock.now(), action="version.restore", of=(model, row))
                session.flush()
            return render_versions(session, model, [row])[0]


def require_unused(
    session: Session, deployments: DeploymentIndex | None, model: RegisteredModelRow, version: int | None
) -> None:
    """Refuse where an environment or a deployment holds a version of a locked model (None: any).

    Raises:
        VersionInUse: with the command to type first.
    """
    for pointer in _pointers(session, model, version):
        if session.get(EnvironmentRow, (model.workspace_id, pointer.name)) is not None:
            raise VersionInUse(
                f"{model.name}/{pointer.version} is in the environment {pointer.name!r}, so it stays.",
                hint=f"Promote another version first: fairlead model promote {model.name}/VERSION --to {pointer.name}",
                environment=pointer.name,
            )
    if deployments is None:
        return
    for name in deployments.pinned(model.workspace_id, model.name, version):
        what = model.name if version is None else f"{model.name}/{version}"
        raise VersionInUse(
            f"The deployment {name!r} runs {what}, so it stays.",
            hint=f"Take the deployment down first: fairlead deploy destroy {name}",
            deployment=name,
        )


def archive(
    session: Session,
    caller: Caller,
    now: datetime,
    *,
    of: tuple[RegisteredModelRow, ModelVersionRow | None],
    is_archived: bool,
) -> None:
    """Archive a locked model, or one version of it, or take it out again."""
    model, version = of
    row = model if version is None else version
    row.archived_at = now if is_archived else None
    model.updated_at = now
    what, verb = "model" if version is None else "version", "archive" if is_archived else "unarchive"
    record_event(session, caller, now, action=f"{what}.{verb}", of=of)
    session.flush()


def delete_model(
    session: Session,
    caller: Caller,
    clock: Clock,
    deployments: DeploymentIndex | None,
    *,
    model: RegisteredModelRow,
    facts: Mapping[str, JsonValue] | None = None,
) -> None:
    """Delete a locked model with its versions and aliases.

    Raises:
        VersionInUse: as `require_unused`.
    """
    require_unused(session, deployments, model, None)
    _drop_aliases(session, caller, clock, model, None)
    now = clock.now()
    versions = [row for row in _versions_of(session, model) if row.deleted_at is None]
    for row in versions:
        row.deleted_at = now
    model.deleted_at = model.updated_at = now
    said: dict[str, JsonValue] = {"versions": [row.version for row in versions], **(facts or {})}
    record_event(session, caller, now, action="model.delete", of=(model, None), facts=said)
    session.flush()


def delete_version(
    session: Session,
    caller: Caller,
    clock: Clock,
    deployments: DeploymentIndex | None,
    *,
    of: tuple[RegisteredModelRow, ModelVersionRow],
    facts: Mapping[str, JsonValue] | None = None,
) -> None:
    """Delete a version of a locked model, and the aliases that point to it.

    Raises:
        VersionInUse: as `require_unused`.
    """
    model, row = of
    require_unused(session, deployments, model, row.version)
    _drop_aliases(session, caller, clock, model, row.version)
    row.deleted_at = model.updated_at = clock.now()
    said: dict[str, JsonValue] = {"digest": row.artifact_digest, **(facts or {})}
    record_event(session, caller, clock.now(), action="version.delete", of=of, facts=said)
    session.flush()


def _drop_aliases(
    session: Session, caller: Caller, clock: Clock, model: RegisteredModelRow, version: int | None
) -> None:
    pointers = _pointers(session, model, version)
    if pointers:
        advance_refs(session, model.workspace_id)
    for pointer in pointers:
        move_pointer(session, caller, clock, model, name=pointer.name, to_version=None, kind="delete", facts={})


def _pointers(session: Session, model: RegisteredModelRow, version: int | None) -> Sequence[AliasRow]:
    query = select(AliasRow).where(
        AliasRow.workspace_id == model.workspace_id, AliasRow.model_id == model.id, AliasRow.version.is_not(None)
    )
    if version is not None:
        query = query.where(AliasRow.version == version)
    return session.scalars(query.order_by(AliasRow.name)).all()


def _versions_of(session: Session, model: RegisteredModelRow) -> Sequence[ModelVersionRow]:
    query = select(ModelVersionRow).where(
        ModelVersionRow.workspace_id == model.workspace_id, ModelVersionRow.model_id == model.id
    )
    return session.scalars(query.order_by(ModelVersionRow.version)).all()


def record_event(
    session: Session,
    caller: Caller,
    now: datetime,
    *,
    action: str,
    of: tuple[RegisteredModelRow, ModelVersionRow | None],
    facts: Mapping[str, JsonValue] | None = None,
) -> None:
    """Tell of what became of a model or a version."""
    model, version = of
    subject = model.name if version is None else f"{model.name}/{version.version}"
    audit.record_at(session, caller, now, action=action, subject=subject, residency=model.residency, facts=facts)
