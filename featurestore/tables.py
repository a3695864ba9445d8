"""The feature store's tables: definitions and their versions, snapshots, and what each region's online store serves."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace, JsonObject


class FeatureVersionRow(InWorkspace):
    """One version of an entity, view, service or source: its digest names what it means. Never changed, never removed.

    `number` counts the versions of a name from 1, for people; going back to an earlier definition adds no row. `spec`
    is what was sent when it was first applied, with the code that an on-demand view runs where it is read.
    """

    __tablename__ = "feature_versions"
    __table_args__ = (UniqueConstraint("workspace_id", "kind", "name", "number"),)

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    number: Mapped[int] = mapped_column(Integer)
    content: Mapped[JsonObject] = mapped_column(JsonType)
    spec: Mapped[JsonObject | None] = mapped_column(JsonType)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FeatureDefinitionRow(InWorkspace):
    """The definition that a name stands for now, as Feast's JSON gave it, and the version that it is.

    A view's residency class never changes: its earlier snapshots lie where that class let them. Its `home`, the region
    where its source is read and joins run, may. `project` is the Feast project that it was last applied with. A name
    that was taken away keeps its row, for what was pinned before.
    """

    __tablename__ = "feature_definitions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "kind", "name", "digest"],
            [
                "feature_versions.workspace_id",
                "feature_versions.kind",
                "feature_versions.name",
                "feature_versions.digest",
            ],
        ),
    )

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    digest: Mapped[str] = mapped_column(DIGEST)
    residency: Mapped[str] = mapped_column(name_type(63))
    home: Mapped[str | None] = mapped_column(name_type(63))
    column_residency: Mapped[JsonObject | None] = mapped_column(JsonType)
    spec: Mapped[JsonObject] = mapped_column(JsonType)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    project: Mapped[str | None] = mapped_column(name_type())
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SnapshotRow(InWorkspace):
    """The data of a service as of a time: PENDING -> READY (every part's bytes were read back) | FAILED.

    `digest` is the sha256 of the snapshot's record. Two snapshots with one digest are the same data.
    """

    __tablename__ = "snapshots"
    __table_args__ = (
        Index(None, "workspace_id", "service", "state"),
        Index(None, "workspace_id", "digest"),
        Index(None, "state"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    service: Mapped[str] = mapped_column(name_type())
    service_digest: Mapped[str] = mapped_column(DIGEST)
    as_of: Mapped[datetime] = mapped_column(UtcDateTime)
    state: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str | None] = mapped_column(DIGEST)
    error_code: Mapped[str | None] = mapped_column(String(63))
    error_detail: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ready_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SnapshotPartRow(InWorkspace):
    """Rows of one view in a snapshot, with the features of one residency class: an artifact that stays where it lets.

    `upload_id` is set when the rows are written and handed over to be verified. `features` is None where parts had all
    features of their view. `rows_digest` names the rows themselves, however they are stored (see
    `fairlead.featurestore.rows`), `delta_count` is the number of deltas upon the artifact's base, and `sent_bytes` what
    went over the wire for it.
    """

    __tablename__ = "snapshot_parts"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "snapshot_id"], ["snapshots.workspace_id", "snapshots.id"]),
        Index(None, "workspace_id", "artifact_digest"),
        Index(None, "workspace_id", "view", "view_digest"),
    )

    snapshot_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    view: Mapped[str] = mapped_column(name_type(), primary_key=True)
    residency: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    view_digest: Mapped[str] = mapped_column(DIGEST)
    region: Mapped[str] = mapped_column(name_type(63))
    features: Mapped[list[str] | None] = mapped_column(JsonType)
    upload_id: Mapped[str | None] = mapped_column(ROW_ID)
    artifact_digest: Mapped[str | None] = mapped_column(DIGEST)
    rows_digest: Mapped[str | None] = mapped_column(DIGEST)
    row_count: Mapped[int | None] = mapped_column(BigInteger)
    delta_count: Mapped[int | None] = mapped_column(Integer)
    sent_bytes: Mapped[int | None] = mapped_column(BigInteger)
    statistics: Mapped[JsonObject | None] = mapped_column(JsonType)


class OnlineIntentRow(InWorkspace):
    """That somebody asked for a service online. No snapshot: the newest; no regions: wherever its data may be."""

    __tablename__ = "online_intents"

    service: Mapped[str] = mapped_column(name_type(), primary_key=True)
    snapshot_digest: Mapped[str | None] = mapped_column(DIGEST)
    regions: Mapped[list[str] | None] = mapped_column(JsonType)
    asked_by: Mapped[str] = mapped_column(name_type())
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)


class OnlineStateRow(InWorkspace):
    """What one region's online store should serve and what it serves.

    WAITING (a part has no verified replica there yet) -> PENDING (work is asked for) -> READY (served is wanted);
    LEAVING: it is not wanted there any longer, and the row goes when the store is gone. `missing_views` may not be in
    the region at all.
    """

    __tablename__ = "online_states"
    __table_args__ = (Index(None, "workspace_id", "state"),)

    service: Mapped[str] = mapped_column(name_type(), primary_key=True)
    region: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    wanted_snapshot: Mapped[str] = mapped_column(DIGEST)
    served_snapshot: Mapped[str | None] = mapped_column(DIGEST)
    row_count: Mapped[int | None] = mapped_column(BigInteger)
    missing_views: Mapped[list[str]] = mapped_column(JsonType, default=list)
    # What its region's worker keeps it with, and whether that switches from one snapshot to the next at once.
    engine: Mapped[str | None] = mapped_column(name_type())
    is_atomic: Mapped[bool | None]
    materialized_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
