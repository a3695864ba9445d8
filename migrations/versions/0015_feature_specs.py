"""Keep what was sent of every version of a feature definition, not of the present one alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; of versions that are there, only the present ones say it."""
    op.add_column("feature_versions", sa.Column("spec", JsonType, nullable=True))


def downgrade() -> None:
    """Forget it."""
    op.drop_column("feature_versions", "spec")
