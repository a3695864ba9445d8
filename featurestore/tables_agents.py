"""The table of feature agents: who answers joins in a region."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import UtcDateTime, name_type
from fairlead.registry.tables import InWorkspace


class FeatureAgentRow(InWorkspace):
    """An agent of a region, at an address. `certificate` is what callers hold it to: its own, or its authority's (PEM).

    SERVING from when it says so, for as long as it goes on saying so (`seen_at`); LEFT when it stopped by itself.
    `principal` runs it: nobody else may say that it serves, or what went through it.
    """

    __tablename__ = "feature_agents"

    region: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    address: Mapped[str] = mapped_column(name_type(255), primary_key=True)
    certificate: Mapped[str] = mapped_column(Text)
    certificate_sha256: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    principal: Mapped[str] = mapped_column(name_type())
    registered_by: Mapped[str] = mapped_column(name_type())
    registered_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
