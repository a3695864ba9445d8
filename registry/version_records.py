"""Model versions as the record has them: how they are found, shown, and what is said of them in the audit log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from fairlead.core.errors import (
    JsonValue,
    ModelVersionNotFound,
)
from fairlead.core.ids import VERSION_MAX
from fairlead.core.prepared import Call, Prepared
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.tables import (
    AliasRow,
    ArtifactRow,
    ModelVersionRow,
    RegisteredModelRow,
    UploadRow,
    VersionTagRow,
)

PENDING, READY, FAILED = "PENDING", "READY", "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionError:
    """Why a version FAILED."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One version of a model.

    `sent_bytes` is what the client sent for it, `size_bytes` what its files hold; None while they are not known.
    """

    name: str
    version: int
    reference: str
    state: str
    residency: str
    artifact_digest: str | None
    description: str
    flavor: str | None
    signature: Mapping[str, Any] | None
    metrics: Mapping[str, float]
    params: Mapping[str, Any]
    feature_service: str | None
    feature_service_digest: str | None
    snapshot_digest: str | None
    parent_version: int | None
    run_id: str | None
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    upload_id: str | None
    error: VersionError | None
    created_by: str
    created_at: datetime
    ready_at: datetime | None
    sent_bytes: int | None
    size_bytes: int | None
    source: str | None = None
    run_link: str | None = None
    code_commit: str | None = None
    stage: str | None = None
    archived_at: datetime | None = None
    deleted_at: datetime | None = None


def find_version(session: Session, model: RegisteredModelRow, version: int) -> ModelVersionRow:
    """The row of a version that is not deleted.

    Raises:
        ModelVersionNotFound: if the model has no such version.
    """
    row = None
    if 0 < version <= VERSION_MAX:
        row = session.get(ModelVersionRow, (model.workspace_id, model.id, version))
    if row is None or row.deleted_at is not None:
        raise _version_not_found(model, version, is_deleted=row is not None)
    return row


def look_at_version(session: Session, model: Any, version: int) -> Any:
    """As `find_version`, with what moving a pointer asks of a version.

    Raises:
        ModelVersionNotFound: if the model has no such version.
    """
    row = None
    if 0 < version <= VERSION_MAX:
        row = _VERSION.first(session, in_workspace=model.workspace_id, of_model=model.id, numbered=version)
    if row is None or row.deleted_at is not None:
        raise _version_not_found(model, version, is_deleted=row is not None)
    return row


_VERSION = Prepared(
    select(
        ModelVersionRow.version,
        ModelVersionRow.state,
        ModelVersionRow.error_detail,
        ModelVersionRow.archived_at,
        ModelVersionRow.deleted_at,
    ).where(
        ModelVersionRow.workspace_id == bindparam("in_workspace"),
        ModelVersionRow.model_id == bindparam("of_model"),
        ModelVersionRow.version == bindparam("numbered"),
    )
)


def _version_not_found(model: Any, version: int, *, is_deleted: bool) -> ModelVersionNotFound:
    return ModelVersionNotFound(
        f"{model.name!r} has no version {version}{': it was deleted' if is_deleted else ''}.",
        hint=f"Whoever may change it restores it with: fairlead model restore {model.name}/{version}"
        if is_deleted
        else f"See its versions with: fairlead model show {model.name}",
        model=model.name,
    )


def render_versions(session: Session, model: RegisteredModelRow, rows: Sequence[ModelVersionRow]) -> list[ModelVersion]:
    """Versions of a model as the record has them, with tags, aliases and sizes."""
    if not rows:
        return []
    numbers = [row.version for row in rows]
    tags = tags_of(session, model, numbers)
    aliases: defaultdict[int | None, list[str]] = defaultdict(list)
    of_model = (AliasRow.workspace_id == model.workspace_id, AliasRow.model_id == model.id)
    for alias in session.scalars(select(AliasRow).where(*of_model, AliasRow.version.in_(numbers))):
        aliases[alias.version].append(alias.name)
    uploads = select(UploadRow.id, UploadRow.sent_bytes).where(
        UploadRow.workspace_id == model.workspace_id, UploadRow.id.in_({row.upload_id for row in rows})
    )
    sent = dict(session.execute(uploads).all())
    artifacts = select(ArtifactRow.digest, ArtifactRow.size_bytes).where(
        ArtifactRow.workspace_id == model.workspace_id,
        ArtifactRow.residency == model.residency,
        ArtifactRow.digest.in_({row.artifact_digest for row in rows}),
    )
    sizes = dict(session.execute(artifacts).all())
    return [
        to_version(
            model.name,
            row,
            tags=tags.get(row.version, {}),
            aliases=tuple(sorted(aliases[row.version])),
            sent_bytes=sent.get(row.upload_id or ""),
            size_bytes=sizes.get(row.artifact_digest or ""),
        )
        for row in rows
    ]


def render_version(session: Session, row: ModelVersionRow) -> ModelVersion:
    """A version, as its rows say."""
    return render_versions(session, session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id)), [row])[0]


def to_version(
    model: str,
    row: Any,
    *,
    tags: Mapping[str, str],
    aliases: tuple[str, ...],
    sent_bytes: int | None,
    size_bytes: int | None,
) -> ModelVersion:
    """A version of a model of that name; `row` has the attributes of a `ModelVersionRow`."""
    error = None if row.error_code is None else VersionError(code=row.error_code, detail=row.error_detail or "")
    return ModelVersion(
        name=model,
        version=row.version,
        reference=f"{model}/{row.version}",
        state=row.state,
        residency=row.residency,
        artifact_digest=row.artifact_digest,
        description=row.description,
        flavor=row.flavor,
        signature=row.signature,
        metrics=row.metrics,
        params=row.params,
        feature_service=row.feature_service,
        feature_service_digest=row.feature_service_digest,
        snapshot_digest=row.snapshot_digest,
        parent_version=row.parent_version,
        run_id=row.run_id,
        tags=dict(tags),
        aliases=aliases,
        upload_id=row.upload_id,
        error=error,
        created_by=row.created_by,
        created_at=row.created_at,
        ready_at=row.ready_at,
        sent_bytes=sent_bytes,
        size_bytes=size_bytes,
        source=row.source,
        run_link=row.run_link,
        code_commit=row.code_commit,
        stage=row.stage,
        archived_at=row.archived_at,
        deleted_at=row.deleted_at,
    )


def tags_of(session: Session, model: RegisteredModelRow, versions: Sequence[int]) -> dict[int, dict[str, str]]:
    """The tags of some of a model's versions, by number."""
    found: defaultdict[int, dict[str, str]] = defaultdict(dict)
    query = (
        select(VersionTagRow)
        .where(
            VersionTagRow.workspace_id == model.workspace_id,
            VersionTagRow.model_id == model.id,
            VersionTagRow.version.in_(versions),
        )
        .order_by(VersionTagRow.key)
    )
    for tag in session.scalars(query):
        found[tag.version][tag.key] = tag.value
    return found


