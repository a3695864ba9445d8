"""Encryption keys: the data keys of a workspace, wrapped by a key of its provider, and which of them is in use.

A data key never leaves this process unwrapped and is in no table. At most one key of a workspace is ACTIVE: artifacts
that are registered from then on are encrypted under it. Others are RETIRED, which means that they are only read. The
key's id is a part of every object's key, so rotation, which wraps the same data key anew, rewrites no object.

Providers are asked outside of transactions; what was wrapped is recorded if the row still is what it was.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fairlead.core.data_keys import DATA_KEY_BYTES, KeyProviders, WrappedKey, unwrap_key, wrap_key
from fairlead.core.db import Database
from fairlead.core.errors import EncryptionKeyNotFound, InvalidInput, JsonValue, PermissionDenied, StaleRevision
from fairlead.core.ids import new_row_id
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_row_id
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import PLAIN_KEY_ID
from fairlead.registry.tables_bytes import EncryptionKeyRow

KeyState = Literal["ACTIVE", "RETIRED"]
_NAME_MAX_LENGTH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionKey:
    """A data key as the record keeps it. `wrapped_key` is base64, `provider_key` the name of what wrapped it."""

    id: str
    state: KeyState
    provider: str
    provider_key: str
    wrapped_key: str
    revision: int
    created_by: str
    created_at: datetime
    wrapped_at: datetime


class Keys:
    """Makes, shows, rewraps and retires a workspace's encryption keys."""

    def __init__(self, database: Database, clock: Clock, *, providers: KeyProviders) -> None:
        self._database = database
        self._clock = clock
        self._providers = providers

    def create(
        self, caller: Caller, *, provider: str, provider_key: str = "", key: IdempotencyKey | None = None
    ) -> EncryptionKey:
        """Make a data key, have it wrapped, and encrypt under it from now on; the key before it is only read then.

        Raises:
            InvalidInput: if there is no such provider, or it has no such key.
            KeyUnavailable: if the provider does not wrap with it.
        """
        key_id = str(new_row_id())
        wrapped = self._wrap(os.urandom(DATA_KEY_BYTES), caller.workspace_id, key_id, provider, provider_key)

        def create(session: Session) -> EncryptionKey:
            self._retire_active(session, caller)
            now = self._clock.now()
            row = EncryptionKeyRow(
                workspace_id=caller.workspace_id,
                id=key_id,
                state="ACTIVE",
                provider=wrapped.provider,
                provider_key=wrapped.provider_key,
                wrapped_key=wrapped.wrapped,
                revision=1,
                created_by=caller.principal,
                created_at=now,
                wrapped_at=now,
            )
            session.add(row)
            session.flush()
            self._audit(session, caller, row, "create")
            return _to_key(row)

        with self._database.write() as session:
            return run_once(
                session, caller, self._clock, key, result_type=EncryptionKey, action=lambda: create(session)
            )

    def list(self, caller: Caller, page: PageRequest) -> Page[EncryptionKey]:
        """The workspace's keys, oldest first."""
        query = select(EncryptionKeyRow).where(EncryptionKeyRow.workspace_id == caller.workspace_id)
        with self._database.read() as session:
            rows = page.fetch(session, query, [EncryptionKeyRow.id], listing=("keys", caller.workspace_id))
        return rows.map(_to_key)

    def get(self, caller: Caller, key_id: str) -> EncryptionKey:
        """One key, for a caller who reads or writes what it encrypts.

        Raises:
            PermissionDenied: if the caller may do neither.
            EncryptionKeyNotFound: if the workspace has no such key.
        """
        if not (caller.may_somewhere("read") or caller.may_somewhere("write")):
            raise PermissionDenied(f"{caller.principal!r} may not see keys: it needs the scope 'read' or 'write'.")
        with self._database.read() as session:
            return _to_key(_find(session, caller.workspace_id, key_id))

    def rotate(
        self, caller: Caller, key_id: str, *, provider: str | None = None, provider_key: str = ""
    ) -> EncryptionKey:
        """Wrap the same data key anew: by the newest version of its wrapping key, or by another one. Nothing is moved.

        Without a provider it stays with the one it has; a file provider then wraps with its first file.

        Raises:
            EncryptionKeyNotFound: if the workspace has no such key.
            KeyUnavailable: if it cannot be unwrapped, or not wrapped anew.
            StaleRevision: if it was rotated meanwhile.
        """
        with self._database.read() as session:
            found = _find(session, caller.workspace_id, key_id)
        is_same = provider in {None, found.provider}
        stays = found.provider_key if is_same and found.provider != "file" else ""
        data_key = unwrap_key(self._providers, _to_wrapped(found))
        wrapped = self._wrap(data_key, caller.workspace_id, key_id, provider or found.provider, provider_key or stays)
        with self._database.write() as session:
            row = _find(session, caller.workspace_id, key_id, for_update=True)
            if row.revision != found.revision:
                raise StaleRevision(
                    f"The key {key_id} was rotated by somebody else just now.", hint="See: fairlead keys list"
                )
            row.provider, row.provider_key, row.wrapped_key = wrapped.provider, wrapped.provider_key, wrapped.wrapped
            row.revision += 1
            row.wrapped_at = self._clock.now()
            session.flush()
            self._audit(session, caller, row, "rotate", before=found.provider_key)
            return _to_key(row)

    def retire(self, caller: Caller, key_id: str) -> EncryptionKey:
        """Encrypt nothing more under a key; what it encrypted stays readable. Repeating it changes nothing.

        Raises:
            EncryptionKeyNotFound: if the workspace has no such key.
        """
        with self._database.write() as session:
            row = _find(session, caller.workspace_id, key_id, for_update=True)
            if row.state != "RETIRED":
                row.state = "RETIRED"
                session.flush()
                self._audit(session, caller, row, "retire")
            return _to_key(row)

    def look_up(self, workspace: str, key_id: str) -> WrappedKey:
        """A key as a keyring unwraps it.

        Raises:
            EncryptionKeyNotFound: if the workspace has no such key.
        """
        with self._database.read() as session:
            return _to_wrapped(_find(session, workspace, key_id))

    def _wrap(self, data_key: bytes, workspace: str, key_id: str, provider: str, provider_key: str) -> WrappedKey:
        if len(provider_key) > _NAME_MAX_LENGTH or not provider_key.isprintable():
            raise InvalidInput("The name of the wrapping key is too long or holds a control character.")
        return wrap_key(
            self._providers, data_key, workspace=workspace, key_id=key_id, provider=provider, provider_key=provider_key
        )

    def _retire_active(self, session: Session, caller: Caller) -> None:
        session.execute(
            update(EncryptionKeyRow)
            .where(EncryptionKeyRow.workspace_id == caller.workspace_id, EncryptionKeyRow.state == "ACTIVE")
            .values(state="RETIRED")
        )

    def _audit(
        self, session: Session, caller: Caller, row: EncryptionKeyRow, action: str, *, before: str | None = None
    ) -> None:
        facts: dict[str, JsonValue] = {
            "provider": row.provider,
            "provider_key": row.provider_key,
            "revision": row.revision,
        }
        if before is not None:
            facts["before"] = before
        audit.record(session, caller, self._clock, action=f"key.{action}", subject=row.id, facts=facts)


