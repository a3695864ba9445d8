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
    op.create_table(
        "model_cards",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id"],
            ["registered_models.workspace_id", "registered_models.id"],
            name=op.f("fk_model_cards_registered_models"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_model_cards_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "model_id", "version", name=op.f("pk_model_cards")),
    )
    for table in ("registered_models", "model_versions"):
        op.add_column(table, sa.Column("archived_at", UtcDateTime(), nullable=True))
    op.add_column("model_versions", sa.Column("released_at", UtcDateTime(), nullable=True))
    op.add_column("artifacts", sa.Column("released_at", UtcDateTime(), nullable=True))


def downgrade() -> None:
    """Drop them again; cards are lost."""
    op.drop_column("artifacts", "released_at")
    op.drop_column("model_versions", "released_at")
    for table in ("model_versions", "registered_models"):
        op.drop_column(table, "archived_at")
    op.drop_table("model_cards")
    op.drop_table("retention_policies")
