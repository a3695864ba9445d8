"""Which model versions need which views' rows, for the policies that say where artifacts should be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from fairlead.registry.replica_policies import ArtifactUse
from fairlead.registry.tables import ModelVersionRow


def snapshot_uses(session: Session, workspace_id: str) -> Iterable[ArtifactUse]:
    """The rows of every snapshot that a model version pins."""
    query = (
        select(
            SnapshotPartRow.residency,
            SnapshotPartRow.artifact_digest,
            ModelVersionRow.model_id,
            ModelVersionRow.version,
        )
        .join(
            SnapshotRow,
            (SnapshotRow.workspace_id == SnapshotPartRow.workspace_id)
            & (SnapshotRow.id == SnapshotPartRow.snapshot_id),
        )
        .join(
            ModelVersionRow,
            (ModelVersionRow.workspace_id == SnapshotRow.workspace_id)
            & (ModelVersionRow.snapshot_digest == SnapshotRow.digest),
        )
        .where(SnapshotPartRow.workspace_id == workspace_id, SnapshotPartRow.artifact_digest.is_not(None))
        .distinct()
    )
    return [
        (residency, cast("str", digest), model_id, version)
        for residency, digest, model_id, version in session.execute(query)
    ]
