"""The record's table of retention policies: what goes by itself, and when."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.registry.tables import InWorkspace, JsonObject


class RetentionPolicyRow(InWorkspace):
    """How long versions of some models are kept. `document` is the policy as applied."""

    __tablename__ = "retention_policies"

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    document: Mapped[JsonObject] = mapped_column(JsonType)
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
