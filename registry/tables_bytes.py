"""The record's tables of the bytes: where blocks lie, what encrypts them, what is leaving, and what copies may cost."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace, JsonObject


class BlockRow(InWorkspace):
    """Where a location keeps a block. An index only: it can be rebuilt from the packs."""

    __tablename__ = "blocks"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "location_id"], ["locations.workspace_id", "locations.id"]),
        Index(None, "workspace_id", "location_id", "pack"),
    )

    residency: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    key_id: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    location_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    block_digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    pack: Mapped[str] = mapped_column(String(64))
    pack_offset: Mapped[int] = mapped_column(BigInteger)
    stored_length: Mapped[int] = mapped_column(BigInteger)
    stored_sha256: Mapped[str] = mapped_column(String(64))
    plain_length: Mapped[int] = mapped_column(BigInteger)
    codec: Mapped[str] = mapped_column(String(32))
    base_digest: Mapped[str | None] = mapped_column(DIGEST)


class EncryptionKeyRow(InWorkspace):
    """A data key of a workspace, wrapped by a key of its provider. Rotation rewraps it; `id` is in every object path.

    ACTIVE (new artifacts are encrypted under it) -> RETIRED (only read).
    """

    __tablename__ = "encryption_keys"

    id: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    provider: Mapped[str] = mapped_column(String(32))  # file | aws-kms | gcp-kms | azure-key-vault
    provider_key: Mapped[str] = mapped_column(Text)
    wrapped_key: Mapped[bytes] = mapped_column(LargeBinary)
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    wrapped_at: Mapped[datetime] = mapped_column(UtcDateTime)


class GarbageRow(InWorkspace):
    """An object that nothing referred to when it was marked; it is deleted if that is still so when it has aged.

    MARKED -> WITHDRAWN (no index names it any more) -> DELETING (nothing may come to refer to it) -> DELETED.
    """

    __tablename__ = "garbage"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "location_id"], ["locations.workspace_id", "locations.id"]),
    )

    location_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    object_key: Mapped[str] = mapped_column(name_type(900), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(String(63))
    state: Mapped[str] = mapped_column(String(16), default="MARKED")
    marked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ScrubRow(InWorkspace):
    """One look at what a location holds, by a task (scrub, collect, rebuild-index) and its scope.

    WAITING -> RUNNING -> DONE | FAILED. `outcome` holds counts, `findings` the objects that something is to be said of.
    """

    __tablename__ = "scrubs"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "location_id"], ["locations.workspace_id", "locations.id"]),
        Index(None, "workspace_id", "location_id"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    location_id: Mapped[str] = mapped_column(ROW_ID)
    task: Mapped[str] = mapped_column(String(32))
    scope: Mapped[JsonObject] = mapped_column(JsonType)
    state: Mapped[str] = mapped_column(String(16))
    checked_objects: Mapped[int] = mapped_column(BigInteger, default=0)
    checked_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    outcome: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    findings: Mapped[list[JsonObject]] = mapped_column(JsonType, default=list)
    requested_by: Mapped[str] = mapped_column(name_type())
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class BudgetRow(InWorkspace):
    """What transfers may cost in a period, and how fast they may go. None: no such limit; no region: any."""

    __tablename__ = "budgets"

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    source_region: Mapped[str | None] = mapped_column(name_type(63))
    region: Mapped[str | None] = mapped_column(name_type(63))
    period: Mapped[str] = mapped_column(String(16))  # day | month
    limit_usd: Mapped[str | None] = mapped_column(String(32))
    bytes_per_second: Mapped[int | None] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ReplicaPolicyRow(InWorkspace):
    """Where the artifacts of some models should be, and for how long. `document` is the policy as it was applied."""

    __tablename__ = "replica_policies"

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    document: Mapped[JsonObject] = mapped_column(JsonType)
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
