"""Online stores by engine, the snapshots that they keep, and how fresh they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables, and the name of the engine that serves a region."""
    op.add_column("online_states", sa.Column("engine", name_type(255), nullable=True))
    op.add_column("online_states", sa.Column("is_atomic", sa.Boolean(), nullable=True))
    op.create_table(
        "online_slots",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("service", name_type(255), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("slot", name_type(71), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("served_snapshot", name_type(71), nullable=True),
        sa.Column("engine", name_type(255), nullable=True),
        sa.Column("is_atomic", sa.Boolean(), nullable=True),
        sa.Column("row_count", sa.BigInteger(), nullable=True),
        sa.Column("missing_views", JsonType, nullable=False),
        sa.Column("materialized_at", UtcDateTime(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_online_slots_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "service", "region", "slot", name=op.f("pk_online_slots")),
    )
    op.create_index(op.f("ix_online_slots_workspace_id_state"), "online_slots", ["workspace_id", "state"])
    op.create_table(
        "online_freshness",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("service", name_type(255), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("view", name_type(255), nullable=False),
        sa.Column("as_of", UtcDateTime(), nullable=False),
        sa.Column("materialized_at", UtcDateTime(), nullable=False),
        sa.Column("watermark", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "service", "region"],
            ["online_states.workspace_id", "online_states.service", "online_states.region"],
            name=op.f("fk_online_freshness_online_states"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_online_freshness_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "service", "region", "view", name=op.f("pk_online_freshness")),
    )


def downgrade() -> None:
    """Take them away again."""
    op.drop_table("online_freshness")
    op.drop_index(op.f("ix_online_slots_workspace_id_state"), table_name="online_slots")
    op.drop_table("online_slots")
    with op.batch_alter_table("online_states") as batch:
        batch.drop_column("is_atomic")
        batch.drop_column("engine")
