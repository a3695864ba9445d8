"""Expectations on snapshots, and erasures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "feature_expectations",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("document", JsonType, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_feature_expectations_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_feature_expectations")),
    )
    op.create_table(
        "snapshot_checks",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("snapshot_id", sa.String(length=36), nullable=False),
        sa.Column("view", name_type(255), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("is_blocking", sa.Boolean(), nullable=False),
        sa.Column("expectations", JsonType, nullable=False),
        sa.Column("results", JsonType, nullable=True),
        sa.Column("against", name_type(71), nullable=True),
        sa.Column("error_code", sa.String(length=63), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("checked_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "snapshot_id"],
            ["snapshots.workspace_id", "snapshots.id"],
            name=op.f("fk_snapshot_checks_snapshots"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_snapshot_checks_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "snapshot_id", "view", "residency", name=op.f("pk_snapshot_checks")),
    )
    op.create_index(op.f("ix_snapshot_checks_state"), "snapshot_checks", ["state"])
    op.create_table(
        "erasures",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("keys", JsonType, nullable=False),
        sa.Column("salt", sa.String(length=64), nullable=False),
        sa.Column("subject_hash", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=False),
        sa.Column("requested_by", name_type(255), nullable=False),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("certificate", JsonType, nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_erasures_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_erasures")),
    )
    op.create_index(op.f("ix_erasures_state"), "erasures", ["state"])
    op.create_table(
        "erased_artifacts",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("erasure_id", sa.String(length=36), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("digest", name_type(71), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("region", name_type(63), nullable=True),
        sa.Column("upload_id", sa.String(length=36), nullable=True),
        sa.Column("new_digest", name_type(71), nullable=True),
        sa.Column("rows_removed", sa.BigInteger(), nullable=True),
        sa.Column("facts", JsonType, nullable=True),
        sa.Column("blocks", sa.LargeBinary(), nullable=True),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "erasure_id"],
            ["erasures.workspace_id", "erasures.id"],
            name=op.f("fk_erased_artifacts_erasures"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_erased_artifacts_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "erasure_id", "residency", "digest", name=op.f("pk_erased_artifacts")),
    )
    op.create_table(
        "erased_parts",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("erasure_id", sa.String(length=36), nullable=False),
        sa.Column("snapshot_id", sa.String(length=36), nullable=False),
        sa.Column("view", name_type(255), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("old_digest", name_type(71), nullable=False),
        sa.Column("new_digest", name_type(71), nullable=False),
        sa.Column("old_rows_digest", name_type(71), nullable=True),
        sa.Column("rows_digest", name_type(71), nullable=True),
        sa.Column("rows_removed", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "erasure_id"],
            ["erasures.workspace_id", "erasures.id"],
            name=op.f("fk_erased_parts_erasures"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_erased_parts_workspaces")),
        sa.PrimaryKeyConstraint(
            "workspace_id", "erasure_id", "snapshot_id", "view", "residency", name=op.f("pk_erased_parts")
        ),
    )
    op.create_index(op.f("ix_erased_parts_workspace_id_snapshot_id"), "erased_parts", ["workspace_id", "snapshot_id"])
    op.create_table(
        "erased_locations",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("erasure_id", sa.String(length=36), nullable=False),
        sa.Column("location_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("objects", JsonType, nullable=True),
        sa.Column("objects_deleted", sa.Integer(), nullable=False),
        sa.Column("checked_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "erasure_id"],
            ["erasures.workspace_id", "erasures.id"],
            name=op.f("fk_erased_locations_erasures"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_erased_locations_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "erasure_id", "location_id", name=op.f("pk_erased_locations")),
    )
    op.create_table(
        "erased_stores",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("erasure_id", sa.String(length=36), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("service", name_type(255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("facts", JsonType, nullable=True),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "erasure_id"],
            ["erasures.workspace_id", "erasures.id"],
            name=op.f("fk_erased_stores_erasures"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_erased_stores_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "erasure_id", "region", "service", name=op.f("pk_erased_stores")),
    )


def downgrade() -> None:
    """Forget what was expected, found and erased."""
    op.drop_table("erased_stores")
    op.drop_table("erased_locations")
    op.drop_table("erased_parts")
    op.drop_table("erased_artifacts")
    op.drop_table("erasures")
    op.drop_table("snapshot_checks")
    op.drop_table("feature_expectations")
