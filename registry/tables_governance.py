"""The record's tables of who may do what, what was promised about a version, and whom to tell."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace, JsonObject


class PromotionPolicyRow(InWorkspace):
    """Gates, approvers and freeze windows for some models and environments. `document` is the policy as applied."""

    __tablename__ = "promotion_policies"

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    document: Mapped[JsonObject] = mapped_column(JsonType)
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RoleBindingRow(InWorkspace):
    """That a principal (or a group, `group:NAME`) has a role for some models and environments, as patterns."""

    __tablename__ = "role_bindings"
    __table_args__ = (UniqueConstraint("workspace_id", "principal", "role", "models", "environments"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    principal: Mapped[str] = mapped_column(name_type())
    role: Mapped[str] = mapped_column(String(32))
    models: Mapped[str] = mapped_column(name_type(), default="*")
    environments: Mapped[str] = mapped_column(name_type(), default="*")
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IssuerRow(InWorkspace):
    """An issuer whose tokens are believed: its address, their audience, and whom their claims stand for."""

    __tablename__ = "issuers"

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    issuer: Mapped[str] = mapped_column(Text)
    audience: Mapped[str] = mapped_column(Text)
    rules: Mapped[list[JsonObject]] = mapped_column(JsonType)
    settings: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WebhookRow(InWorkspace):
    """An address that is told of events. Its secret is kept sealed, since deliveries are signed with it."""

    __tablename__ = "webhooks"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    name: Mapped[str] = mapped_column(name_type())
    url: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text, default="")
    events: Mapped[list[str]] = mapped_column(JsonType)
    sealed_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    state: Mapped[str] = mapped_column(String(16), default="ACTIVE")  # ACTIVE | DISABLED
    # The sealed audit event up to which deliveries were made from.
    delivered_sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WebhookDeliveryRow(InWorkspace):
    """One event on its way to one address: PENDING -> DELIVERED | FAILED (tried in vain as often as it is tried)."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "webhook_id"], ["webhooks.workspace_id", "webhooks.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("workspace_id", "webhook_id", "sequence"),
        Index(None, "state", "not_before"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    webhook_id: Mapped[str] = mapped_column(ROW_ID)
    sequence: Mapped[int] = mapped_column(BigInteger)
    event: Mapped[str] = mapped_column(String(63))
    payload: Mapped[JsonObject] = mapped_column(JsonType)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    not_before: Mapped[datetime] = mapped_column(UtcDateTime)
    status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SignatureRow(InWorkspace):
    """Somebody's signed statement that a version of a model is these files."""

    __tablename__ = "version_signatures"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "model_id", "version"],
            ["model_versions.workspace_id", "model_versions.model_id", "model_versions.version"],
        ),
        Index(None, "workspace_id", "model_id", "version"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    model_id: Mapped[str] = mapped_column(ROW_ID)
    version: Mapped[int] = mapped_column(Integer)
    artifact_digest: Mapped[str] = mapped_column(DIGEST)
    key_id: Mapped[str] = mapped_column(name_type(128))
    identity: Mapped[str] = mapped_column(Text)
    statement: Mapped[bytes] = mapped_column(LargeBinary)
    signature: Mapped[bytes] = mapped_column(LargeBinary)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SigningKeyRow(InWorkspace):
    """A public key whose signatures are believed: ACTIVE -> RETIRED (only what it signed before counts)."""

    __tablename__ = "signing_keys"

    id: Mapped[str] = mapped_column(name_type(128), primary_key=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    identity: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    retired_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class EvaluationRow(InWorkspace):
    """What an evaluation of a version found: metrics on a named dataset, for gates to ask."""

    __tablename__ = "evaluations"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "model_id", "version"],
            ["model_versions.workspace_id", "model_versions.model_id", "model_versions.version"],
        ),
        Index(None, "workspace_id", "model_id", "version"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    model_id: Mapped[str] = mapped_column(ROW_ID)
    version: Mapped[int] = mapped_column(Integer)
    name: Mapped[str] = mapped_column(name_type())
    dataset: Mapped[str | None] = mapped_column(name_type())
    metrics: Mapped[JsonObject] = mapped_column(JsonType)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class TrackingServerRow(InWorkspace):
    """An MLflow tracking server that versions may be pulled from. Its credentials are named and not kept."""

    __tablename__ = "tracking_servers"

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    settings: Mapped[JsonObject] = mapped_column(JsonType, default=dict)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ImportRow(InWorkspace):
    """What was brought in from another registry, so that it is brought in once."""

    __tablename__ = "imports"

    source: Mapped[str] = mapped_column(name_type(512), primary_key=True)
    external_id: Mapped[str] = mapped_column(name_type(512), primary_key=True)
    model: Mapped[str] = mapped_column(name_type())
    version: Mapped[int | None] = mapped_column(Integer)
    imported_at: Mapped[datetime] = mapped_column(UtcDateTime)
