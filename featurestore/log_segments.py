"""Sealed segments of logs: what their files hold, which of them there are, and where they may be read.

A segment is an artifact of the kind `feature-log` with one Parquet file: the rows of a stretch of one log, in order of
their sequence, with the features of one residency class. The same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from fairlead.catalog import Residency
from fairlead.core.errors import JsonValue
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.duck import ArrowTable, load_arrow
from fairlead.featurestore.event_log import LOG_FORMAT, OWN_COLUMNS
from fairlead.featurestore.replica_rows import ArtifactName
from fairlead.featurestore.rows import row_columns
from fairlead.featurestore.tables_streams import FeatureLogSegmentRow
from fairlead.registry.tables import LocationRow, ReplicaRow

FEATURE_LOG = "feature-log"
"""The kind of artifact that a segment is."""

_ROW_GROUP = 131_072


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """How far into a log something reaches: every row up to and including `through`."""

    log: str
    region: str
    through: int

    def to_json(self) -> dict[str, JsonValue]:
        """As plain JSON."""
        return {"log": self.log, "region": self.region, "through": self.through}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A sealed stretch of a log under one residency class."""

    log: str
    first: int
    last: int
    view: str
    view_digest: str
    artifact: ArtifactName
    rows: int
    first_accepted_at: datetime


def write_segment(path: Path, view: ViewDefinition, rows: ArrowTable) -> None:
    """Write the rows of a log as the segment of a view or sub-view: the same rows give the same bytes."""
    arrow = load_arrow()
    table = rows.select([*OWN_COLUMNS, *(column.name for column in row_columns(view))])
    schema: Any = table.schema.with_metadata({"fairlead.log": str(LOG_FORMAT)})
    # As snapshots: the content store compresses better than pages of Parquet would.
    with arrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False, version="2.6") as writer:
        writer.write_table(table.cast(schema).combine_chunks(), row_group_size=_ROW_GROUP)


def segments_of(
    session: Session,
    workspace_id: str,
    view: str,
    *,
    readable_in: str | None = None,
    logs: Collection[str] | None = None,
    holding: int | None = None,
) -> Sequence[Segment]:
    """The segments of a view, by log and sequence.

    `readable_in`: those with a verified replica in that region; `holding`: those with the row of that sequence.
    """
    query = select(FeatureLogSegmentRow).where(
        FeatureLogSegmentRow.workspace_id == workspace_id, FeatureLogSegmentRow.view == view
    )
    if logs is not None:
        query = query.where(FeatureLogSegmentRow.log_id.in_(sorted(logs)))
    if holding is not None:
        query = query.where(
            FeatureLogSegmentRow.first_sequence <= holding, FeatureLogSegmentRow.last_sequence >= holding
        )
    if readable_in is not None:
        query = query.where(_is_readable(readable_in))
    order = (FeatureLogSegmentRow.log_id, FeatureLogSegmentRow.first_sequence, FeatureLogSegmentRow.residency)
    return [_to_segment(row) for row in session.scalars(query.order_by(*order))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far a log can be read somewhere: the first segment that cannot be, None where all can, and the last that is.

    `missing_since` is when the oldest row of the first missing one was taken.
    """

    last: int
    first_missing: int | None
    missing_since: datetime | None


def count_segments(session: Session, workspace_id: str, log: str) -> int:
    """How many segments a log has; one under several classes counts once."""
    query = select(func.count(FeatureLogSegmentRow.first_sequence.distinct()))
    return session.scalar(query.where(*_of_log(workspace_id, log))) or 0


def find_reach(
    session: Session, workspace_id: str, log: str, *, region: str, may_be: Callable[[Residency], bool]
) -> Reach:
    """How far a log can be read in a region, of the classes that may be there. The database looks: they are many."""
    of_log = _of_log(workspace_id, log)
    found = session.scalars(select(FeatureLogSegmentRow.residency).distinct().where(*of_log))
    classes = [residency for residency in found if may_be(Residency(residency))]
    mine = (*of_log, FeatureLogSegmentRow.residency.in_(classes))
    last = session.scalar(select(func.max(FeatureLogSegmentRow.last_sequence)).where(*mine)) or 0
    query = select(FeatureLogSegmentRow.first_sequence, FeatureLogSegmentRow.first_accepted_at)
    missing = session.execute(
        query.where(*mine, ~_is_readable(region)).order_by(FeatureLogSegmentRow.first_sequence).limit(1)
    ).first()
    first, since = (None, None) if missing is None else missing.tuple()
    return Reach(last=last, first_missing=first, missing_since=since)


def _of_log(workspace_id: str, log: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return FeatureLogSegmentRow.workspace_id == workspace_id, FeatureLogSegmentRow.log_id == log


def _is_readable(region: str) -> ColumnElement[bool]:
    """Whether a segment has a verified replica in a region."""
    return (
        select(ReplicaRow.location_id)
        .join(
            LocationRow,
            and_(LocationRow.workspace_id == ReplicaRow.workspace_id, LocationRow.id == ReplicaRow.location_id),
        )
        .where(
            ReplicaRow.workspace_id == FeatureLogSegmentRow.workspace_id,
            ReplicaRow.residency == FeatureLogSegmentRow.residency,
            ReplicaRow.artifact_digest == FeatureLogSegmentRow.artifact_digest,
            ReplicaRow.state == "VERIFIED",
            LocationRow.region == region,
        )
        .exists()
    )


def _to_segment(row: FeatureLogSegmentRow) -> Segment:
    return Segment(
        log=row.log_id,
        first=row.first_sequence,
        last=row.last_sequence,
        view=row.view,
        view_digest=row.view_digest,
        artifact=ArtifactName(workspace_id=row.workspace_id, residency=row.residency, digest=row.artifact_digest),
        rows=row.row_count,
        first_accepted_at=row.first_accepted_at,
    )
