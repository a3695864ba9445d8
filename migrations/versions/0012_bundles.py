"""Bundles' papers, smoke tests and policy, and the recipe that each was asked for by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables and the column; older bundles have no papers, and nothing says what their recipe was."""
    op.add_column("bundles", sa.Column("recipe_facts", JsonType, nullable=True))
    op.create_table(
        "bundle_papers",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("bundle_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        _of_workspace("bundle_papers"),
        _of_bundle("bundle_papers"),
        _of_model("bundle_papers"),
        sa.PrimaryKeyConstraint("workspace_id", "bundle_id", "kind", name=op.f("pk_bundle_papers")),
    )
    op.create_table(
        "bundle_tests",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("bundle_id", sa.String(length=36), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("answered", sa.Integer(), nullable=True),
        sa.Column("compared", sa.Integer(), nullable=True),
        sa.Column("largest_difference", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("error_code", sa.String(length=63), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        _of_workspace("bundle_tests"),
        _of_bundle("bundle_tests"),
        _of_model("bundle_tests"),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_bundle_tests")),
    )
    op.create_index(op.f("ix_bundle_tests_workspace_id_bundle_id"), "bundle_tests", ["workspace_id", "bundle_id"])
    op.create_index(op.f("ix_bundle_tests_state"), "bundle_tests", ["state"])
    op.create_table(
        "bundle_policies",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("allows_pickle", sa.Boolean(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        _of_workspace("bundle_policies"),
        _of_model("bundle_policies"),
        sa.PrimaryKeyConstraint("workspace_id", "model_id", name=op.f("pk_bundle_policies")),
    )


def downgrade() -> None:
    """Forget them."""
    op.drop_table("bundle_policies")
    op.drop_table("bundle_tests")
    op.drop_table("bundle_papers")
    op.drop_column("bundles", "recipe_facts")


def _of_workspace(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f(f"fk_{table}_workspaces"))


def _of_bundle(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["workspace_id", "bundle_id"], ["bundles.workspace_id", "bundles.id"], name=op.f(f"fk_{table}_bundles")
    )


def _of_model(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["workspace_id", "model_id"],
        ["registered_models.workspace_id", "registered_models.id"],
        name=op.f(f"fk_{table}_registered_models"),
    )
