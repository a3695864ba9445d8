"""Rows of snapshots as a base and deltas, by residency class."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, name_type

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A view's columns may be under classes of their own, and then have parts of their own."""
    op.add_column("feature_definitions", sa.Column("column_residency", JsonType, nullable=True))
    with op.batch_alter_table("snapshot_parts") as batch:
        batch.add_column(sa.Column("features", JsonType, nullable=True))
        batch.add_column(sa.Column("rows_digest", name_type(71), nullable=True))
        batch.add_column(sa.Column("delta_count", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("sent_bytes", sa.BigInteger(), nullable=True))
        batch.create_index(
            batch.f("ix_snapshot_parts_workspace_id_view_view_digest"), ["workspace_id", "view", "view_digest"]
        )
        batch.drop_constraint("pk_snapshot_parts", type_="primary")
        batch.create_primary_key("pk_snapshot_parts", ["workspace_id", "snapshot_id", "view", "residency"])


def downgrade() -> None:
    """Fold it back; fails where a view has two parts, because a part's rows cannot be without its columns."""
    with op.batch_alter_table("snapshot_parts") as batch:
        batch.drop_constraint("pk_snapshot_parts", type_="primary")
        batch.create_primary_key("pk_snapshot_parts", ["workspace_id", "snapshot_id", "view"])
        batch.drop_index(batch.f("ix_snapshot_parts_workspace_id_view_view_digest"))
        for name in ("sent_bytes", "delta_count", "rows_digest", "features"):
            batch.drop_column(name)
    op.drop_column("feature_definitions", "column_residency")
