"""Tables of what is expected of snapshots, and what was found."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace, JsonObject


class ExpectationsRow(InWorkspace):
    """What is expected of the snapshots of a service, or of every service that takes a view."""

    __tablename__ = "feature_expectations"

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    document: Mapped[JsonObject] = mapped_column(JsonType)
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SnapshotCheckRow(InWorkspace):
    """The check of one part of a snapshot: WAITING -> PASSED | FAILED, both with results.

    `expectations` are those that it is held to. `is_blocking` until an answer is there, and then if an expectation of
    severity `error` failed: such a snapshot is not served. `against` is the digest of the snapshot that it was
    compared with.
    """

    __tablename__ = "snapshot_checks"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "snapshot_id"], ["snapshots.workspace_id", "snapshots.id"]),
        Index(None, "state"),
    )

    snapshot_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    view: Mapped[str] = mapped_column(name_type(), primary_key=True)
    residency: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    region: Mapped[str] = mapped_column(name_type(63))
    state: Mapped[str] = mapped_column(String(16))
    is_blocking: Mapped[bool]
    expectations: Mapped[list[JsonObject]] = mapped_column(JsonType)
    results: Mapped[list[dict[str, Any]] | None] = mapped_column(JsonType)
    against: Mapped[str | None] = mapped_column(DIGEST)
    error_code: Mapped[str | None] = mapped_column(String(63))
    error_detail: Mapped[str | None] = mapped_column(Text)
    checked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
