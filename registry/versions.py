"""Model versions: numbered, immutable in their bytes, and READY only once every byte was read back.

A version is registered on an upload. PENDING turns into READY or FAILED in the transaction in which the upload does;
a version that is registered on a verified upload is READY at once. Numbers are never reused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import (
    AliasNotFound,
    Conflict,
    InvalidInput,
    JsonValue,
    ModelVersionNotFound,
    ResidencyViolation,
    UploadNotFound,
)
from fairlead.core.ids import VERSION_MAX, Digest, new_row_id, parse_digest, parse_model_reference, parse_name
from fairlead.core.ports import Clock
from fairlead.core.prepared import Call, Prepared, find_together, run_together
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller, system_caller
from fairlead.registry.limits import parse_json, parse_metrics, parse_row_id, parse_tags, parse_text
from fairlead.registry.models import (
    Shown,
    find_model,
    is_shown,
    locking,
    merge_tags,
    require_model,
    require_unarchived,
)
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import (
    AliasRow,
    ArtifactRow,
    ModelVersionRow,
    RegisteredModelRow,
    UploadRow,
    VersionTagRow,
)
from fairlead.registry.visibility import require_change

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a version was in the registry that it is imported from.

    `key` names it among all that is imported into its model; it is kept as the tag `fairlead.imported_from`. The
    version gets the `number` that it had if that is free here, and the next one otherwise.
    """

    key: str
    number: int
    created_at: datetime
    stage: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDraft:
    """What a caller says of a version that is to be registered.

    Without an upload, a worker brings the files from `source`; a version that never has any (`has_files` False, such as
    a prompt) is READY at once.
    """

    upload_id: str | None = None
    has_files: bool = True
    source: str | None = None
    run_link: str | None = None
    code_commit: str | None = None
    flavor: str | None = None
    signature: Mapping[str, object] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    params: Mapping[str, object] = field(default_factory=dict[str, object])
    feature_service: str | None = None
    feature_service_digest: str | None = None
    snapshot_digest: str | None = None
    parent_version: int | None = None
    run_id: str | None = None
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedVersion:
    """The version that a reference names; `revision` is the alias's, None where the reference names a number."""

    version: ModelVersion
    revision: int | None


