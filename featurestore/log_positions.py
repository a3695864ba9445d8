"""Up to where snapshots hold the rows of logs: noted when a part is written, and part of the snapshot's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.featurestore.log_segments import LogPosition
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from fairlead.featurestore.tables_streams import FeatureLogRow, SnapshotLogRow

Positions = Sequence[Mapping[str, Any]]
"""As in the record: `{"log", "region", "through"}`, by log."""


def note_positions(session: Session, part: SnapshotPartRow, positions: Sequence[LogPosition]) -> None:
    """Keep what a part holds of the logs of its view; of a view without logs there is nothing to keep."""
    if positions:
        row = SnapshotLogRow(
            workspace_id=part.workspace_id, snapshot_id=part.snapshot_id, view=part.view, residency=part.residency
        )
        row.positions = [position.to_json() for position in sorted(positions, key=lambda each: each.log)]
        session.merge(row)


def log_regions(session: Session, workspace_id: str) -> Mapping[str, str]:
    """By view, the region whose logs took most of its rows."""
    query = select(FeatureLogRow).where(FeatureLogRow.workspace_id == workspace_id)
    rows = session.scalars(query.order_by(FeatureLogRow.last_sequence, FeatureLogRow.region.desc()))
    return {row.view: row.region for row in rows}


def positions_of(session: Session, snapshot: SnapshotRow) -> Mapping[tuple[str, str], Positions]:
    """What each part of a snapshot holds of logs, by view and residency class."""
    query = select(SnapshotLogRow).where(
        SnapshotLogRow.workspace_id == snapshot.workspace_id, SnapshotLogRow.snapshot_id == snapshot.id
    )
    return {(row.view, row.residency): row.positions for row in session.scalars(query)}
