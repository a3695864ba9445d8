"""Serving's tables: placements, bundles, deployments, and what each region runs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace, JsonObject


class PlacementRow(InWorkspace):
    """A placement request with the answer it got. Never changed."""

    __tablename__ = "placements"

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    residency: Mapped[str] = mapped_column(name_type(63))
    request: Mapped[JsonObject] = mapped_column(JsonType)
    answer: Mapped[JsonObject] = mapped_column(JsonType)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class BundleRow(InWorkspace):
    """A model version as a Bento: PENDING (to be built) -> VERIFYING (its upload is read back) -> READY.

    A build that fails keeps its error and is tried again, unless trying again cannot help: then it has FAILED until
    somebody asks for it anew. One recipe of one version is one bundle. `recipe_facts` is what the recipe's digest
    names; None in rows of before it was kept.
    """

    __tablename__ = "bundles"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "model_id", "version"],
            ["model_versions.workspace_id", "model_versions.model_id", "model_versions.version"],
        ),
        UniqueConstraint("workspace_id", "model_id", "version", "recipe"),
        Index(None, "workspace_id", "state"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    model_id: Mapped[str] = mapped_column(ROW_ID)
    version: Mapped[int] = mapped_column(Integer)
    residency: Mapped[str] = mapped_column(name_type(63))
    recipe: Mapped[str] = mapped_column(DIGEST)
    recipe_facts: Mapped[JsonObject | None] = mapped_column(JsonType)
    state: Mapped[str] = mapped_column(String(16))
    upload_id: Mapped[str | None] = mapped_column(ROW_ID)
    digest: Mapped[str | None] = mapped_column(DIGEST)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sent_bytes: Mapped[int | None] = mapped_column(BigInteger)
    error_code: Mapped[str | None] = mapped_column(String(63))
    error_detail: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ready_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class DeploymentRow(InWorkspace):
    """What should run: a model's environment (whatever it points at) or one version, in these regions.

    Exactly one of `environment` and `version` is set. DELETING lasts until every region has stopped.
    """

    __tablename__ = "deployments"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "model_id"], ["registered_models.workspace_id", "registered_models.id"]),
        UniqueConstraint("workspace_id", "name"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    name: Mapped[str] = mapped_column(name_type())
    model_id: Mapped[str] = mapped_column(ROW_ID)
    residency: Mapped[str] = mapped_column(name_type(63))
    environment: Mapped[str | None] = mapped_column(name_type())
    version: Mapped[int | None] = mapped_column(Integer)
    placement_id: Mapped[str | None] = mapped_column(ROW_ID)
    # What was asked for last: regions, targets, strategy, scaling (see `fairlead.serving.revisions`).
    spec: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    revision: Mapped[int] = mapped_column(Integer, default=0)
    state: Mapped[str] = mapped_column(String(16))  # ACTIVE | DELETING
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DeploymentRegionRow(InWorkspace):
    """One region of a deployment: what it should run (`wanted_...`) and what it does run.

    WAITING (the version, its bundle or the bundle's replica here is not ready) -> DEPLOYING -> RUNNING; FAILED keeps
    the error and is tried again; STOPPING until it has stopped, then the row goes.

    `wanted_workload` is what should run on `target`, whole; `workload` is what was last put there, on `running_target`,
    and `leaving_target` is where it still has to end. `shares` hold the placement's share of each area's requests,
    `instances` what was to be rented. `health` is what was last seen (up, unready, down, unknown), with what somebody
    changed by hand in `differences`; `unready_since` begins when an endpoint that lives no longer answers.
    """

    __tablename__ = "deployment_regions"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "deployment_id"], ["deployments.workspace_id", "deployments.id"]),
    )

    deployment_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    region: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    position: Mapped[int] = mapped_column(Integer)
    usd_per_hour: Mapped[str | None] = mapped_column(String(32))
    carbon_g_per_hour: Mapped[str | None] = mapped_column(String(32))
    shares: Mapped[dict[str, float] | None] = mapped_column(JsonType)
    instances: Mapped[list[JsonObject] | None] = mapped_column(JsonType)
    target: Mapped[str] = mapped_column(name_type(), default="local")
    running_target: Mapped[str | None] = mapped_column(name_type())
    leaving_target: Mapped[str | None] = mapped_column(name_type())
    state: Mapped[str] = mapped_column(String(16))
    wanted_workload: Mapped[JsonObject | None] = mapped_column(JsonType)
    workload: Mapped[JsonObject | None] = mapped_column(JsonType)
    wanted_version: Mapped[int | None] = mapped_column(Integer)
    wanted_digest: Mapped[str | None] = mapped_column(DIGEST)
    wanted_revision: Mapped[int] = mapped_column(BigInteger, default=0)
    version: Mapped[int | None] = mapped_column(Integer)
    bundle_digest: Mapped[str | None] = mapped_column(DIGEST)
    online_store: Mapped[str | None] = mapped_column(Text)
    url: Mapped[str | None] = mapped_column(Text)
    process_id: Mapped[int | None] = mapped_column(Integer)
    identity: Mapped[str | None] = mapped_column(Text)
    former_url: Mapped[str | None] = mapped_column(Text)
    former_identity: Mapped[str | None] = mapped_column(Text)
    health: Mapped[str | None] = mapped_column(String(16))
    unready_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    differences: Mapped[list[str] | None] = mapped_column(JsonType)
    error_code: Mapped[str | None] = mapped_column(String(63))
    error_detail: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
