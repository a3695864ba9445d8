"""The record's tables of webhooks and what was delivered to them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import ROW_ID, InWorkspace


class WebhookRow(InWorkspace):
    """Where events are sent to, in what form, and how far that has come.

    `position` is the sequence of the last event that is done with; `attempts` counts the tries of the next one. One
    that an MLflow client made has its id as its name, and that client's name as its title. Secrets are encrypted.
    """

    __tablename__ = "webhooks"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    name: Mapped[str] = mapped_column(name_type())
    title: Mapped[str] = mapped_column(Text, default="")
    description: Mapped[str] = mapped_column(Text, default="")
    url: Mapped[str] = mapped_column(Text)
    format: Mapped[str] = mapped_column(String(16))  # fairlead | openlineage | mlflow
    events: Mapped[list[str]] = mapped_column(JsonType)
    models: Mapped[str] = mapped_column(name_type(), default="*")
    environments: Mapped[str] = mapped_column(name_type(), default="*")
    # Where the receiver is, as an admin says: facts of restricted events go there only where they may be.
    jurisdiction: Mapped[str | None] = mapped_column(name_type(16))
    credentials_env: Mapped[str | None] = mapped_column(String(128))
    secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_secret_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    state: Mapped[str] = mapped_column(String(16), default="ACTIVE")  # ACTIVE | DISABLED
    state_reason: Mapped[str | None] = mapped_column(Text)
    position: Mapped[int] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    failing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    not_before: Mapped[datetime] = mapped_column(UtcDateTime)
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WebhookDeliveryRow(InWorkspace):
    """What became of one event at one webhook: PENDING (tried, or to be sent again) -> DELIVERED | DEAD."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "webhook_id"], ["webhooks.workspace_id", "webhooks.id"]),
        UniqueConstraint("workspace_id", "webhook_id", "sequence"),
        Index(None, "workspace_id", "webhook_id", "state"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    webhook_id: Mapped[str] = mapped_column(ROW_ID)
    sequence: Mapped[int] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(String(63))
    subject: Mapped[str] = mapped_column(name_type(512))
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer)
    status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    duration_ms: Mapped[int | None] = mapped_column(Integer)
    # Set while it is to be sent (again) beside the order of events, because somebody asked.
    resend_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
