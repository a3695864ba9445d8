"""Forget what a deployment's regions said twice: the online store is part of the wanted workload."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop it; nobody reads it."""
    with op.batch_alter_table("deployment_regions") as batch_op:
        batch_op.drop_column("wanted_store")


def downgrade() -> None:
    """Add it again, empty."""
    op.add_column("deployment_regions", sa.Column("wanted_store", sa.Text(), nullable=True))
