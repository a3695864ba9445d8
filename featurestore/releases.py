"""Releases: a snapshot is served once nothing that is expected of it is open or failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exists, select

from fairlead.featurestore.tables import SnapshotRow
from fairlead.featurestore.tables_quality import SnapshotCheckRow

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session


def is_releasable(session: Session, snapshot: SnapshotRow) -> bool:
    """Whether a READY snapshot may be served: every check that it is held to was passed."""
    query = select(SnapshotCheckRow.view).where(
        SnapshotCheckRow.workspace_id == snapshot.workspace_id,
        SnapshotCheckRow.snapshot_id == snapshot.id,
        SnapshotCheckRow.is_blocking,
    )
    return session.execute(query.limit(1)).first() is None


def releasable() -> ColumnElement[bool]:
    """The same of a `SnapshotRow`, as a condition of a query."""
    return ~exists().where(
        SnapshotCheckRow.workspace_id == SnapshotRow.workspace_id,
        SnapshotCheckRow.snapshot_id == SnapshotRow.id,
        SnapshotCheckRow.is_blocking,
    )
