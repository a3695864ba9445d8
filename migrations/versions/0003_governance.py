"""Governance: promotion policies, roles, issuers, evaluations, and what MLflow knows of versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables and columns; versions that are there have no source and no stage."""
    op.create_table(
        "issuers",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("audience", sa.Text(), nullable=False),
        sa.Column("rules", JsonType, nullable=False),
        sa.Column("settings", JsonType, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_issuers_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_issuers")),
    )
    op.create_table(
        "promotion_policies",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("document", JsonType, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_promotion_policies_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_promotion_policies")),
    )
    op.create_table(
        "role_bindings",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("principal", name_type(255), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("models", name_type(255), nullable=False),
        sa.Column("environments", name_type(255), nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_role_bindings_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_role_bindings")),
        sa.UniqueConstraint(
            "workspace_id",
            "principal",
            "role",
            "models",
            "environments",
            name=op.f("uq_role_bindings_workspace_id_principal_role_models_environments"),
        ),
    )
    op.create_table(
        "tracking_servers",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("settings", JsonType, nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_tracking_servers_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_tracking_servers")),
    )

    op.create_table(
        "evaluations",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("dataset", name_type(255), nullable=True),
        sa.Column("metrics", JsonType, nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id", "version"],
            ["model_versions.workspace_id", "model_versions.model_id", "model_versions.version"],
            name=op.f("fk_evaluations_model_versions"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_evaluations_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_evaluations")),
    )
    op.create_index(
        op.f("ix_evaluations_workspace_id_model_id_version"),
        "evaluations",
        ["workspace_id", "model_id", "version"],
        unique=False,
    )

    op.add_column("model_versions", sa.Column("source", sa.Text(), nullable=True))
    op.add_column("model_versions", sa.Column("run_link", sa.Text(), nullable=True))
    op.add_column("model_versions", sa.Column("stage", sa.String(length=16), nullable=True))
    op.add_column("model_versions", sa.Column("code_commit", name_type(255), nullable=True))
    op.add_column("model_versions", sa.Column("deleted_at", UtcDateTime(), nullable=True))
    op.add_column("model_versions", sa.Column("changed_at", UtcDateTime(), nullable=True))

    op.add_column("registered_models", sa.Column("deleted_at", UtcDateTime(), nullable=True))

    op.add_column(
        "promotions", sa.Column("residency", name_type(63), nullable=False, server_default=sa.text("'unrestricted'"))
    )
    promotions = sa.table("promotions", *(sa.column(name) for name in ("workspace_id", "model_id", "residency")))
    models = sa.table("registered_models", *(sa.column(name) for name in ("workspace_id", "id", "residency")))
    of_model = sa.select(models.c.residency).where(
        models.c.workspace_id == promotions.c.workspace_id, models.c.id == promotions.c.model_id
    )
    op.execute(promotions.update().values(residency=of_model.scalar_subquery()))
    op.add_column("approvals", sa.Column("roles", JsonType, nullable=False, server_default=sa.text("'[]'")))


def downgrade() -> None:
    """Drop them again; what they said is lost."""
    op.drop_column("approvals", "roles")
    op.drop_column("promotions", "residency")

    op.drop_column("registered_models", "deleted_at")

    op.drop_column("model_versions", "changed_at")
    op.drop_column("model_versions", "deleted_at")
    op.drop_column("model_versions", "code_commit")
    op.drop_column("model_versions", "stage")
    op.drop_column("model_versions", "run_link")
    op.drop_column("model_versions", "source")

    op.drop_index(op.f("ix_evaluations_workspace_id_model_id_version"), table_name="evaluations")

    op.drop_table("evaluations")

    op.drop_table("tracking_servers")
    op.drop_table("role_bindings")
    op.drop_table("promotion_policies")
    op.drop_table("issuers")
