"""Tables of what was pushed: logs, their sealed segments, and how far each region's online store has read them.

Rows themselves are never here: a log lies in the region that takes its rows, segments are artifacts.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace, JsonObject

_LOG = ["feature_logs.workspace_id", "feature_logs.id"]


class FeatureLogRow(InWorkspace):
    """One log of a view: the rows that one machine of a region took, numbered from 1.

    `last_sequence`, `unsealed_rows` and `oldest_unsealed_at` are as of `reported_at`, from whoever has the log.
    """

    __tablename__ = "feature_logs"
    __table_args__ = (Index(None, "workspace_id", "view"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    view: Mapped[str] = mapped_column(name_type())
    residency: Mapped[str] = mapped_column(name_type(63))
    region: Mapped[str] = mapped_column(name_type(63))
    last_sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    unsealed_rows: Mapped[int] = mapped_column(BigInteger, default=0)
    oldest_unsealed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reported_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FeatureLogSegmentRow(InWorkspace):
    """A sealed stretch of a log, as an artifact: one for each residency class of the view's columns.

    It counts once its upload was read back. Times of events are kept of data that may be where the record is, alone.
    """

    __tablename__ = "feature_log_segments"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "log_id"], _LOG),
        Index(None, "workspace_id", "view"),
        Index(None, "workspace_id", "artifact_digest"),
    )

    log_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    first_sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    residency: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    last_sequence: Mapped[int] = mapped_column(BigInteger)
    view: Mapped[str] = mapped_column(name_type())
    view_digest: Mapped[str] = mapped_column(DIGEST)
    upload_id: Mapped[str] = mapped_column(ROW_ID)
    artifact_digest: Mapped[str] = mapped_column(DIGEST)
    row_count: Mapped[int] = mapped_column(BigInteger)
    first_accepted_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_accepted_at: Mapped[datetime] = mapped_column(UtcDateTime)
    min_event_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    max_event_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    sealed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FeatureLogReaderRow(InWorkspace):
    """How far a region's online store of a service has read a log, since it serves the snapshot that is named."""

    __tablename__ = "feature_log_readers"
    __table_args__ = (ForeignKeyConstraint(["workspace_id", "log_id"], _LOG),)

    service: Mapped[str] = mapped_column(name_type(), primary_key=True)
    region: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    log_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    snapshot_digest: Mapped[str] = mapped_column(DIGEST)
    sequence: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SnapshotLogRow(InWorkspace):
    """Up to where a part of a snapshot holds the rows of each log, as `[{"log", "region", "through"}]`."""

    __tablename__ = "snapshot_logs"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "snapshot_id"], ["snapshots.workspace_id", "snapshots.id"]),
    )

    snapshot_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    view: Mapped[str] = mapped_column(name_type(), primary_key=True)
    residency: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    positions: Mapped[list[JsonObject]] = mapped_column(JsonType)