class Versions:
    """Registers versions, shows them, and resolves references to them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def register(
        self,
        caller: Caller,
        model: str,
        draft: VersionDraft,
        *,
        find_upload: Callable[[Session], str] | None = None,
        key: IdempotencyKey | None = None,
    ) -> ModelVersion:
        """Register the next version of a model on an upload: the draft's, or one that is found by then.

        Raises:
            ModelNotFound, UploadNotFound, ModelVersionNotFound: if the model, the upload or the parent does not exist.
            Conflict: if the upload failed or expired.
            ResidencyViolation: if the upload's residency class is not the model's.
            InvalidInput: if the draft is not valid.
        """
        row = to_row(caller, draft, self._clock.now())
        tags = parse_tags(draft.tags)

        def register(session: Session) -> ModelVersion:
            if find_upload is not None:
                row.upload_id = find_upload(session)
            return register_row(session, caller, model, row, tags)

        with self._database.write() as session:
            return run_once(
                session, caller, self._clock, key, result_type=ModelVersion, action=lambda: register(session)
            )

    def get(self, caller: Caller, model: str, version: int) -> ModelVersion:
        """One version.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
        """
        with self._database.read() as session:
            model_row = find_model(session, caller.workspace_id, model)
            return render_versions(session, model_row, [find_version(session, model_row, version)])[0]

    def list(self, caller: Caller, model: str, page: PageRequest, *, shown: Shown = "active") -> Page[ModelVersion]:
        """A model's versions, newest first.

        Raises:
            ModelNotFound: if there is no such model.
        """
        with self._database.read() as session:
            row = find_model(session, caller.workspace_id, model)
            query = select(ModelVersionRow).where(
                ModelVersionRow.workspace_id == row.workspace_id,
                ModelVersionRow.model_id == row.id,
                *is_shown(ModelVersionRow, shown),
            )
            listing = ("versions", row.workspace_id, row.id, shown)
            rows = page.fetch(session, query, [ModelVersionRow.version], listing=listing, descending=True)
            return Page(items=tuple(render_versions(session, row, rows.items)), next_page_token=rows.next_page_token)

    def update(
        self,
        caller: Caller,
        model: str,
        version: int,
        *,
        description: str | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> ModelVersion:
        """Change a version's description or tags; nothing else of it changes. A tag whose value is None is removed.

        Raises:
            ModelNotFound, ModelVersionNotFound: if there is no such thing.
            InvalidInput: if what it should become is not valid.
        """
        with self._database.write() as session:
            model_row = find_model(session, caller.workspace_id, model, lock=True)
            row = find_version(session, model_row, version)
            if description is not None:
                row.description = parse_text(description, what="description")
            row.changed_at = self._clock.now()
            before = _tags_of(session, model_row, [row.version]).get(row.version, {})
            _replace_tags(session, row, merge_tags(before, tags or {}))
            session.flush()
            facts: dict[str, JsonValue] = {"tags": dict(tags or {}), "description": description}
            _record(session, caller, self._clock.now(), action="version.update", of=(model_row, row), facts=facts)
            return render_versions(session, model_row, [row])[0]

    def resolve(self, caller: Caller, reference: str) -> ResolvedVersion:
        """The version that `churn/3` or `churn@production` names now.

        Raises:
            InvalidReference: if the text is neither form.
            ModelNotFound, ModelVersionNotFound, AliasNotFound: if there is no such thing.
        """
        wanted = parse_model_reference(reference)
        with self._database.read() as session:
            model = find_model(session, caller.workspace_id, wanted.name)
            number, revision = wanted.version, None
            if wanted.alias is not None:
                alias = session.get(AliasRow, (model.workspace_id, model.id, wanted.alias))
                if alias is None or alias.version is None:
                    raise AliasNotFound(
                        f"{model.name!r} has no alias {wanted.alias!r}.",
                        hint=f"See its aliases with: fairlead model show {model.name}",
                        model=model.name,
                        alias=wanted.alias,
                    )
                number, revision = alias.version, alias.revision
            row = find_version(session, model, number or 0)
            return ResolvedVersion(version=render_versions(session, model, [row])[0], revision=revision)


_COLUMNS = tuple(ModelVersionRow.__table__.columns.keys())
_INSERT = Prepared(
    insert(ModelVersionRow.__table__),  # pyright: ignore[reportArgumentType]  (a table)
    columns=_COLUMNS,
)
_INSERT_TAG = Prepared(
    insert(VersionTagRow.__table__),  # pyright: ignore[reportArgumentType]  (a table)
    columns=("workspace_id", "model_id", "version", "key", "value"),
)
_COUNT = Prepared(
    update(RegisteredModelRow)
    .where(RegisteredModelRow.workspace_id == bindparam("in_workspace"), RegisteredModelRow.id == bindparam("of_model"))
    .values(last_version=bindparam("last"))
    # Nobody reads it of a row that the session holds.
    .execution_options(synchronize_session=False)
)


def register_row(
    session: Session,
    caller: Caller,
    model: str,
    row: SimpleNamespace,
    tags: Mapping[str, str],
    *,
    origin: Origin | None = None,
) -> ModelVersion:
    """Register what `to_row` made, under the next number, or the one that it had where it comes from, if that is free.

    Raises:
        ModelNotFound, UploadNotFound, ModelVersionNotFound: if the model, the upload or the parent does not exist.
        Conflict: if the upload failed or expired, or every number is used.
        ResidencyViolation: if the upload's residency class is not the model's.
    """
    now = row.created_at
    asked = [locking(caller.workspace_id, model)]
    if row.upload_id is not None:
        of_upload = {"in_workspace": caller.workspace_id, "upload_id": row.upload_id}
        asked += [(_UPLOAD, of_upload), (_ARTIFACT, of_upload)]
    found, *of_files = find_together(session, *asked)
    upload, artifact = of_files or (None, None)
    model_row = require_model(found, model)
    require_unarchived(model_row)
    require_change(session, model_row.name)
    if row.upload_id is not None:
        _require_usable(model_row, row.upload_id, upload, artifact)
    if row.parent_version is not None:
        look_at_version(session, model_row, row.parent_version)
    row.version = _choose_number(session, model_row, origin)
    row.model_id, row.residency = model_row.id, model_row.residency
    if upload is not None and upload.state == READY:
        row.state, row.artifact_digest, row.ready_at = READY, upload.artifact_digest, now
    if origin is not None:
        row.created_at, row.stage = origin.created_at, origin.stage
    last = max(model_row.last_version, row.version)
    of_version = {"workspace_id": row.workspace_id, "model_id": row.model_id, "version": row.version}
    facts: dict[str, JsonValue] = {
        "upload": row.upload_id,
        "source": row.source,
        "state": row.state,
        "digest": row.artifact_digest,
        "snapshot": row.snapshot_digest,
        "feature_service_digest": row.feature_service_digest,
    }
    action = "version.register"
    if origin is not None:
        action, facts = "version.import", {**facts, "origin": origin.key, "stage": row.stage}
    said = [_recording(caller, now, action=action, of=(model_row, row), facts=facts)]
    if upload is not None and row.state == READY:
        said.append(_recording_ready(model_row, row, now))
    run_together(
        session,
        (_COUNT, {"in_workspace": row.workspace_id, "of_model": row.model_id, "last": last}),
        (_INSERT, vars(row)),
        *((_INSERT_TAG, {**of_version, "key": key, "value": value}) for key, value in tags.items()),
        *said,
    )
    return to_version(
        model_row.name,
        row,
        tags=dict(sorted(tags.items())),
        aliases=(),
        sent_bytes=None if upload is None else upload.sent_bytes,
        size_bytes=None if artifact is None else artifact.size_bytes,
    )


def change_imported(
    session: Session, caller: Caller, row: ModelVersionRow, now: datetime, *, description: str, stage: str | None,
    tags: Mapping[str, str],
) -> bool:  # fmt: skip
    """Bring an imported version's description, stage and tags up to date; whether any of them changed."""
    model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
    before = _tags_of(session, model, [row.version]).get(row.version, {})
    after = merge_tags(before, tags)
    if (row.description, row.stage, before) == (description, stage, after):
        return False
    row.description, row.stage, row.changed_at = description, stage, now
    _replace_tags(session, row, after)
    session.flush()
    facts: dict[str, JsonValue] = {"tags": dict(tags), "description": description, "stage": stage}
    _record(session, caller, now, action="version.update", of=(model, row), facts=facts)
    return True


