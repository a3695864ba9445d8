"""The tables of what online stores keep beside the newest snapshot, and of how fresh they are."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.registry.tables import DIGEST, InWorkspace

LEAVING = "LEAVING"
"""The state of a store that nobody wants any longer; its row goes when the store is gone."""


class OnlineSlotRow(InWorkspace):
    """A snapshot that one region keeps materialized beside the newest, because a holder of an environment needs it.

    WAITING (a part has no verified replica there yet) -> PENDING (work is asked for) -> READY; LEAVING: nobody needs it
    any longer, and the row goes when the store is gone. `served_snapshot` is set once the store was there.
    """

    __tablename__ = "online_slots"
    __table_args__ = (Index(None, "workspace_id", "state"),)

    service: Mapped[str] = mapped_column(name_type(), primary_key=True)
    region: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    slot: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    served_snapshot: Mapped[str | None] = mapped_column(DIGEST)
    engine: Mapped[str | None] = mapped_column(name_type())
    is_atomic: Mapped[bool | None]
    row_count: Mapped[int | None] = mapped_column(BigInteger)
    missing_views: Mapped[list[str]] = mapped_column(JsonType, default=list)
    materialized_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class OnlineFreshnessRow(InWorkspace):
    """How far one region's newest store is in one view, as of when it was materialized.

    `watermark` is the latest event time that is served; of a view under a residency class it is not told where the
    record may lie outside. `as_of` is the snapshot's time.
    """

    __tablename__ = "online_freshness"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "service", "region"],
            ["online_states.workspace_id", "online_states.service", "online_states.region"],
        ),
    )

    service: Mapped[str] = mapped_column(name_type(), primary_key=True)
    region: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    view: Mapped[str] = mapped_column(name_type(), primary_key=True)
    as_of: Mapped[datetime] = mapped_column(UtcDateTime)
    materialized_at: Mapped[datetime] = mapped_column(UtcDateTime)
    watermark: Mapped[datetime | None] = mapped_column(UtcDateTime)
