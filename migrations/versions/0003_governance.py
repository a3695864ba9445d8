"""Governance: promotion policies, roles, issuers, webhooks, signatures, evaluations, and what MLflow knows of versions."""

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
        "imports",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("source", name_type(512), nullable=False),
        sa.Column("external_id", name_type(512), nullable=False),
        sa.Column("model", name_type(255), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("imported_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_imports_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "source", "external_id", name=op.f("pk_imports")),
    )
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
        "signing_keys",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", name_type(128), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("retired_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_signing_keys_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_signing_keys")),
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
        "webhooks",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("events", JsonType, nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("delivered_sequence", sa.BigInteger(), nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_webhooks_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_webhooks")),
        sa.UniqueConstraint("workspace_id", "name", name=op.f("uq_webhooks_workspace_id_name")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("webhook_id", sa.String(length=36), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.String(length=63), nullable=False),
        sa.Column("payload", JsonType, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", UtcDateTime(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "webhook_id"],
            ["webhooks.workspace_id", "webhooks.id"],
            name=op.f("fk_webhook_deliveries_webhooks"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_webhook_deliveries_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint(
            "workspace_id",
            "webhook_id",
            "sequence",
            name=op.f("uq_webhook_deliveries_workspace_id_webhook_id_sequence"),
        ),
    )
    op.create_index(
        op.f("ix_webhook_deliveries_state_not_before"), "webhook_deliveries", ["state", "not_before"], unique=False
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

    op.create_table(
        "version_signatures",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("artifact_digest", name_type(71), nullable=False),
        sa.Column("key_id", name_type(128), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
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
    )
    op.create_index(
        op.f("ix_version_signatures_workspace_id_model_id_version"),
        "version_signatures",
        ["workspace_id", "model_id", "version"],
        unique=False,
    )

    op.add_column("model_versions", sa.Column("source", sa.Text(), nullable=True))
    op.add_column("model_versions", sa.Column("run_link", sa.Text(), nullable=True))
    op.add_column("model_versions", sa.Column("stage", sa.String(length=16), nullable=True))
    op.add_column("model_versions", sa.Column("code_commit", name_type(255), nullable=True))
    op.add_column("model_versions", sa.Column("archived_at", UtcDateTime(), nullable=True))
    op.add_column("model_versions", sa.Column("deleted_at", UtcDateTime(), nullable=True))
    op.add_column("model_versions", sa.Column("changed_at", UtcDateTime(), nullable=True))

    op.add_column("registered_models", sa.Column("card", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.add_column("registered_models", sa.Column("archived_at", UtcDateTime(), nullable=True))
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
    op.drop_column("registered_models", "archived_at")
    op.drop_column("registered_models", "card")

    op.drop_column("model_versions", "changed_at")
    op.drop_column("model_versions", "deleted_at")
    op.drop_column("model_versions", "archived_at")
    op.drop_column("model_versions", "code_commit")
    op.drop_column("model_versions", "stage")
    op.drop_column("model_versions", "run_link")
    op.drop_column("model_versions", "source")

    op.drop_index(op.f("ix_version_signatures_workspace_id_model_id_version"), table_name="version_signatures")

    op.drop_table("version_signatures")
    op.drop_index(op.f("ix_evaluations_workspace_id_model_id_version"), table_name="evaluations")

    op.drop_table("evaluations")
    op.drop_index(op.f("ix_webhook_deliveries_state_not_before"), table_name="webhook_deliveries")

    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
    op.drop_table("tracking_servers")
    op.drop_table("signing_keys")
    op.drop_table("role_bindings")
    op.drop_table("promotion_policies")
    op.drop_table("issuers")
    op.drop_table("imports")
