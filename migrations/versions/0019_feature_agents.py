"""Feature agents, and home regions of feature views."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import UtcDateTime, name_type

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; views that are there have no home yet."""
    op.add_column("feature_definitions", sa.Column("home", name_type(63), nullable=True))
    op.create_table(
        "feature_agents",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("address", name_type(255), nullable=False),
        sa.Column("certificate", sa.Text(), nullable=False),
        sa.Column("certificate_sha256", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("principal", name_type(255), nullable=False),
        sa.Column("registered_by", name_type(255), nullable=False),
        sa.Column("registered_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_feature_agents_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "region", "address", name=op.f("pk_feature_agents")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("feature_agents")
    op.drop_column("feature_definitions", "home")
