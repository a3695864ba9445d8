"""Deploy targets, and the revisions and steps of deployments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_REGION_COLUMNS = {
    "carbon_g_per_hour": sa.String(length=32),
    "shares": JsonType,
    "instances": JsonType,
    "running_target": name_type(255),
    "leaving_target": name_type(255),
    "wanted_workload": JsonType,
    "workload": JsonType,
    "identity": sa.Text(),
    "former_url": sa.Text(),
    "former_identity": sa.Text(),
    "health": sa.String(length=16),
    "unready_since": UtcDateTime(),
    "differences": JsonType,
}


def upgrade() -> None:
    """Add tables and columns; what runs already runs on the local target, and becomes its deployment's first revision."""
    op.create_table(
        "deploy_targets",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("kind", name_type(63), nullable=False),
        sa.Column("delivery", sa.String(length=16), nullable=False),
        sa.Column("regions", JsonType, nullable=True),
        sa.Column("settings", JsonType, nullable=False),
        sa.Column("delivery_settings", JsonType, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_deploy_targets_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_deploy_targets")),
    )
    op.create_table(
        "deployment_revisions",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("deployment_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.Column("document", JsonType, nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("bundle_digest", name_type(71), nullable=True),
        sa.Column("pointer_revision", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "deployment_id"],
            ["deployments.workspace_id", "deployments.id"],
            name=op.f("fk_deployment_revisions_deployments"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_deployment_revisions_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "deployment_id", "number", name=op.f("pk_deployment_revisions")),
    )
    op.create_table(
        "deployment_steps",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("deployment_id", sa.String(length=36), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("region", name_type(63), nullable=True),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("traffic_percent", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("measured", JsonType, nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "deployment_id", "revision"],
            [
                "deployment_revisions.workspace_id",
                "deployment_revisions.deployment_id",
                "deployment_revisions.number",
            ],
            name=op.f("fk_deployment_steps_deployment_revisions"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_deployment_steps_workspaces")
        ),
        sa.PrimaryKeyConstraint(
            "workspace_id", "deployment_id", "revision", "number", name=op.f("pk_deployment_steps")
        ),
    )
    op.add_column("deployments", sa.Column("spec", JsonType, nullable=False, server_default=sa.text("'{}'")))
    op.add_column("deployments", sa.Column("revision", sa.Integer(), nullable=False, server_default=sa.text("'0'")))
    op.add_column(
        "deployment_regions", sa.Column("target", name_type(255), nullable=False, server_default=sa.text("'local'"))
    )
    for name, kind in _REGION_COLUMNS.items():
        op.add_column("deployment_regions", sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    """Drop them again; what the local target runs is adopted by the release before."""
    for name in (*reversed(_REGION_COLUMNS), "target"):
        op.drop_column("deployment_regions", name)
    op.drop_column("deployments", "revision")
    op.drop_column("deployments", "spec")
    op.drop_table("deployment_steps")
    op.drop_table("deployment_revisions")
    op.drop_table("deploy_targets")
