"""Feature servers, checks of parity, and logs of what was served."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "feature_servers",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("url", name_type(500), nullable=False),
        sa.Column("registered_by", name_type(255), nullable=False),
        sa.Column("registered_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_feature_servers_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_feature_servers")),
        sa.UniqueConstraint("workspace_id", "url", name=op.f("uq_feature_servers_workspace_id_url")),
    )
    op.create_table(
        "feature_checks",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("service", name_type(255), nullable=False),
        sa.Column("snapshot_digest", name_type(71), nullable=False),
        sa.Column("slot", name_type(71), nullable=False),
        sa.Column("settings", JsonType, nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_feature_checks_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_feature_checks")),
    )
    op.create_index(op.f("ix_feature_checks_workspace_id_service"), "feature_checks", ["workspace_id", "service"])
    op.create_table(
        "feature_check_regions",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("check_id", sa.String(length=36), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("findings", JsonType, nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "check_id"],
            ["feature_checks.workspace_id", "feature_checks.id"],
            name=op.f("fk_feature_check_regions_feature_checks"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_feature_check_regions_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "check_id", "region", name=op.f("pk_feature_check_regions")),
    )


def downgrade() -> None:
    """Forget them; feature servers say again where they are, and checks can be made again."""
    op.drop_table("feature_check_regions")
    op.drop_table("feature_checks")
    op.drop_table("feature_servers")