def render_version(session: Session, row: ModelVersionRow) -> ModelVersion:
    """A version, as its rows say."""
    return render_versions(session, session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id)), [row])[0]


def _choose_number(session: Session, model: Any, origin: Origin | None) -> int:
    if origin is not None:
        # One below the last may be free too: it was skipped by what was imported before.
        holder = session.get(ModelVersionRow, (model.workspace_id, model.id, origin.number))
        if holder is None:
            return origin.number
    if model.last_version >= VERSION_MAX:
        raise Conflict(f"{model.name!r} has used every version number.", hint="Register another model.")
    return model.last_version + 1


def mark_ready(session: Session, workspace_id: str, upload_id: str, digest: Digest, now: datetime) -> int:
    """Make the versions of an upload READY, in the transaction that records that its bytes were verified.

    The upload's row is locked first, so a version that is being registered on it either waits and finds it verified,
    or was there before. May be repeated. Returns how many versions became READY.
    """
    versions = _pending_versions(session, workspace_id, upload_id)
    for model, row in versions:
        row.state, row.artifact_digest, row.ready_at = READY, digest, now
        statement, event = _recording_ready(model, row, now)
        statement.run(session, event)
    return len(versions)


def _recording_ready(model: Any, row: Any, now: datetime) -> Call:
    worker = system_caller(row.workspace_id, "worker")
    return _recording(worker, now, action="version.ready", of=(model, row), facts={"digest": row.artifact_digest})


