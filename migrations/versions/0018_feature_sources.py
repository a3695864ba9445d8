"""Which Feast project a definition is from, when it was taken away, and what Feast materialized."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import UtcDateTime, name_type

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; definitions that are there are of no project, and none was taken away."""
    op.add_column("feature_definitions", sa.Column("project", name_type(), nullable=True))
    op.add_column("feature_definitions", sa.Column("removed_at", UtcDateTime(), nullable=True))
    op.create_table(
        "feast_materializations",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("service", name_type(), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("store", sa.String(length=36), nullable=False),
        sa.Column("view", name_type(), nullable=False),
        sa.Column("snapshot_digest", name_type(71), nullable=False),
        sa.Column("start_at", UtcDateTime(), nullable=False),
        sa.Column("end_at", UtcDateTime(), nullable=False),
        sa.Column("reported_by", name_type(), nullable=False),
        sa.Column("reported_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_feast_materializations_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_feast_materializations")),
    )
    op.create_index(
        op.f("ix_feast_materializations_workspace_id_service_region_store"),
        "feast_materializations",
        ["workspace_id", "service", "region", "store"],
    )


def downgrade() -> None:
    """Drop them: what was taken away is there again."""
    op.drop_table("feast_materializations")
    op.drop_column("feature_definitions", "removed_at")
    op.drop_column("feature_definitions", "project")
