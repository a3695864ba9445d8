"""The table of losses: locations whose bytes will not come back."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import UtcDateTime, name_type
from fairlead.registry.tables import ROW_ID, InWorkspace


class LostLocationRow(InWorkspace):
    """That an administrator has given a location up for lost; with `has_region`, all else that was in its region too.

    `returned_as` is a location that was added later at the same place. It is kept from traffic until `cleared_at`, when
    what was erased meanwhile has been taken out of it too.
    """

    __tablename__ = "lost_locations"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "location_id"], ["locations.workspace_id", "locations.id"]),
        Index(None, "workspace_id", "returned_as"),
    )

    location_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    region: Mapped[str] = mapped_column(name_type(63))
    has_region: Mapped[bool]
    reason: Mapped[str] = mapped_column(Text)
    lost_by: Mapped[str] = mapped_column(name_type())
    lost_at: Mapped[datetime] = mapped_column(UtcDateTime)
    returned_as: Mapped[str | None] = mapped_column(ROW_ID)
    cleared_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