def mark_failed(session: Session, workspace_id: str, upload_id: str, *, code: str, detail: str, now: datetime) -> int:
    """Make the PENDING versions of an upload FAILED, in the transaction that records that it failed or expired.

    Returns how many versions became FAILED. May be repeated.
    """
    versions = _pending_versions(session, workspace_id, upload_id)
    for model, row in versions:
        row.state, row.error_code, row.error_detail = FAILED, code, detail
        worker = system_caller(workspace_id, "worker")
        _record(session, worker, now, action="version.fail", of=(model, row), facts={"code": code})
    return len(versions)


def attach_upload(session: Session, row: ModelVersionRow, upload_id: str, now: datetime) -> None:
    """Let a PENDING version whose files were brought here wait for their upload, or make it READY if that is verified.

    The upload's row is locked, as in `mark_ready`.
    """
    upload = session.get_one(UploadRow, (row.workspace_id, upload_id), with_for_update={"key_share": True})
    model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
    row.upload_id = upload.id
    worker = system_caller(row.workspace_id, "worker")
    _record(session, worker, now, action="version.pull", of=(model, row), facts={"upload": upload.id})
    session.flush()
    if upload.state == READY:
        mark_ready(session, row.workspace_id, upload.id, Digest(upload.artifact_digest or ""), now)


def fail_pull(session: Session, row: ModelVersionRow, *, code: str, detail: str, now: datetime) -> None:
    """Make a PENDING version FAILED whose files nobody can bring here."""
    model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
    row.state, row.error_code, row.error_detail = FAILED, code, detail
    worker = system_caller(row.workspace_id, "worker")
    _record(session, worker, now, action="version.fail", of=(model, row), facts={"code": code})


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


def to_row(caller: Caller, draft: VersionDraft, now: datetime) -> SimpleNamespace:
    """What a `ModelVersionRow` has, of a draft, checked; its model, number and residency class are yet to be set.

    Raises:
        InvalidInput: if the draft is not valid.
    """

    def digest(text: str | None) -> str | None:
        return None if text is None else parse_digest(text)

    def name(text: str | None, what: str) -> str | None:
        return None if text is None else parse_name(text, what=what)

    if draft.flavor is not None and len(draft.flavor) > 63:
        raise InvalidInput("The flavor is longer than 63 characters.", hint="Use a name such as sklearn or onnx.")
    run_id = None if draft.run_id is None else parse_text(draft.run_id, what="run id", max_length=255)
    row = SimpleNamespace(**dict.fromkeys(_COLUMNS))
    vars(row).update(
        workspace_id=caller.workspace_id,
        id=new_row_id(),
        state=PENDING if draft.has_files else READY,
        ready_at=None if draft.has_files else now,
        upload_id=None if draft.upload_id is None else parse_row_id(draft.upload_id, UploadNotFound, what="upload"),
        source=None if draft.source is None else parse_text(draft.source, what="source", max_length=2_000),
        run_link=None if draft.run_link is None else parse_text(draft.run_link, what="run link", max_length=2_000),
        code_commit=None if draft.code_commit is None else parse_text(draft.code_commit, what="commit", max_length=255),
        description=parse_text(draft.description, what="description"),
        flavor=name(draft.flavor, "flavor"),
        signature=None if draft.signature is None else parse_json(draft.signature, what="signature"),
        metrics=parse_metrics(draft.metrics),
        params=parse_json(draft.params, what="parameters"),
        feature_service=name(draft.feature_service, "feature service"),
        feature_service_digest=digest(draft.feature_service_digest),
        snapshot_digest=digest(draft.snapshot_digest),
        parent_version=draft.parent_version,
        run_id=run_id,
        created_by=caller.principal,
        created_at=now,
    )
    return row


