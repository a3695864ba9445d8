"""Locations that were given up for lost, and whether they came back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import UtcDateTime, name_type

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "lost_locations",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("location_id", sa.String(length=36), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("has_region", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("lost_by", name_type(255), nullable=False),
        sa.Column("lost_at", UtcDateTime(), nullable=False),
        sa.Column("returned_as", sa.String(length=36), nullable=True),
        sa.Column("cleared_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_lost_locations_workspaces")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "location_id"],
            ["locations.workspace_id", "locations.id"],
            name=op.f("fk_lost_locations_locations"),
        ),
        sa.PrimaryKeyConstraint("workspace_id", "location_id", name=op.f("pk_lost_locations")),
    )
    op.create_index(
        op.f("ix_lost_locations_workspace_id_returned_as"), "lost_locations", ["workspace_id", "returned_as"]
    )


def downgrade() -> None:
    """Forget them."""
    op.drop_table("lost_locations")
