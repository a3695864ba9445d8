"""Tables of feature servers, and of checks of what online stores serve."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace, JsonObject


class FeatureServerRow(InWorkspace):
    """A feature server that clients may be sent to, and when it last said that it answers."""

    __tablename__ = "feature_servers"
    __table_args__ = (UniqueConstraint("workspace_id", "url"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    region: Mapped[str] = mapped_column(name_type(63))
    url: Mapped[str] = mapped_column(name_type(500))
    registered_by: Mapped[str] = mapped_column(name_type())
    registered_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FeatureCheckRow(InWorkspace):
    """A check of a service's online stores: of their rows (`parity`), or of what they were asked for (`skew`).

    `snapshot_digest` is what is compared with; `settings` are the seed, sizes and limits.
    """

    __tablename__ = "feature_checks"
    __table_args__ = (Index(None, "workspace_id", "service"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    kind: Mapped[str] = mapped_column(String(16))
    service: Mapped[str] = mapped_column(name_type())
    snapshot_digest: Mapped[str] = mapped_column(DIGEST)
    slot: Mapped[str] = mapped_column(DIGEST)
    settings: Mapped[JsonObject] = mapped_column(JsonType)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FeatureCheckRegionRow(InWorkspace):
    """What one region's worker found: PENDING -> DONE. Of views under a residency class only counts are kept."""

    __tablename__ = "feature_check_regions"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "check_id"], ["feature_checks.workspace_id", "feature_checks.id"]),
    )

    check_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    region: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    findings: Mapped[JsonObject | None] = mapped_column(JsonType)
    error_detail: Mapped[str | None] = mapped_column(Text)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
