"""Container registries, the images that bundles have there, and what bundles were measured to do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "container_registries",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(63), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("jurisdiction", name_type(63), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("identity", JsonType, nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_container_registries_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_container_registries")),
    )
    op.create_table(
        "image_variants",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(63), nullable=False),
        sa.Column("platform", sa.String(length=32), nullable=False),
        sa.Column("accelerators", JsonType, nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_image_variants_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_image_variants")),
    )
    op.create_table(
        "bundle_images",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("bundle_digest", name_type(71), nullable=False),
        sa.Column("recipe", name_type(71), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("digest", name_type(71), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("variants", JsonType, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_bundle_images_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "bundle_digest", "recipe", name=op.f("pk_bundle_images")),
    )
    op.create_table(
        "image_pushes",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("registry_name", name_type(63), nullable=False),
        sa.Column("bundle_digest", name_type(71), nullable=False),
        sa.Column("bundle_id", sa.String(length=36), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("recipe", name_type(71), nullable=True),
        sa.Column("digest", name_type(71), nullable=True),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("sent_bytes", sa.BigInteger(), nullable=False),
        sa.Column("wanted_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("verified_at", UtcDateTime(), nullable=True),
        sa.Column("check_at", UtcDateTime(), nullable=True),
        sa.Column("error_code", sa.String(length=63), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "bundle_id"], ["bundles.workspace_id", "bundles.id"], name=op.f("fk_image_pushes_bundles")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "registry_name"],
            ["container_registries.workspace_id", "container_registries.name"],
            name=op.f("fk_image_pushes_container_registries"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_image_pushes_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "registry_name", "bundle_digest", name=op.f("pk_image_pushes")),
    )
    op.create_index(
        op.f("ix_image_pushes_workspace_id_bundle_digest"), "image_pushes", ["workspace_id", "bundle_digest"]
    )
    op.create_table(
        "bundle_profiles",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("bundle_id", sa.String(length=36), nullable=False),
        sa.Column("bundle_digest", name_type(71), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("limits", JsonType, nullable=False),
        sa.Column("instance_type", name_type(63), nullable=True),
        sa.Column("machine", JsonType, nullable=True),
        sa.Column("levels", JsonType, nullable=False),
        sa.Column("requests_per_second", sa.Double(), nullable=True),
        sa.Column("p95_ms", sa.Double(), nullable=True),
        sa.Column("cpu_ms_per_request", sa.Double(), nullable=True),
        sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("start_seconds", sa.Double(), nullable=True),
        sa.Column("error_code", sa.String(length=63), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "bundle_id"],
            ["bundles.workspace_id", "bundles.id"],
            name=op.f("fk_bundle_profiles_bundles"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id"],
            ["registered_models.workspace_id", "registered_models.id"],
            name=op.f("fk_bundle_profiles_registered_models"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_bundle_profiles_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_bundle_profiles")),
    )
    op.create_index(
        op.f("ix_bundle_profiles_workspace_id_bundle_digest"), "bundle_profiles", ["workspace_id", "bundle_digest"]
    )
    op.create_index(op.f("ix_bundle_profiles_state"), "bundle_profiles", ["state"])


def downgrade() -> None:
    """Forget them; images stay in their registries."""
    op.drop_table("bundle_profiles")
    op.drop_table("image_pushes")
    op.drop_table("bundle_images")
    op.drop_table("image_variants")
    op.drop_table("container_registries")
