"""Signatures of versions and whom to believe."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; no version is signed."""
    op.create_table(
        "signers",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=True),
        sa.Column("key_id", sa.String(length=64), nullable=True),
        sa.Column("identity", sa.Text(), nullable=True),
        sa.Column("issuer", sa.Text(), nullable=True),
        sa.Column("trusted_root", JsonType, nullable=True),
        sa.Column("models", JsonType, nullable=False),
        sa.Column("not_before", UtcDateTime(), nullable=True),
        sa.Column("not_after", UtcDateTime(), nullable=True),
        sa.Column("revoked_at", UtcDateTime(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_signers_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_signers")),
    )
    op.create_table(
        "version_signatures",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("artifact_digest", name_type(71), nullable=False),
        sa.Column("signer", name_type(255), nullable=False),
        sa.Column("envelope", JsonType, nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id", "version"],
            ["model_versions.workspace_id", "model_versions.model_id", "model_versions.version"],
            name=op.f("fk_version_signatures_model_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_version_signatures_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_version_signatures")),
        sa.UniqueConstraint(
            "workspace_id", "model_id", "sequence", name=op.f("uq_version_signatures_workspace_id_model_id_sequence")
        ),
    )


def downgrade() -> None:
    """Drop them; signatures are lost."""
    op.drop_table("version_signatures")
    op.drop_table("signers")