_UPLOAD = Prepared(
    select(
        UploadRow.kind,
        UploadRow.residency,
        UploadRow.state,
        UploadRow.artifact_digest,
        UploadRow.sent_bytes,
        UploadRow.error_detail,
    )
    .where(UploadRow.workspace_id == bindparam("in_workspace"), UploadRow.id == bindparam("upload_id"))
    # Others may register on it at the same time, but nobody may say that it is verified, or failed.
    .with_for_update(read=True)
)
# Asked once the upload is locked: it may have been verified while that waited.
_ARTIFACT = Prepared(
    select(ArtifactRow.size_bytes, ArtifactRow.released_at)
    .join(
        UploadRow,
        (UploadRow.workspace_id == ArtifactRow.workspace_id)
        & (UploadRow.residency == ArtifactRow.residency)
        & (UploadRow.artifact_digest == ArtifactRow.digest),
    )
    .where(UploadRow.workspace_id == bindparam("in_workspace"), UploadRow.id == bindparam("upload_id"))
    # Whoever lets the bytes go locks the row, and looks for versions then.
    .with_for_update(read=True, key_share=True, of=ArtifactRow)
)


def _require_usable(model: Any, upload_id: str, upload: Any, artifact: Any) -> None:
    """Refuse an upload that versions of a model may not be registered on."""
    if upload is None:
        raise UploadNotFound(f"There is no upload {upload_id!r}.", hint="Begin one, or run fairlead model register.")
    if upload.kind != "model":
        raise InvalidInput(f"The upload {upload_id!r} holds a {upload.kind}, not a model.", hint="Upload the model.")
    if upload.residency != model.residency:
        raise ResidencyViolation(
            f"{model.name!r} is of residency class {model.residency!r}, the upload of {upload.residency!r}.",
            hint="Upload the files again under the model's residency class.",
            residency=model.residency,
        )
    if upload.state in {FAILED, "EXPIRED"}:
        raise Conflict(
            f"The upload {upload_id!r} is {upload.state}: {upload.error_detail or 'its lease ran out'}.",
            hint="Run the same fairlead model register again; what arrived is not sent twice.",
            upload_state=upload.state,
        )
    if artifact is not None and artifact.released_at is not None:
        raise Conflict(
            f"The bytes of the upload {upload_id!r} were let go since.",
            hint="Run the same fairlead model register again, which uploads them.",
        )


def _pending_versions(
    session: Session, workspace_id: str, upload_id: str
) -> Sequence[tuple[RegisteredModelRow, ModelVersionRow]]:
    session.get(UploadRow, (workspace_id, upload_id), with_for_update={"key_share": True})
    query = (
        select(RegisteredModelRow, ModelVersionRow)
        .where(
            RegisteredModelRow.workspace_id == ModelVersionRow.workspace_id,
            RegisteredModelRow.id == ModelVersionRow.model_id,
            ModelVersionRow.workspace_id == workspace_id,
            ModelVersionRow.upload_id == upload_id,
            ModelVersionRow.state == PENDING,
        )
        .order_by(RegisteredModelRow.name, ModelVersionRow.version)
    )
    return [(model, version) for model, version in session.execute(query)]


def _record(
    session: Session,
    caller: Caller,
    now: datetime,
    *,
    action: str,
    of: tuple[Any, Any],
    facts: Mapping[str, JsonValue],
) -> None:
    statement, event = _recording(caller, now, action=action, of=of, facts=facts)
    statement.run(session, event)


def _recording(
    caller: Caller, now: datetime, *, action: str, of: tuple[Any, Any], facts: Mapping[str, JsonValue]
) -> Call:
    model, row = of
    subject = f"{model.name}/{row.version}"
    return audit.recording(caller, now, action=action, subject=subject, residency=row.residency, facts=facts)


def _tags_of(session: Session, model: RegisteredModelRow, versions: Sequence[int]) -> dict[int, dict[str, str]]:
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


def _replace_tags(session: Session, row: ModelVersionRow, tags: Mapping[str, str]) -> None:
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


def render_versions(session: Session, model: RegisteredModelRow, rows: Sequence[ModelVersionRow]) -> list[ModelVersion]:
    """Versions of a model as the record has them, with tags, aliases and sizes."""
    if not rows:
        return []
    numbers = [row.version for row in rows]
    tags = _tags_of(session, model, numbers)
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
