"""Registering a version: what is said of it is checked, and its row written under the next number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from fairlead.core.errors import (
    Conflict,
    InvalidInput,
    JsonValue,
    ResidencyViolation,
    UploadNotFound,
)
from fairlead.core.ids import VERSION_MAX, new_row_id, parse_digest, parse_name
from fairlead.core.prepared import Prepared, find_together, run_together
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_json, parse_metrics, parse_row_id, parse_text
from fairlead.registry.models import (
    locking,
    merge_tags,
    require_model,
    require_unarchived,
)
from fairlead.registry.tables import (
    ArtifactRow,
    ModelVersionRow,
    RegisteredModelRow,
    UploadRow,
    VersionTagRow,
)
from fairlead.registry.version_records import (
    FAILED,
    PENDING,
    READY,
    ModelVersion,
    look_at_version,
    record_change,
    recording_change,
    replace_tags,
    tags_of,
    to_version,
)
from fairlead.registry.version_states import recording_ready
from fairlead.registry.visibility import require_change


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
    said = [recording_change(caller, now, action=action, of=(model_row, row), facts=facts)]
    if upload is not None and row.state == READY:
        said.append(recording_ready(model_row, row, now))
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


def _choose_number(session: Session, model: Any, origin: Origin | None) -> int:
    if origin is not None:
        # One below the last may be free too: it was skipped by what was imported before.
        holder = session.get(ModelVersionRow, (model.workspace_id, model.id, origin.number))
        if holder is None:
            return origin.number
    if model.last_version >= VERSION_MAX:
        raise Conflict(f"{model.name!r} has used every version number.", hint="Register another model.")
    return model.last_version + 1


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


def change_imported(
    session: Session, caller: Caller, row: ModelVersionRow, now: datetime, *, description: str, stage: str | None,
    tags: Mapping[str, str],
) -> bool:  # fmt: skip
    """Bring an imported version's description, stage and tags up to date; whether any of them changed."""
    model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
    before = tags_of(session, model, [row.version]).get(row.version, {})
    after = merge_tags(before, tags)
    if (row.description, row.stage, before) == (description, stage, after):
        return False
    row.description, row.stage, row.changed_at = description, stage, now
    replace_tags(session, row, after)
    session.flush()
    facts: dict[str, JsonValue] = {"tags": dict(tags), "description": description, "stage": stage}
    record_change(session, caller, now, action="version.update", of=(model, row), facts=facts)
    return True
