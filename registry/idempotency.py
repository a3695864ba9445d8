"""Calls that create something may be repeated: the same key and request give the first answer again.

The record of a key is written in the transaction of the change and exists only for committed success, so a call that
failed may be repeated with its key, and there is no "in progress" state that a crash could leave behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import delete, text
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import IdempotencyKeyReused, InvalidInput
from fairlead.core.ports import Clock
from fairlead.registry.tables import IdempotencyRow

if TYPE_CHECKING:
    from fairlead.registry.identity import Caller

KEPT_FOR = timedelta(hours=24)
"""How long a repeated call is recognised."""

_MAX_KEY_LENGTH = 255
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """A caller's name for one creating call, and the sha256 of what it asked for."""

    key: str
    request_sha256: str


def parse_idempotency_key(text: str, *, request_sha256: str) -> IdempotencyKey:
    """Check a caller's key; `request_sha256` binds it to one request.

    Raises:
        InvalidInput: if the key is empty, too long or not printable ASCII.
    """
    if not 1 <= len(text) <= _MAX_KEY_LENGTH or not (text.isascii() and text.isprintable()):
        raise InvalidInput("The Idempotency-Key is not 1 to 255 printable ASCII characters.", hint="Use a fresh UUID.")
    return IdempotencyKey(key=text, request_sha256=request_sha256)


def run_once(
    session: Session,
    caller: Caller,
    clock: Clock,
    key: IdempotencyKey | None,
    *,
    result_type: type[Result],
    action: Callable[[], Result],
) -> Result:
    """Do something within the transaction that is open, or give the answer it gave when it was done with this key.

    The result is kept as JSON, so its type is one that pydantic can write and read again.

    Raises:
        IdempotencyKeyReused: if the caller used the key for another request.
    """
    if key is None:
        return action()
    adapter = _adapter(result_type)
    _wait_for_turn(session, caller, key)
    row = session.get(IdempotencyRow, (caller.workspace_id, caller.principal, key.key))
    now = clock.now()
    if row is not None and row.created_at > now - KEPT_FOR:
        if row.request_sha256 != key.request_sha256:
            raise IdempotencyKeyReused(
                f"The Idempotency-Key {key.key!r} was used for another request.", hint="Use a fresh key for each call."
            )
        return adapter.validate_json(row.answer)
    if row is not None:
        session.delete(row)
        session.flush()
    result = action()
    session.add(
        IdempotencyRow(
            workspace_id=caller.workspace_id,
            principal=caller.principal,
            key=key.key,
            request_sha256=key.request_sha256,
            status=201,
            answer=adapter.dump_json(result),
            created_at=now,
        )
    )
    return result


@lru_cache
def _adapter(result_type: type[Result]) -> TypeAdapter[Result]:
    return TypeAdapter(result_type)


def forget_old_keys(database: Database, clock: Clock) -> int:
    """Remove the records of keys that are no longer recognised; how many there were."""
    with database.write() as session:
        old = delete(IdempotencyRow).where(IdempotencyRow.created_at <= clock.now() - KEPT_FOR)
        return len(session.execute(old.returning(IdempotencyRow.key)).all())


def _wait_for_turn(session: Session, caller: Caller, key: IdempotencyKey) -> None:
    # Two calls with one key at the same time: the second waits here and then finds the first one's answer.
    if session.get_bind().dialect.name == "postgresql":
        name = hashlib.sha256(f"{caller.workspace_id}\n{caller.principal}\n{key.key}".encode()).digest()
        session.execute(
            text("SELECT pg_advisory_xact_lock(:name)"), {"name": int.from_bytes(name[:8], "big", signed=True)}
        )