def active_key_id(session: Session, workspace_id: str) -> str:
    """The key under which new artifacts of a workspace are stored: its ACTIVE one, or `plain` where it has none."""
    query = select(EncryptionKeyRow.id).where(
        EncryptionKeyRow.workspace_id == workspace_id, EncryptionKeyRow.state == "ACTIVE"
    )
    # Two that are made at once may both be ACTIVE: the newer one counts.
    return session.scalar(query.order_by(EncryptionKeyRow.id.desc()).limit(1)) or PLAIN_KEY_ID


def _find(session: Session, workspace_id: str, key_id: str, *, for_update: bool = False) -> EncryptionKeyRow:
    primary_key = (workspace_id, parse_row_id(key_id, EncryptionKeyNotFound, what="encryption key"))
    row = session.get(EncryptionKeyRow, primary_key, with_for_update=for_update)
    if row is None:
        raise EncryptionKeyNotFound(
            f"There is no encryption key {key_id}.", hint="See: fairlead keys list", key_id=key_id
        )
    return row


def _to_wrapped(row: EncryptionKeyRow) -> WrappedKey:
    return WrappedKey(
        workspace=row.workspace_id,
        key_id=row.id,
        provider=row.provider,
        provider_key=row.provider_key,
        wrapped=row.wrapped_key,
    )


def _to_key(row: EncryptionKeyRow) -> EncryptionKey:
    return EncryptionKey(
        id=row.id,
        state=cast("KeyState", row.state),
        provider=row.provider,
        provider_key=row.provider_key,
        wrapped_key=base64.b64encode(row.wrapped_key).decode(),
        revision=row.revision,
        created_by=row.created_by,
        created_at=row.created_at,
        wrapped_at=row.wrapped_at,
    )
