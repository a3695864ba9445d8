"""Tables of erasures: what is asked for, and how far each artifact, location and online store is.

No table holds the value that names a subject, nor any of its rows: only a salted hash, by which whoever has the data
finds it.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace, JsonObject

_ERASURE = ["erasures.workspace_id", "erasures.id"]


class ErasureRow(InWorkspace):
    """That one subject is to leave: RUNNING -> DONE, with a certificate.

    `keys` are the join keys that name it. The row stays: its hash keeps rows of the subject with an event time up to
    `until` out of what is written later.
    """

    __tablename__ = "erasures"
    __table_args__ = (Index(None, "state"),)

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    keys: Mapped[list[str]] = mapped_column(JsonType)
    salt: Mapped[str] = mapped_column(String(64))
    subject_hash: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    until: Mapped[datetime] = mapped_column(UtcDateTime)
    requested_by: Mapped[str] = mapped_column(name_type())
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    certificate: Mapped[JsonObject | None] = mapped_column(JsonType)


class ErasedArtifactRow(InWorkspace):
    """One artifact that may hold the subject: WAITING -> UNTOUCHED, or -> VERIFYING (written anew) -> REPLACED.

    One that nothing names: WAITING -> DROPPED (its blocks are known), and is taken away whole. One of which no bytes
    are left, since a location is lost: WAITING -> LOST.
    `kind` is `snapshot` or `log`. `blocks` are the names (32 bytes each) of the blocks that the artifact was stored in.
    """

    __tablename__ = "erased_artifacts"
    __table_args__ = (ForeignKeyConstraint(["workspace_id", "erasure_id"], _ERASURE),)

    erasure_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    residency: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    region: Mapped[str | None] = mapped_column(name_type(63))
    upload_id: Mapped[str | None] = mapped_column(ROW_ID)
    new_digest: Mapped[str | None] = mapped_column(DIGEST)
    rows_removed: Mapped[int | None] = mapped_column(BigInteger)
    facts: Mapped[JsonObject | None] = mapped_column(JsonType)
    blocks: Mapped[bytes | None] = mapped_column(LargeBinary)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ErasedPartRow(InWorkspace):
    """A part of a snapshot that was rewritten: which artifact it had, which it has now."""

    __tablename__ = "erased_parts"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "erasure_id"], _ERASURE),
        Index(None, "workspace_id", "snapshot_id"),
    )

    erasure_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    snapshot_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    view: Mapped[str] = mapped_column(name_type(), primary_key=True)
    residency: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    old_digest: Mapped[str] = mapped_column(DIGEST)
    new_digest: Mapped[str] = mapped_column(DIGEST)
    old_rows_digest: Mapped[str | None] = mapped_column(DIGEST)
    rows_digest: Mapped[str | None] = mapped_column(DIGEST)
    rows_removed: Mapped[int] = mapped_column(BigInteger)


class ErasedLocationRow(InWorkspace):
    """A location: WAITING -> CLEARING (what must go is known, and on its way out) -> CLEAN (it was read again).

    GIVEN_UP where it is lost.
    """

    __tablename__ = "erased_locations"
    __table_args__ = (ForeignKeyConstraint(["workspace_id", "erasure_id"], _ERASURE),)

    erasure_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    location_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    objects: Mapped[list[str] | None] = mapped_column(JsonType)
    objects_deleted: Mapped[int] = mapped_column(Integer, default=0)
    checked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ErasedStoreRow(InWorkspace):
    """An online store: WAITING -> DONE once it serves nothing of the subject; GIVEN_UP where its region is lost."""

    __tablename__ = "erased_stores"
    __table_args__ = (ForeignKeyConstraint(["workspace_id", "erasure_id"], _ERASURE),)

    erasure_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    region: Mapped[str] = mapped_column(name_type(63), primary_key=True)
    service: Mapped[str] = mapped_column(name_type(), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    facts: Mapped[JsonObject | None] = mapped_column(JsonType)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
