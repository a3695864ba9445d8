"""Which Feast project a definition is from, and when it was taken away."""

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


def downgrade() -> None:
    """Drop them: what was taken away is there again."""
    op.drop_column("feature_definitions", "removed_at")
    op.drop_column("feature_definitions", "project")
