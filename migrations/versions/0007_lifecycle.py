"""Archive, restore, retention and model cards."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and columns; nothing is archived, and nothing has a card."""
    op.create_table(
        "retention_policies",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("document", JsonType, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_retention_policies_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_retention_policies")),
    )
    for table in ("registered_models", "model_versions"):
        op.add_column(table, sa.Column("card", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("card_revision", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        op.add_column(table, sa.Column("archived_at", UtcDateTime(), nullable=True))
    op.add_column("model_versions", sa.Column("released_at", UtcDateTime(), nullable=True))
    op.add_column("artifacts", sa.Column("released_at", UtcDateTime(), nullable=True))


def downgrade() -> None:
    """Drop them again; cards are lost."""
    op.drop_column("artifacts", "released_at")
    op.drop_column("model_versions", "released_at")
    for table in ("model_versions", "registered_models"):
        op.drop_column(table, "archived_at")
        op.drop_column(table, "card_revision")
        op.drop_column(table, "card")
    op.drop_table("retention_policies")
