"""The record's tables of who may do what, whom to believe, and what was found out about a version."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import ROW_ID, InWorkspace, JsonObject


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
