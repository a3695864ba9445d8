"""The tables of container registries, of bundles' images there, and of what bundles were measured to do."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Double, ForeignKeyConstraint, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace, JsonObject


class ContainerRegistryRow(InWorkspace):
    """A container registry of a region. `identity` says who a worker is there, and holds no secret."""

    __tablename__ = "container_registries"

    name: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    region: Mapped[str] = mapped_column(name_type(63))
    jurisdiction: Mapped[str] = mapped_column(name_type(63))
    url: Mapped[str] = mapped_column(Text)
    provider: Mapped[str] = mapped_column(String(32))
    identity: Mapped[JsonObject] = mapped_column(JsonType)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ImageVariantRow(InWorkspace):
    """A variant that every bundle's image has: what it runs on, and the base that it is laid on, named by digest."""

    __tablename__ = "image_variants"

    name: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    platform: Mapped[str] = mapped_column(String(32))
    accelerators: Mapped[list[str]] = mapped_column(JsonType)
    base: Mapped[str] = mapped_column(Text)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class BundleImageRow(InWorkspace):
    """What the image of a bundle by a recipe is, wherever it is pushed: the digest of its index, and its variants."""

    __tablename__ = "bundle_images"

    bundle_digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    recipe: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    residency: Mapped[str] = mapped_column(name_type(63))
    digest: Mapped[str] = mapped_column(DIGEST)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    variants: Mapped[list[JsonObject]] = mapped_column(JsonType)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ImagePushRow(InWorkspace):
    """A bundle's image in one registry: WANTED -> VERIFIED once all of it was read back; DRIFTED when it no longer is.

    `recipe` and `digest` are those of what was verified; one that fails keeps its error and is tried again.
    """

    __tablename__ = "image_pushes"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "registry_name"], ["container_registries.workspace_id", "container_registries.name"]
        ),
        ForeignKeyConstraint(["workspace_id", "bundle_id"], ["bundles.workspace_id", "bundles.id"]),
        Index(None, "workspace_id", "bundle_digest"),
    )

    registry_name: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    bundle_digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    bundle_id: Mapped[str] = mapped_column(ROW_ID)
    residency: Mapped[str] = mapped_column(name_type(63))
    state: Mapped[str] = mapped_column(String(16))
    recipe: Mapped[str | None] = mapped_column(DIGEST)
    digest: Mapped[str | None] = mapped_column(DIGEST)
    repository: Mapped[str] = mapped_column(Text)
    sent_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    wanted_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    verified_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    check_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error_code: Mapped[str | None] = mapped_column(String(63))
    error_detail: Mapped[str | None] = mapped_column(Text)


class BundleProfileRow(InWorkspace):
    """What one replica of a bundle does on one machine: PENDING, then MEASURED or FAILED.

    `machine` says what it ran on, `levels` what was measured at each concurrency.
    """

    __tablename__ = "bundle_profiles"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "bundle_id"], ["bundles.workspace_id", "bundles.id"]),
        ForeignKeyConstraint(["workspace_id", "model_id"], ["registered_models.workspace_id", "registered_models.id"]),
        Index(None, "workspace_id", "bundle_digest"),
        Index(None, "state"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    bundle_id: Mapped[str] = mapped_column(ROW_ID)
    bundle_digest: Mapped[str] = mapped_column(DIGEST)
    model_id: Mapped[str] = mapped_column(ROW_ID)
    version: Mapped[int] = mapped_column(Integer)
    residency: Mapped[str] = mapped_column(name_type(63))
    region: Mapped[str] = mapped_column(name_type(63))
    state: Mapped[str] = mapped_column(String(16))
    limits: Mapped[JsonObject] = mapped_column(JsonType)
    instance_type: Mapped[str | None] = mapped_column(name_type(63))
    machine: Mapped[JsonObject | None] = mapped_column(JsonType)
    levels: Mapped[list[JsonObject]] = mapped_column(JsonType, default=list)
    requests_per_second: Mapped[float | None] = mapped_column(Double)
    p95_ms: Mapped[float | None] = mapped_column(Double)
    cpu_ms_per_request: Mapped[float | None] = mapped_column(Double)
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    start_seconds: Mapped[float | None] = mapped_column(Double)
    error_code: Mapped[str | None] = mapped_column(String(63))
    error_detail: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
