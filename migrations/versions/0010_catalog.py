"""What feeds bring to the catalog, and private regions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; until a feed is refreshed the catalog is the bundled one."""
    op.create_table(
        "catalog_feeds",
        sa.Column("feed", name_type(63), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("figures", sa.BigInteger(), nullable=False),
        sa.Column("missing", JsonType, nullable=False),
        sa.Column("attempted_at", UtcDateTime(), nullable=True),
        sa.Column("succeeded_at", UtcDateTime(), nullable=True),
        sa.Column("read_whole_at", UtcDateTime(), nullable=True),
        sa.Column("error_code", sa.String(63), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("feed", name=op.f("pk_catalog_feeds")),
    )
    op.create_table(
        "catalog_figures",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("feed", name_type(63), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("item", name_type(255), nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.Column("unit", sa.String(16), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("licence", sa.Text(), nullable=False),
        sa.Column("date", sa.String(10), nullable=False),
        sa.Column("is_estimate", sa.Boolean(), nullable=False),
        sa.Column("first_seen_at", UtcDateTime(), nullable=False),
        sa.Column("last_seen_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog_figures")),
        sa.UniqueConstraint(
            "feed",
            "kind",
            "region",
            "item",
            "first_seen_at",
            name=op.f("uq_catalog_figures_feed_kind_region_item_first_seen_at"),
        ),
    )
    op.create_index(op.f("ix_catalog_figures_first_seen_at"), "catalog_figures", ["first_seen_at"])
    op.create_table(
        "private_regions",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("document", JsonType, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_private_regions_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "region", name=op.f("pk_private_regions")),
        sa.UniqueConstraint("region", name=op.f("uq_private_regions_region")),
    )


def downgrade() -> None:
    """Drop them; what feeds brought and private regions are lost."""
    op.drop_table("private_regions")
    op.drop_table("catalog_figures")
    op.drop_table("catalog_feeds")
