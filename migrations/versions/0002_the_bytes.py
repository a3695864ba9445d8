"""The bytes: encryption keys, budgets, replica policies, collection, scrubs, plans, and what locations may be."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables and columns; what is there already stays plain, active and wanted."""
    op.create_table(
        "budgets",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("source_region", name_type(63), nullable=True),
        sa.Column("region", name_type(63), nullable=True),
        sa.Column("period", sa.String(length=16), nullable=False),
        sa.Column("limit_usd", sa.String(length=32), nullable=True),
        sa.Column("bytes_per_second", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_budgets_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_budgets")),
    )
    op.create_table(
        "encryption_keys",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", name_type(63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("provider_key", sa.Text(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("wrapped_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_encryption_keys_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_encryption_keys")),
    )
    op.create_table(
        "replica_policies",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("document", JsonType, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_replica_policies_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_replica_policies")),
    )
    op.create_table(
        "garbage",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("location_id", sa.String(length=36), nullable=False),
        sa.Column("object_key", name_type(900), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("marked_at", UtcDateTime(), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "location_id"],
            ["locations.workspace_id", "locations.id"],
            name=op.f("fk_garbage_locations"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_garbage_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "location_id", "object_key", name=op.f("pk_garbage")),
    )
    op.create_table(
        "scrubs",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("location_id", sa.String(length=36), nullable=False),
        sa.Column("task", sa.String(length=32), nullable=False),
        sa.Column("scope", JsonType, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("checked_objects", sa.BigInteger(), nullable=False),
        sa.Column("checked_bytes", sa.BigInteger(), nullable=False),
        sa.Column("outcome", JsonType, nullable=False),
        sa.Column("findings", JsonType, nullable=False),
        sa.Column("requested_by", name_type(255), nullable=False),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "location_id"],
            ["locations.workspace_id", "locations.id"],
            name=op.f("fk_scrubs_locations"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_scrubs_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_scrubs")),
    )
    op.create_index(op.f("ix_scrubs_workspace_id_location_id"), "scrubs", ["workspace_id", "location_id"], unique=False)

    op.add_column("artifacts", sa.Column("key_id", name_type(63), nullable=False, server_default=sa.text("'plain'")))
    op.add_column("artifacts", sa.Column("tensor_signature", sa.String(length=64), nullable=True))
    op.create_index(
        op.f("ix_artifacts_workspace_id_residency_tensor_signature"),
        "artifacts",
        ["workspace_id", "residency", "tensor_signature"],
        unique=False,
    )

    op.add_column(
        "locations", sa.Column("kind", sa.String(length=16), nullable=False, server_default=sa.text("'storage'"))
    )
    op.add_column(
        "locations", sa.Column("state", sa.String(length=16), nullable=False, server_default=sa.text("'ACTIVE'"))
    )
    op.add_column("locations", sa.Column("settings", JsonType, nullable=False, server_default=sa.text("'{}'")))
    op.add_column(
        "locations",
        sa.Column("published_record_sequence", sa.BigInteger(), nullable=False, server_default=sa.text("'-1'")),
    )

    op.add_column("replicas", sa.Column("planned_source_location_id", sa.String(length=36), nullable=True))
    op.add_column("replicas", sa.Column("planned_bytes", sa.BigInteger(), nullable=True))
    op.add_column("replicas", sa.Column("planned_usd", sa.String(length=32), nullable=True))
    op.add_column("replicas", sa.Column("is_wanted", sa.Boolean(), nullable=False, server_default=sa.true()))

    op.add_column("uploads", sa.Column("key_id", name_type(63), nullable=False, server_default=sa.text("'plain'")))

    op.add_column("work", sa.Column("moved_bytes", sa.BigInteger(), nullable=False, server_default=sa.text("'0'")))
    op.add_column("work", sa.Column("phase", sa.String(length=16), nullable=True))
    op.add_column("work", sa.Column("bytes_per_second", sa.BigInteger(), nullable=True))
    op.add_column("work", sa.Column("source_region", name_type(63), nullable=True))
    op.add_column("work", sa.Column("reserved_usd", sa.String(length=32), nullable=True))
    op.add_column("work", sa.Column("written_packs", JsonType, nullable=True))

    op.add_column(
        "workspaces", sa.Column("record_base", sa.BigInteger(), nullable=False, server_default=sa.text("'0'"))
    )


def downgrade() -> None:
    """Drop them again; what they said is lost."""
    op.drop_column("workspaces", "record_base")

    op.drop_column("work", "written_packs")
    op.drop_column("work", "reserved_usd")
    op.drop_column("work", "source_region")
    op.drop_column("work", "bytes_per_second")
    op.drop_column("work", "phase")
    op.drop_column("work", "moved_bytes")

    op.drop_column("uploads", "key_id")

    op.drop_column("replicas", "is_wanted")
    op.drop_column("replicas", "planned_usd")
    op.drop_column("replicas", "planned_bytes")
    op.drop_column("replicas", "planned_source_location_id")

    op.drop_column("locations", "published_record_sequence")
    op.drop_column("locations", "settings")
    op.drop_column("locations", "state")
    op.drop_column("locations", "kind")

    op.drop_index(op.f("ix_artifacts_workspace_id_residency_tensor_signature"), table_name="artifacts")
    op.drop_column("artifacts", "tensor_signature")
    op.drop_column("artifacts", "key_id")

    op.drop_index(op.f("ix_scrubs_workspace_id_location_id"), table_name="scrubs")

    op.drop_table("scrubs")
    op.drop_table("garbage")
    op.drop_table("replica_policies")
    op.drop_table("encryption_keys")
    op.drop_table("budgets")
