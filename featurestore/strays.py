"""Strays: what writers of rows left behind that the record names nowhere, since they died before they noted it.

A writer hands an artifact over and then notes it. One that dies between the two leaves an artifact that no snapshot and
no log knows of; the next writer may make another one, of a source that has changed. One that dies earlier leaves packs
of an upload that is never handed over. An erasure cannot look through what nobody can read as a view's rows, and need
not: it waits until such uploads are over, and takes away whole whatever nothing names.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from sqlalchemy import or_, select

from fairlead.core.errors import NotReady
from fairlead.featurestore.tables import SnapshotPartRow
from fairlead.featurestore.tables_erasures import ErasedArtifactRow
from fairlead.featurestore.tables_streams import FeatureLogSegmentRow
from fairlead.registry.batches import batches
from fairlead.registry.identity import system_caller
from fairlead.registry.tables import ArtifactRow, ModelVersionRow, UploadRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from fairlead.featurestore.tables_erasures import ErasureRow

ROW_KINDS: tuple[Literal["snapshot"], Literal["feature-log"]] = ("snapshot", "feature-log")
"""The kinds of artifacts that hold rows of views."""

_APART = timedelta(minutes=1)
"""How far the clocks of two machines may be apart."""


def find_strays(session: Session, workspace_id: str) -> Sequence[ArtifactRow]:
    """The artifacts with rows that a worker has written and nothing names, by class and digest."""
    artifacts = select(ArtifactRow).where(
        ArtifactRow.workspace_id == workspace_id, ArtifactRow.kind.in_(ROW_KINDS), ArtifactRow.released_at.is_(None)
    )
    there = {(row.residency, row.digest): row for row in session.scalars(artifacts)}
    left = there.keys() - _named(session, workspace_id)
    for some in batches(sorted({digest for _, digest in left})):
        left -= _in_use(session, workspace_id, some)
    return [there[key] for key in sorted(left)]


def open_writes(session: Session, erasure: ErasureRow, *, sealed_until: datetime) -> Sequence[str]:
    """The uploads of rows that are not over, and begun before their writers knew of the erasure.

    `sealed_until` is until when segments of logs may hold the subject.
    """
    is_before = or_(
        UploadRow.created_at <= erasure.requested_at + _APART,
        (UploadRow.kind == "feature-log") & (UploadRow.created_at <= sealed_until + _APART),
    )
    query = select(UploadRow.id).where(
        UploadRow.workspace_id == erasure.workspace_id,
        UploadRow.kind.in_(ROW_KINDS),
        UploadRow.state.in_(("OPEN", "VERIFYING")),
        UploadRow.created_by == _worker(erasure.workspace_id),
        is_before,
    )
    return session.scalars(query.order_by(UploadRow.id)).all()


def classes_of_rows(session: Session, workspace_id: str) -> frozenset[str]:
    """The residency classes under which rows of views were ever written."""
    query = select(UploadRow.residency).where(UploadRow.workspace_id == workspace_id, UploadRow.kind.in_(ROW_KINDS))
    return frozenset(session.scalars(query.distinct()))


def is_stray_still(session: Session, row: ErasedArtifactRow) -> bool:
    """Whether nothing names an artifact now; until the transaction ends nothing comes to (see `claim`)."""
    query = select(UploadRow.id).where(
        UploadRow.workspace_id == row.workspace_id,
        UploadRow.residency == row.residency,
        UploadRow.artifact_digest == row.digest,
    )
    session.execute(query.order_by(UploadRow.id).with_for_update())
    strays = find_strays(session, row.workspace_id)
    return any((each.residency, each.digest) == (row.residency, row.digest) for each in strays)


def claim(session: Session, workspace_id: str, upload_id: str) -> None:
    """Let a writer name what it has written, in the transaction that notes it.

    Raises:
        NotReady: if it was taken for a stray and given up meanwhile; it has to be written again.
    """
    upload = session.get(UploadRow, (workspace_id, upload_id), with_for_update=True)
    if upload is None or upload.state != "READY" or upload.artifact_digest is None:
        return  # Reading it back makes the artifact somebody's again.
    artifact = session.get(ArtifactRow, (workspace_id, upload.residency, upload.artifact_digest), with_for_update=True)
    if artifact is not None and artifact.released_at is not None:
        raise NotReady("An erasure took away what was just written.", hint="It is written again by itself.")


def _named(session: Session, workspace_id: str) -> set[tuple[str, str | None]]:
    """What snapshots, logs and erasures name."""
    parts, segments, erased = SnapshotPartRow, FeatureLogSegmentRow, ErasedArtifactRow
    queries = (
        select(parts.residency, parts.artifact_digest).where(parts.workspace_id == workspace_id),
        select(segments.residency, segments.artifact_digest).where(segments.workspace_id == workspace_id),
        select(erased.residency, erased.new_digest).where(
            erased.workspace_id == workspace_id, erased.state == "VERIFYING"
        ),
    )
    return {(residency, digest) for query in queries for residency, digest in session.execute(query)}


def _in_use(session: Session, workspace_id: str, digests: Sequence[str]) -> set[tuple[str, str | None]]:
    """Of these artifacts those that are a model's file, just read back, or stored by somebody for themselves."""
    models, uploads = ModelVersionRow, UploadRow
    queries = (
        select(models.residency, models.artifact_digest).where(
            models.workspace_id == workspace_id,
            models.artifact_digest.in_(digests),
            models.released_at.is_(None),
        ),
        select(uploads.residency, uploads.artifact_digest).where(
            uploads.workspace_id == workspace_id,
            uploads.artifact_digest.in_(digests),
            or_(uploads.created_by != _worker(workspace_id), uploads.state == "VERIFYING"),
        ),
    )
    return {(residency, digest) for query in queries for residency, digest in session.execute(query)}


def _worker(workspace_id: str) -> str:
    return system_caller(workspace_id, "worker").principal
