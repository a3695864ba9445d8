"""Find versions by what they were made of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ORIGINS = ("run_id", "code_commit", "snapshot_digest")


def upgrade() -> None:
    """Index what lineage is asked from; a version that does not say it costs nothing."""
    for name in _ORIGINS:
        is_said = sa.text(f"{name} IS NOT NULL")
        op.create_index(
            _index(name), "model_versions", ["workspace_id", name], postgresql_where=is_said, sqlite_where=is_said
        )


def downgrade() -> None:
    """Look at every version again."""
    for name in _ORIGINS:
        op.drop_index(_index(name), "model_versions")


def _index(name: str) -> str:
    return f"ix_model_versions_workspace_id_{name}"
