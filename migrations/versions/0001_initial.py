"""The first schema: the record, its features and its deployments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType, UtcDateTime, name_type

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "workspaces",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("jurisdiction", name_type(16), nullable=True),
        sa.Column("refs_revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", name=op.f("pk_workspaces")),
    )
    op.create_table(
        "artifacts",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("digest", name_type(71), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("file_count", sa.Integer(), nullable=False),
        sa.Column("regions", JsonType, nullable=True),
        sa.Column("labels", JsonType, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_artifacts_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "residency", "digest", name=op.f("pk_artifacts")),
    )
    op.create_table(
        "audit_events",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("actor", name_type(255), nullable=False),
        sa.Column("action", sa.String(length=63), nullable=False),
        sa.Column("subject", name_type(512), nullable=False),
        sa.Column("facts", JsonType, nullable=False),
        sa.Column("happened_at", UtcDateTime(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("previous_hash", sa.String(length=64), nullable=True),
        sa.Column("event_hash", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_audit_events_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_audit_events")),
        sa.UniqueConstraint("workspace_id", "sequence", name=op.f("uq_audit_events_workspace_id_sequence")),
    )
    op.create_table(
        "environments",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("policy", JsonType, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_environments_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_environments")),
    )
    op.create_table(
        "feature_versions",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("digest", name_type(71), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content", JsonType, nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_feature_versions_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "kind", "name", "digest", name=op.f("pk_feature_versions")),
        sa.UniqueConstraint(
            "workspace_id", "kind", "name", "number", name=op.f("uq_feature_versions_workspace_id_kind_name_number")
        ),
    )
    op.create_table(
        "idempotency",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("principal", name_type(255), nullable=False),
        sa.Column("key", name_type(255), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_idempotency_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "principal", "key", name=op.f("pk_idempotency")),
    )
    op.create_table(
        "ledger",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("cause", name_type(512), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", name_type(512), nullable=False),
        sa.Column("source_region", name_type(63), nullable=True),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("planned_bytes", sa.BigInteger(), nullable=False),
        sa.Column("moved_bytes", sa.BigInteger(), nullable=False),
        sa.Column("planned_usd", sa.String(length=32), nullable=False),
        sa.Column("actual_usd", sa.String(length=32), nullable=False),
        sa.Column("gco2", sa.String(length=32), nullable=False),
        sa.Column("gco2_method", sa.Text(), nullable=False),
        sa.Column("price_source", sa.Text(), nullable=False),
        sa.Column("labels", JsonType, nullable=False),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_ledger_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_ledger")),
        sa.UniqueConstraint("workspace_id", "cause", name=op.f("uq_ledger_workspace_id_cause")),
    )
    op.create_table(
        "locations",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("jurisdiction", name_type(16), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("options", JsonType, nullable=False),
        sa.Column("published_refs_revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_locations_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_locations")),
        sa.UniqueConstraint("workspace_id", "name", name=op.f("uq_locations_workspace_id_name")),
    )
    op.create_table(
        "online_intents",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("service", name_type(255), nullable=False),
        sa.Column("snapshot_digest", name_type(71), nullable=True),
        sa.Column("regions", JsonType, nullable=True),
        sa.Column("asked_by", name_type(255), nullable=False),
        sa.Column("asked_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_online_intents_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "service", name=op.f("pk_online_intents")),
    )
    op.create_table(
        "online_states",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("service", name_type(255), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("wanted_snapshot", name_type(71), nullable=False),
        sa.Column("served_snapshot", name_type(71), nullable=True),
        sa.Column("row_count", sa.BigInteger(), nullable=True),
        sa.Column("missing_views", JsonType, nullable=False),
        sa.Column("materialized_at", UtcDateTime(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_online_states_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "service", "region", name=op.f("pk_online_states")),
    )
    with op.batch_alter_table("online_states", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_online_states_workspace_id_state"), ["workspace_id", "state"], unique=False
        )

    op.create_table(
        "placements",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("request", JsonType, nullable=False),
        sa.Column("answer", JsonType, nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_placements_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_placements")),
    )
    op.create_table(
        "registered_models",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("regions", JsonType, nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("owner", name_type(255), nullable=False),
        sa.Column("team", name_type(255), nullable=False),
        sa.Column("cost_centre", name_type(255), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_registered_models_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_registered_models")),
        sa.UniqueConstraint("workspace_id", "name", name=op.f("uq_registered_models_workspace_id_name")),
    )
    op.create_table(
        "snapshots",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("service", name_type(255), nullable=False),
        sa.Column("service_digest", name_type(71), nullable=False),
        sa.Column("as_of", UtcDateTime(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("digest", name_type(71), nullable=True),
        sa.Column("error_code", sa.String(length=63), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("ready_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_snapshots_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_snapshots")),
    )
    with op.batch_alter_table("snapshots", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_snapshots_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_snapshots_workspace_id_digest"), ["workspace_id", "digest"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_snapshots_workspace_id_service_state"), ["workspace_id", "service", "state"], unique=False
        )

    op.create_table(
        "tokens",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("principal", name_type(255), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("scopes", JsonType, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("revoked_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_tokens_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_tokens_secret_sha256")),
    )
    op.create_table(
        "work",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", name_type(512), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", UtcDateTime(), nullable=False),
        sa.Column("lease_holder", sa.String(length=255), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", UtcDateTime(), nullable=True),
        sa.Column("progress_bytes", sa.BigInteger(), nullable=True),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("error_code", sa.String(length=63), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_work_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_work")),
        sa.UniqueConstraint("workspace_id", "kind", "subject", name=op.f("uq_work_workspace_id_kind_subject")),
    )
    with op.batch_alter_table("work", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_work_region_not_before"), ["region", "not_before"], unique=False)

    op.create_table(
        "alias_moves",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("from_version", sa.Integer(), nullable=True),
        sa.Column("to_version", sa.Integer(), nullable=True),
        sa.Column("promotion_id", sa.String(length=36), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("moved_by", name_type(255), nullable=False),
        sa.Column("moved_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id"],
            ["registered_models.workspace_id", "registered_models.id"],
            name=op.f("fk_alias_moves_registered_models"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_alias_moves_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "model_id", "name", "revision", name=op.f("pk_alias_moves")),
    )
    op.create_table(
        "aliases",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("moved_by", name_type(255), nullable=False),
        sa.Column("moved_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id"],
            ["registered_models.workspace_id", "registered_models.id"],
            name=op.f("fk_aliases_registered_models"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_aliases_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "model_id", "name", name=op.f("pk_aliases")),
    )
    op.create_table(
        "blocks",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("key_id", name_type(63), nullable=False),
        sa.Column("location_id", sa.String(length=36), nullable=False),
        sa.Column("block_digest", name_type(71), nullable=False),
        sa.Column("pack", sa.String(length=64), nullable=False),
        sa.Column("pack_offset", sa.BigInteger(), nullable=False),
        sa.Column("stored_length", sa.BigInteger(), nullable=False),
        sa.Column("stored_sha256", sa.String(length=64), nullable=False),
        sa.Column("plain_length", sa.BigInteger(), nullable=False),
        sa.Column("codec", sa.String(length=32), nullable=False),
        sa.Column("base_digest", name_type(71), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "location_id"],
            ["locations.workspace_id", "locations.id"],
            name=op.f("fk_blocks_locations"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_blocks_workspaces")),
        sa.PrimaryKeyConstraint(
            "workspace_id", "residency", "key_id", "location_id", "block_digest", name=op.f("pk_blocks")
        ),
    )
    with op.batch_alter_table("blocks", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_blocks_workspace_id_location_id_pack"), ["workspace_id", "location_id", "pack"], unique=False
        )

    op.create_table(
        "deployments",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("environment", name_type(255), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("placement_id", sa.String(length=36), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id"],
            ["registered_models.workspace_id", "registered_models.id"],
            name=op.f("fk_deployments_registered_models"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_deployments_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_deployments")),
        sa.UniqueConstraint("workspace_id", "name", name=op.f("uq_deployments_workspace_id_name")),
    )
    op.create_table(
        "feature_definitions",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("name", name_type(255), nullable=False),
        sa.Column("digest", name_type(71), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("spec", JsonType, nullable=False),
        sa.Column("updated_by", name_type(255), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "kind", "name", "digest"],
            [
                "feature_versions.workspace_id",
                "feature_versions.kind",
                "feature_versions.name",
                "feature_versions.digest",
            ],
            name=op.f("fk_feature_definitions_feature_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_feature_definitions_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "kind", "name", name=op.f("pk_feature_definitions")),
    )
    op.create_table(
        "model_tags",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("key", name_type(255), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id"],
            ["registered_models.workspace_id", "registered_models.id"],
            name=op.f("fk_model_tags_registered_models"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_model_tags_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "model_id", "key", name=op.f("pk_model_tags")),
    )
    with op.batch_alter_table("model_tags", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_tags_workspace_id_key"), ["workspace_id", "key"], unique=False)

    op.create_table(
        "model_versions",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("upload_id", sa.String(length=36), nullable=True),
        sa.Column("artifact_digest", name_type(71), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("flavor", sa.String(length=63), nullable=True),
        sa.Column("signature", JsonType, nullable=True),
        sa.Column("metrics", JsonType, nullable=False),
        sa.Column("params", JsonType, nullable=False),
        sa.Column("feature_service", name_type(255), nullable=True),
        sa.Column("feature_service_digest", name_type(71), nullable=True),
        sa.Column("snapshot_digest", name_type(71), nullable=True),
        sa.Column("parent_version", sa.Integer(), nullable=True),
        sa.Column("run_id", name_type(255), nullable=True),
        sa.Column("error_code", sa.String(length=63), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("ready_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id"],
            ["registered_models.workspace_id", "registered_models.id"],
            name=op.f("fk_model_versions_registered_models"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_model_versions_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "model_id", "version", name=op.f("pk_model_versions")),
    )
    with op.batch_alter_table("model_versions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_model_versions_workspace_id_artifact_digest"),
            ["workspace_id", "artifact_digest"],
            unique=False,
        )
        batch_op.create_index(
            batch_op.f("ix_model_versions_workspace_id_upload_id"), ["workspace_id", "upload_id"], unique=False
        )

    op.create_table(
        "promotions",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("environment", name_type(255), nullable=False),
        sa.Column("base_revision", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("plan", JsonType, nullable=False),
        sa.Column("requested_by", name_type(255), nullable=False),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id"],
            ["registered_models.workspace_id", "registered_models.id"],
            name=op.f("fk_promotions_registered_models"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_promotions_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_promotions")),
    )
    with op.batch_alter_table("promotions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_promotions_workspace_id_model_id_state"), ["workspace_id", "model_id", "state"], unique=False
        )

    op.create_table(
        "replicas",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("artifact_digest", name_type(71), nullable=False),
        sa.Column("location_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("layout_key", sa.Text(), nullable=True),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=True),
        sa.Column("moved_bytes", sa.BigInteger(), nullable=True),
        sa.Column("source_location_id", sa.String(length=36), nullable=True),
        sa.Column("error_code", sa.String(length=63), nullable=True),
        sa.Column("verified_at", UtcDateTime(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "location_id"],
            ["locations.workspace_id", "locations.id"],
            name=op.f("fk_replicas_locations"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "residency", "artifact_digest"],
            ["artifacts.workspace_id", "artifacts.residency", "artifacts.digest"],
            name=op.f("fk_replicas_artifacts"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_replicas_workspaces")),
        sa.PrimaryKeyConstraint(
            "workspace_id", "residency", "artifact_digest", "location_id", name=op.f("pk_replicas")
        ),
    )
    with op.batch_alter_table("replicas", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_replicas_workspace_id_state"), ["workspace_id", "state"], unique=False)

    op.create_table(
        "snapshot_parts",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("snapshot_id", sa.String(length=36), nullable=False),
        sa.Column("view", name_type(255), nullable=False),
        sa.Column("view_digest", name_type(71), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("upload_id", sa.String(length=36), nullable=True),
        sa.Column("artifact_digest", name_type(71), nullable=True),
        sa.Column("row_count", sa.BigInteger(), nullable=True),
        sa.Column("statistics", JsonType, nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "snapshot_id"],
            ["snapshots.workspace_id", "snapshots.id"],
            name=op.f("fk_snapshot_parts_snapshots"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_snapshot_parts_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "snapshot_id", "view", name=op.f("pk_snapshot_parts")),
    )
    with op.batch_alter_table("snapshot_parts", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_snapshot_parts_workspace_id_artifact_digest"),
            ["workspace_id", "artifact_digest"],
            unique=False,
        )

    op.create_table(
        "uploads",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("location_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("regions", JsonType, nullable=True),
        sa.Column("labels", JsonType, nullable=False),
        sa.Column("artifact_digest", name_type(71), nullable=True),
        sa.Column("layout_key", sa.Text(), nullable=True),
        sa.Column("sent_bytes", sa.BigInteger(), nullable=True),
        sa.Column("error_code", sa.String(length=63), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "location_id"],
            ["locations.workspace_id", "locations.id"],
            name=op.f("fk_uploads_locations"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_uploads_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_uploads")),
    )
    with op.batch_alter_table("uploads", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_uploads_workspace_id_state"), ["workspace_id", "state"], unique=False)

    op.create_table(
        "approvals",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("promotion_id", sa.String(length=36), nullable=False),
        sa.Column("principal", name_type(255), nullable=False),
        sa.Column("is_approval", sa.Boolean(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("decided_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "promotion_id"],
            ["promotions.workspace_id", "promotions.id"],
            name=op.f("fk_approvals_promotions"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_approvals_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "promotion_id", "principal", name=op.f("pk_approvals")),
    )
    op.create_table(
        "bundles",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("residency", name_type(63), nullable=False),
        sa.Column("recipe", name_type(71), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("upload_id", sa.String(length=36), nullable=True),
        sa.Column("digest", name_type(71), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("sent_bytes", sa.BigInteger(), nullable=True),
        sa.Column("error_code", sa.String(length=63), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_by", name_type(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("ready_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id", "version"],
            ["model_versions.workspace_id", "model_versions.model_id", "model_versions.version"],
            name=op.f("fk_bundles_model_versions"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_bundles_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_bundles")),
        sa.UniqueConstraint(
            "workspace_id",
            "model_id",
            "version",
            "recipe",
            name=op.f("uq_bundles_workspace_id_model_id_version_recipe"),
        ),
    )
    with op.batch_alter_table("bundles", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_bundles_workspace_id_state"), ["workspace_id", "state"], unique=False)

    op.create_table(
        "deployment_regions",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("deployment_id", sa.String(length=36), nullable=False),
        sa.Column("region", name_type(63), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("usd_per_hour", sa.String(length=32), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("wanted_version", sa.Integer(), nullable=True),
        sa.Column("wanted_digest", name_type(71), nullable=True),
        sa.Column("wanted_store", sa.Text(), nullable=True),
        sa.Column("wanted_revision", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("bundle_digest", name_type(71), nullable=True),
        sa.Column("online_store", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("process_id", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.String(length=63), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "deployment_id"],
            ["deployments.workspace_id", "deployments.id"],
            name=op.f("fk_deployment_regions_deployments"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_deployment_regions_workspaces")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "deployment_id", "region", name=op.f("pk_deployment_regions")),
    )
    op.create_table(
        "version_tags",
        sa.Column("workspace_id", name_type(63), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key", name_type(255), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "model_id", "version"],
            ["model_versions.workspace_id", "model_versions.model_id", "model_versions.version"],
            name=op.f("fk_version_tags_model_versions"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=op.f("fk_version_tags_workspaces")),
        sa.PrimaryKeyConstraint("workspace_id", "model_id", "version", "key", name=op.f("pk_version_tags")),
    )
    with op.batch_alter_table("version_tags", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_version_tags_workspace_id_key"), ["workspace_id", "key"], unique=False)


def downgrade() -> None:
    """Drop every table."""
    with op.batch_alter_table("version_tags", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_version_tags_workspace_id_key"))

    op.drop_table("version_tags")
    op.drop_table("deployment_regions")
    with op.batch_alter_table("bundles", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_bundles_workspace_id_state"))

    op.drop_table("bundles")
    op.drop_table("approvals")
    with op.batch_alter_table("uploads", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_uploads_workspace_id_state"))

    op.drop_table("uploads")
    with op.batch_alter_table("snapshot_parts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_snapshot_parts_workspace_id_artifact_digest"))

    op.drop_table("snapshot_parts")
    with op.batch_alter_table("replicas", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_replicas_workspace_id_state"))

    op.drop_table("replicas")
    with op.batch_alter_table("promotions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_promotions_workspace_id_model_id_state"))

    op.drop_table("promotions")
    with op.batch_alter_table("model_versions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_model_versions_workspace_id_upload_id"))
        batch_op.drop_index(batch_op.f("ix_model_versions_workspace_id_artifact_digest"))

    op.drop_table("model_versions")
    with op.batch_alter_table("model_tags", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_model_tags_workspace_id_key"))

    op.drop_table("model_tags")
    op.drop_table("feature_definitions")
    op.drop_table("deployments")
    with op.batch_alter_table("blocks", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_blocks_workspace_id_location_id_pack"))

    op.drop_table("blocks")
    op.drop_table("aliases")
    op.drop_table("alias_moves")
    with op.batch_alter_table("work", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_work_region_not_before"))

    op.drop_table("work")
    op.drop_table("tokens")
    with op.batch_alter_table("snapshots", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_snapshots_workspace_id_service_state"))
        batch_op.drop_index(batch_op.f("ix_snapshots_workspace_id_digest"))
        batch_op.drop_index(batch_op.f("ix_snapshots_state"))

    op.drop_table("snapshots")
    op.drop_table("registered_models")
    op.drop_table("placements")
    with op.batch_alter_table("online_states", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_online_states_workspace_id_state"))

    op.drop_table("online_states")
    op.drop_table("online_intents")
    op.drop_table("locations")
    op.drop_table("ledger")
    op.drop_table("idempotency")
    op.drop_table("feature_versions")
    op.drop_table("environments")
    op.drop_table("audit_events")
    op.drop_table("artifacts")
    op.drop_table("workspaces")
