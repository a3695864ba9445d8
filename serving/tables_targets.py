"""The tables of deploy targets, and of how deployments came to be as they are: revisions, and the steps of each."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKeyConstraint, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace, JsonObject


class DeployTargetRow(InWorkspace):
    """A place where deployments run, as its document says; `regions` None: any. No secret is in its settings."""

    __tablename__ = "deploy_targets"

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    kind: Mapped[str] = mapped_column(name_type(63))
    delivery: Mapped[str] = mapped_column(String(16))
    regions: Mapped[list[str] | None] = mapped_column(JsonType)
    settings: Mapped[JsonObject] = mapped_column(JsonType)
    delivery_settings: Mapped[JsonObject] = mapped_column(JsonType)
    revision: Mapped[int] = mapped_column(BigInteger)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DeploymentRevisionRow(InWorkspace):
    """One state that a deployment was to have: what was asked for (`document`), resolved to one version and bundle.

    PENDING (its bundle is not READY) -> ROLLING -> LIVE -> SUPERSEDED by the next one that is LIVE; FAILED, with the
    reason in `why`, where the deployment went back to the LIVE one before. `cause` is `apply`, `follow` (a pointer
    moved) or `rollback`.
    """

    __tablename__ = "deployment_revisions"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "deployment_id"], ["deployments.workspace_id", "deployments.id"]),
    )

    deployment_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    cause: Mapped[str] = mapped_column(String(16))
    document: Mapped[JsonObject] = mapped_column(JsonType)
    version: Mapped[int | None] = mapped_column(Integer)
    bundle_digest: Mapped[str | None] = mapped_column(DIGEST)
    pointer_revision: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[str] = mapped_column(String(16))
    why: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class DeploymentStepRow(InWorkspace):
    """One step of a revision, in order of `number`; each is safe to repeat, and a crash loses none.

    PENDING -> RUNNING -> DONE, FAILED or SKIPPED. `action` is start, replace, scale, keep, shift, finish or stop; a
    shift turns `traffic_percent` of the requests to the revision. `measured` holds what the gateway had counted when
    it began (`before`), and what it saw until it ended (`seen`).
    """

    __tablename__ = "deployment_steps"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "deployment_id", "revision"],
            [
                "deployment_revisions.workspace_id",
                "deployment_revisions.deployment_id",
                "deployment_revisions.number",
            ],
        ),
    )

    deployment_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    revision: Mapped[int] = mapped_column(Integer, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    region: Mapped[str | None] = mapped_column(name_type(63))
    action: Mapped[str] = mapped_column(String(16))
    traffic_percent: Mapped[int | None] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    detail: Mapped[str | None] = mapped_column(Text)
    measured: Mapped[dict[str, Any] | None] = mapped_column(JsonType)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
