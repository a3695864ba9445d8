"""Encryption keys: the data keys of a workspace, wrapped by a key of its provider, and which of them is in use."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.registry.tables import PLAIN_KEY_ID, EncryptionKeyRow


def active_key_id(session: Session, workspace_id: str) -> str:
    """The key under which new artifacts of a workspace are stored: its ACTIVE one, or `plain` where it has none."""
    query = select(EncryptionKeyRow.id).where(
        EncryptionKeyRow.workspace_id == workspace_id, EncryptionKeyRow.state == "ACTIVE"
    )
    return session.scalar(query.order_by(EncryptionKeyRow.id.desc()).limit(1)) or PLAIN_KEY_ID
