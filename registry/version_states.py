"""How PENDING versions become READY or FAILED: in the transaction in which their upload does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.ids import Digest
from fairlead.core.prepared import Call
from fairlead.registry.identity import system_caller
from fairlead.registry.tables import (
    ModelVersionRow,
    RegisteredModelRow,
    UploadRow,
)
from fairlead.registry.version_records import FAILED, PENDING, READY, record_change, recording_change


def mark_ready(session: Session, workspace_id: str, upload_id: str, digest: Digest, now: datetime) -> int:
    """Make the versions of an upload READY, in the transaction that records that its bytes were verified.

    The upload's row is locked first, so a version that is being registered on it either waits and finds it verified,
    or was there before. May be repeated. Returns how many versions became READY.
    """
    versions = _pending_versions(session, workspace_id, upload_id)
    for model, row in versions:
        row.state, row.artifact_digest, row.ready_at = READY, digest, now
        statement, event = recording_ready(model, row, now)
        statement.run(session, event)
    return len(versions)


def recording_ready(model: Any, row: Any, now: datetime) -> Call:
    """What writes into the audit log that a version is READY, to run with other statements."""
    worker = system_caller(row.workspace_id, "worker")
    return recording_change(worker, now, action="version.ready", of=(model, row), facts={"digest": row.artifact_digest})


def mark_failed(session: Session, workspace_id: str, upload_id: str, *, code: str, detail: str, now: datetime) -> int:
    """Make the PENDING versions of an upload FAILED, in the transaction that records that it failed or expired.

    Returns how many versions became FAILED. May be repeated.
    """
    versions = _pending_versions(session, workspace_id, upload_id)
    for model, row in versions:
        row.state, row.error_code, row.error_detail = FAILED, code, detail
        worker = system_caller(workspace_id, "worker")
        record_change(session, worker, now, action="version.fail", of=(model, row), facts={"code": code})
    return len(versions)


def attach_upload(session: Session, row: ModelVersionRow, upload_id: str, now: datetime) -> None:
    """Let a PENDING version whose files were brought here wait for their upload, or make it READY if that is verified.

    The upload's row is locked, as in `mark_ready`.
    """
    upload = session.get_one(UploadRow, (row.workspace_id, upload_id), with_for_update={"key_share": True})
    model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
    row.upload_id = upload.id
    worker = system_caller(row.workspace_id, "worker")
    record_change(session, worker, now, action="version.pull", of=(model, row), facts={"upload": upload.id})
    session.flush()
    if upload.state == READY:
        mark_ready(session, row.workspace_id, upload.id, Digest(upload.artifact_digest or ""), now)


def fail_pull(session: Session, row: ModelVersionRow, *, code: str, detail: str, now: datetime) -> None:
    """Make a PENDING version FAILED whose files nobody can bring here."""
    model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
    row.state, row.error_code, row.error_detail = FAILED, code, detail
    worker = system_caller(row.workspace_id, "worker")
    record_change(session, worker, now, action="version.fail", of=(model, row), facts={"code": code})


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
