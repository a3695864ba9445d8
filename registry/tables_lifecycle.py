"""The record's tables of model cards, and of retention policies: what goes by itself, and when."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKeyConstraint, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.registry.tables import ROW_ID, InWorkspace, JsonObject


class ModelCardRow(InWorkspace):
    """What people say of a model (version 0) or of one of its versions, in Markdown that is kept as text."""

    __tablename__ = "model_cards"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "model_id"], ["registered_models.workspace_id", "registered_models.id"]),
    )

    model_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, sort_order=-1)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    revision: Mapped[int] = mapped_column(BigInteger)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RetentionPolicyRow(InWorkspace):
    """How long versions of some models are kept. `document` is the policy as applied."""

    __tablename__ = "retention_policies"

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    document: Mapped[JsonObject] = mapped_column(JsonType)
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