def replace_tags(session: Session, row: ModelVersionRow, tags: Mapping[str, str]) -> None:
    """Let a version have these tags and no others."""
    query = select(VersionTagRow).where(
        VersionTagRow.workspace_id == row.workspace_id,
        VersionTagRow.model_id == row.model_id,
        VersionTagRow.version == row.version,
    )
    existing = {tag.key: tag for tag in session.scalars(query)}
    for key, value in tags.items():
        if key in existing:
            existing[key].value = value
        else:
            session.add(
                VersionTagRow(
                    workspace_id=row.workspace_id, model_id=row.model_id, version=row.version, key=key, value=value
                )
            )
    for key in existing.keys() - tags.keys():
        session.delete(existing[key])


def record_change(
    session: Session,
    caller: Caller,
    now: datetime,
    *,
    action: str,
    of: tuple[Any, Any],
    facts: Mapping[str, JsonValue],
) -> None:
    """Write into the audit log what was done to `of`, a model's row and its version's."""
    statement, event = recording_change(caller, now, action=action, of=of, facts=facts)
    statement.run(session, event)


def recording_change(
    caller: Caller, now: datetime, *, action: str, of: tuple[Any, Any], facts: Mapping[str, JsonValue]
) -> Call:
    """What `record_change` runs, to run with other statements."""
    model, row = of
    subject = f"{model.name}/{row.version}"
    return audit.recording(caller, now, action=action, subject=subject, residency=row.residency, facts=facts)
