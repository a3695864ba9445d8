"""The record's tables of signatures: who signed which version, and whose signatures count."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKeyConstraint, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import JsonType, UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import DIGEST, ROW_ID, InWorkspace, JsonObject


class SignerRow(InWorkspace):
    """Whose signatures count, for which models: a public key, or an identity that a sigstore instance vouches for."""

    __tablename__ = "signers"

    name: Mapped[str] = mapped_column(name_type(), primary_key=True)
    public_key: Mapped[str | None] = mapped_column(Text)
    key_id: Mapped[str | None] = mapped_column(String(64))
    identity: Mapped[str | None] = mapped_column(Text)
    issuer: Mapped[str | None] = mapped_column(Text)
    trusted_root: Mapped[JsonObject | None] = mapped_column(JsonType)
    models: Mapped[list[str]] = mapped_column(JsonType, default=list)
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)
    not_after: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class VersionSignatureRow(InWorkspace):
    """A signed statement about a version, as its signer sent it. `sequence` grows with each one of a model."""

    __tablename__ = "version_signatures"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "model_id", "version"],
            ["model_versions.workspace_id", "model_versions.model_id", "model_versions.version"],
        ),
        UniqueConstraint("workspace_id", "model_id", "sequence"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    model_id: Mapped[str] = mapped_column(ROW_ID)
    version: Mapped[int] = mapped_column(Integer)
    sequence: Mapped[int] = mapped_column(BigInteger)
    artifact_digest: Mapped[str] = mapped_column(DIGEST)
    signer: Mapped[str] = mapped_column(name_type())
    envelope: Mapped[JsonObject] = mapped_column(JsonType)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
