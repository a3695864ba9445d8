"""Earlier artifacts that a new snapshot's part can be, or can stand upon: of the same sub-view, in the same version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from fairlead.featurestore.replica_rows import ArtifactName, verified_regions
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from fairlead.registry.tables import UploadRow

_LOOKED_AT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """An artifact that is READY, and the upload that it came in."""

    artifact: ArtifactName
    upload_id: str
    rows_digest: str | None
    deltas: int


def same_rows(session: Session, part: SnapshotPartRow, rows_digest: str) -> Predecessor | None:
    """An artifact that holds these rows already, and of which a replica is verified."""
    query = _ready(part).where(SnapshotPartRow.rows_digest == rows_digest).order_by(SnapshotPartRow.snapshot_id.desc())
    for found in _predecessors(session, part, query):
        if verified_regions(session, found.artifact):
            return found
    return None


def nearest(session: Session, part: SnapshotPartRow, as_of: datetime, *, region: str) -> Predecessor | None:
    """The artifact of the latest snapshot up to a time, or else of the first one after it, with a replica in a region.

    Most rows of neighbours in time are the same.
    """
    times = SnapshotRow.as_of
    for query in (
        _ready(part).where(times <= as_of).order_by(times.desc(), SnapshotRow.id.desc()),
        _ready(part).where(times > as_of).order_by(times, SnapshotRow.id),
    ):
        for found in _predecessors(session, part, query):
            if region in verified_regions(session, found.artifact):
                return found
    return None


def _ready(part: SnapshotPartRow) -> Select[Any]:
    return (
        select(SnapshotPartRow)
        .join(
            SnapshotRow,
            (SnapshotRow.workspace_id == SnapshotPartRow.workspace_id)
            & (SnapshotRow.id == SnapshotPartRow.snapshot_id),
        )
        .join(
            UploadRow,
            (UploadRow.workspace_id == SnapshotPartRow.workspace_id) & (UploadRow.id == SnapshotPartRow.upload_id),
        )
        .where(
            SnapshotPartRow.workspace_id == part.workspace_id,
            SnapshotPartRow.view == part.view,
            SnapshotPartRow.view_digest == part.view_digest,
            SnapshotPartRow.residency == part.residency,
            SnapshotPartRow.artifact_digest.is_not(None),
            SnapshotRow.state == "READY",
            UploadRow.state == "READY",
        )
        .limit(_LOOKED_AT)
    )


def _predecessors(session: Session, part: SnapshotPartRow, query: Select[Any]) -> list[Predecessor]:
    return [
        Predecessor(
            artifact=ArtifactName(
                workspace_id=row.workspace_id, residency=row.residency, digest=row.artifact_digest or ""
            ),
            upload_id=row.upload_id or "",
            rows_digest=row.rows_digest,
            deltas=row.delta_count or 0,
        )
        for row in session.scalars(query)
        # A part of before there were classes of columns has all features.
        if sorted(row.features or part.features or ()) == sorted(part.features or ())
    ]
