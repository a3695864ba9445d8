"""Indexes that keep reads quick."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NAME = "ix_version_tags_value"
_SHORT = sa.text("length(value) <= 255")


def upgrade() -> None:
    """Find versions by the value of a tag."""
    columns = ["workspace_id", "key", "value", "model_id", "version"]
    op.create_index(_NAME, "version_tags", columns, postgresql_where=_SHORT, sqlite_where=_SHORT)


def downgrade() -> None:
    """Find them by its key alone."""
    op.drop_index(_NAME, "version_tags")
