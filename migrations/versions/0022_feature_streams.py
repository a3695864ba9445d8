"""Logs of pushed features: where they are, what of them is sealed, and how far online stores have read them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "feature_logs",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("view", name_type(255), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("unsealed_rows", sa.BigInteger(), nullable=False),
        sa.Column("oldest_unsealed_at", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("reported_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_feature_logs_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_feature_logs")),
    )
    op.create_index(op.f("ix_feature_logs_workspace_id_view"), "feature_logs", ["workspace_id", "view"])
    op.create_table(
        "feature_log_segments",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("log_id", sa.String(length=36), nullable=False),
        sa.Column("first_sequence", sa.BigInteger(), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("view", name_type(255), nullable=False),
        sa.Column("view_digest", name_type(71), nullable=False),
        sa.Column("upload_id", sa.String(length=36), nullable=False),
        sa.Column("artifact_digest", name_type(71), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("first_accepted_at", UtcDateTime(), nullable=False),
        sa.Column("last_accepted_at", UtcDateTime(), nullable=False),
        sa.Column("min_event_time", UtcDateTime(), nullable=True),
        sa.Column("max_event_time", UtcDateTime(), nullable=True),
        sa.Column("sealed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "log_id"],
            ["feature_logs.workspace_id", "feature_logs.id"],
            name=op.f("fk_feature_log_segments_feature_logs"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_feature_log_segments_workspaces")
        ),
        sa.PrimaryKeyConstraint(
            "workspace_id", "log_id", "first_sequence", "residency", name=op.f("pk_feature_log_segments")
        ),
    )
    for column in ("view", "artifact_digest"):
        op.create_index(
            op.f(f"ix_feature_log_segments_workspace_id_{column}"), "feature_log_segments", ["workspace_id", column]
        )
    op.create_table(
        "feature_log_readers",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("service", name_type(255), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("log_id", sa.String(length=36), nullable=False),
        sa.Column("snapshot_digest", name_type(71), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "log_id"],
            ["feature_logs.workspace_id", "feature_logs.id"],
            name=op.f("fk_feature_log_readers_feature_logs"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_feature_log_readers_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "service", "region", "log_id", name=op.f("pk_feature_log_readers")),
    )
    op.create_table(
        "snapshot_logs",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("snapshot_id", sa.String(length=36), nullable=False),
        sa.Column("view", name_type(255), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("positions", JsonType, nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "snapshot_id"],
            ["snapshots.workspace_id", "snapshots.id"],
            name=op.f("fk_snapshot_logs_snapshots"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_snapshot_logs_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "snapshot_id", "view", "residency", name=op.f("pk_snapshot_logs")),
    )


def downgrade() -> None:
    """Forget them; what was pushed since the last snapshot is in no snapshot then."""
    op.drop_table("snapshot_logs")
    op.drop_table("feature_log_readers")
    op.drop_table("feature_log_segments")
    op.drop_table("feature_logs")
