"""The catalog's tables: what feeds brought, feed by feed, and the private regions of workspaces.

Figures of clouds and grids are the server's, not a workspace's: everybody plans with the same ones. A private region
belongs to the workspace that added it, and its id to nobody else, because workers serve a region for all workspaces.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Float, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import Base, JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import ROW_ID, InWorkspace, JsonObject


class CatalogFigureRow(Base):
    """A figure that a feed brought, first seen to last seen. One that changes gets a new row."""

    __tablename__ = "catalog_figures"
    __table_args__ = (
        UniqueConstraint("feed", "kind", "region", "item", "first_seen_at"),
        Index(None, "first_seen_at"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    feed: Mapped[str] = mapped_column(name_type(63))
    kind: Mapped[str] = mapped_column(String(32))
    region: Mapped[str] = mapped_column(name_type(63))
    item: Mapped[str] = mapped_column(name_type())
    value: Mapped[float] = mapped_column(Float(53))
    unit: Mapped[str] = mapped_column(String(16))
    source: Mapped[str] = mapped_column(Text)
    licence: Mapped[str] = mapped_column(Text)
    date: Mapped[str] = mapped_column(String(10))
    is_estimate: Mapped[bool] = mapped_column()
    first_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CatalogFeedRow(Base):
    """How the refreshes of one feed went. `generation` counts those that brought something.

    `read_whole_at` is the last one that was of all regions; what is read by and by is due a while after it.
    """

    __tablename__ = "catalog_feeds"

    feed: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    figures: Mapped[int] = mapped_column(BigInteger, default=0)
    missing: Mapped[list[JsonObject]] = mapped_column(JsonType, default=list)
    attempted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    succeeded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    read_whole_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error_code: Mapped[str | None] = mapped_column(String(63))
    error_detail: Mapped[str | None] = mapped_column(Text)


class PrivateRegionRow(InWorkspace):
    """A private cloud or an edge site, as its owner describes it."""

    __tablename__ = "private_regions"
    __table_args__ = (UniqueConstraint("region"),)

    region: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    document: Mapped[JsonObject] = mapped_column(JsonType)
    revision: Mapped[int] = mapped_column(BigInteger)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
