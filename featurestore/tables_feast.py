"""What Feast reports of materializing a region's features into online stores of its users' own."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace


class FeastMaterializationRow(InWorkspace):
    """One interval of a view's event times that Feast materialized, as the registry of a Feast repository said it.

    `store` tells apart who materialized: each repository has an online store of its own.
    """

    __tablename__ = "feast_materializations"
    __table_args__ = (Index(None, "workspace_id", "service", "region", "store"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    service: Mapped[str] = mapped_column(name_type())
    region: Mapped[str] = mapped_column(name_type(63))
    store: Mapped[str] = mapped_column(String(36))
    view: Mapped[str] = mapped_column(name_type())
    snapshot_digest: Mapped[str] = mapped_column(DIGEST)
    start_at: Mapped[datetime] = mapped_column(UtcDateTime)
    end_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reported_by: Mapped[str] = mapped_column(name_type())
    reported_at: Mapped[datetime] = mapped_column(UtcDateTime)
