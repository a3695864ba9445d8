"""The audit log: what happened, by whom, and a chain that shows whether anyone changed it afterwards.

An event is written in the transaction of the change it tells of, so there is neither a change without its event nor
an event without its change. One sealer then gives committed events their place: `sequence` counts from 1 without a
gap in each workspace, and `event_hash` is the sha256 of the event's canonical JSON, which holds the sequence and the
hash of the event before it. So writers never queue for the head of the chain.

An edit, a removal, an insertion or an exchange within the chain breaks it, and `verify` says where. Cutting off its
tail leaves a shorter chain that is whole: that is what an exported *anchor* (a sequence and its hash, kept elsewhere)
is for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import bindparam, func, insert, select, text, update
from sqlalchemy.orm import Session

from fairlead.core.audit_chain import FIRST_PREVIOUS_HASH, HASHED, Anchor, ChainCheck, Problem, hash_event
from fairlead.core.clock import format_time
from fairlead.core.db import Database
from fairlead.core.errors import JsonValue
from fairlead.core.ids import new_row_id
from fairlead.core.ports import Clock
from fairlead.core.prepared import Call, Prepared
from fairlead.registry.limits import parse_text
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import AuditEventRow

if TYPE_CHECKING:
    from fairlead.registry.identity import Caller

_BATCH = 500
_SAFE_INTEGER = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One event; `sequence`, `previous_hash` and `event_hash` are None until it is sealed."""

    id: str
    residency: str
    actor: str
    action: str
    subject: str
    facts: Mapping[str, JsonValue]
    happened_at: datetime
    sequence: int | None
    previous_hash: str | None
    event_hash: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What reading the whole chain found.

    `problem` names the first thing that is wrong, `sequence` says where (see `ChainCheck`).
    """

    is_intact: bool
    sealed: int
    unsealed: int
    head: Anchor | None
    problem: Problem | None = None
    sequence: int | None = None


def record(
    session: Session,
    caller: Caller,
    clock: Clock,
    *,
    action: str,
    subject: str,
    residency: str = "unrestricted",
    facts: Mapping[str, JsonValue] | None = None,
) -> None:
    """Add an event to the transaction that is open. Facts hold no secret; numbers with a fraction are kept as text."""
    record_at(session, caller, clock.now(), action=action, subject=subject, residency=residency, facts=facts)


def record_at(
    session: Session,
    caller: Caller,
    now: datetime,
    *,
    action: str,
    subject: str,
    residency: str = "unrestricted",
    facts: Mapping[str, JsonValue] | None = None,
) -> None:
    """As `record`, where the transaction's time is known and its clock is not."""
    statement, event = recording(caller, now, action=action, subject=subject, residency=residency, facts=facts)
    statement.run(session, event)


def recording(
    caller: Caller,
    now: datetime,
    *,
    action: str,
    subject: str,
    residency: str = "unrestricted",
    facts: Mapping[str, JsonValue] | None = None,
) -> Call:
    """What adds an event to a transaction, to be sent with what it tells of."""
    return _INSERT, {
        "workspace_id": caller.workspace_id,
        "id": new_row_id(),
        "residency": residency,
        "actor": caller.principal,
        "action": action,
        "subject": subject,
        "facts": {key: _exact(value) for key, value in (facts or {}).items()},
        "happened_at": now,
    }


_INSERT = Prepared(
    insert(AuditEventRow.__table__),  # pyright: ignore[reportArgumentType]  (a table)
    columns=("workspace_id", "id", "residency", "actor", "action", "subject", "facts", "happened_at"),
)


class AuditLog:
    """Reads a workspace's events and checks its chain."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self,
        caller: Caller,
        page: PageRequest,
        *,
        subject: str | None = None,
        action: str | None = None,
        newest_first: bool = False,
    ) -> Page[AuditEvent]:
        """Events, oldest first, those not yet sealed among them. `subject` and `action` match exactly."""
        query = select(AuditEventRow).where(AuditEventRow.workspace_id == caller.workspace_id)
        if subject is not None:
            query = query.where(AuditEventRow.subject == parse_text(subject, what="subject", max_length=512))
        if action is not None:
            query = query.where(AuditEventRow.action == parse_text(action, what="action", max_length=63))
        listing = ("audit", caller.workspace_id, subject, action, newest_first)
        with self._database.read() as session:
            rows = page.fetch(session, query, [AuditEventRow.id], listing=listing, descending=newest_first)
        return rows.map(to_event)

    def verify(self, caller: Caller, *, anchor: Anchor | None = None) -> Verification:
        """Read the caller's whole chain and say whether it is intact, and whether it still holds the anchor."""
        return verify(self._database, caller.workspace_id, anchor=anchor)


class Sealer:
    """Gives committed events their place in the chain. Any number of sealers may run; they take turns."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def seal_once(self) -> int:
        """Seal what is committed now, in every workspace; the number of events sealed."""
        with self._database.read() as session:
            waiting = select(AuditEventRow.workspace_id).where(AuditEventRow.sequence.is_(None)).distinct()
            workspaces = list(session.scalars(waiting))
        sealed = 0
        for workspace_id in workspaces:
            while batch := self._seal_batch(workspace_id):
                sealed += batch
        return sealed

    def _seal_batch(self, workspace_id: str) -> int:
        with self._database.write() as session:
            if not self._database.is_sqlite:
                # Held until the commit, so the next sealer sees this one's head. It locks no row that writers need.
                key = int.from_bytes(
                    hashlib.sha256(f"fairlead-seal:{workspace_id}".encode()).digest()[:8], "big", signed=True
                )
                session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            head = _HEAD.first(session, in_workspace=workspace_id)
            sequence, previous_hash = (0, FIRST_PREVIOUS_HASH) if head is None else (head.sequence, head.event_hash)
            places: list[dict[str, object]] = []
            for event in _UNSEALED.all(session, in_workspace=workspace_id):
                sequence += 1
                event_hash = hash_event(chained(event), sequence=sequence, previous_hash=previous_hash)
                place = {"sequence": sequence, "previous_hash": previous_hash, "event_hash": event_hash}
                places.append({"in_workspace": workspace_id, "of_event": event.id, **place})
                previous_hash = event_hash
            if places:
                _SEAL.run(session, *places)
            return len(places)


_OF_WORKSPACE = AuditEventRow.workspace_id == bindparam("in_workspace")
_HEAD = Prepared(
    select(AuditEventRow.sequence, AuditEventRow.event_hash)
    .where(_OF_WORKSPACE, AuditEventRow.sequence.is_not(None))
    .order_by(AuditEventRow.sequence.desc())
    .limit(1)
)
_UNSEALED = Prepared(
    select(*(AuditEventRow.__table__.c[name] for name in HASHED))
    .where(_OF_WORKSPACE, AuditEventRow.sequence.is_(None))
    .order_by(AuditEventRow.id)
    .limit(_BATCH)
)
_SEAL = Prepared(
    update(AuditEventRow)
    .where(_OF_WORKSPACE, AuditEventRow.id == bindparam("of_event"))
    .values({name: bindparam(name) for name in ("sequence", "previous_hash", "event_hash")})
    .execution_options(synchronize_session=False)
)


def chained(row: Any) -> dict[str, JsonValue]:
    """What of an event is hashed (see `fairlead.core.audit_chain`)."""
    return {
        "workspace_id": row.workspace_id,
        "id": row.id,
        "residency": row.residency,
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "facts": cast("JsonValue", row.facts),
        "happened_at": format_time(row.happened_at),
    }


def verify(database: Database, workspace_id: str, *, anchor: Anchor | None = None) -> Verification:
    """Read a workspace's whole chain and compare every hash; memory stays bounded."""
    check = ChainCheck(anchor=anchor)
    with database.read() as session:
        chain = session.scalars(
            select(AuditEventRow)
            .where(AuditEventRow.workspace_id == workspace_id, AuditEventRow.sequence.is_not(None))
            .order_by(AuditEventRow.sequence)
            .execution_options(yield_per=_BATCH)
        )
        for row in chain:
            check.add(chained(row), sequence=row.sequence, previous_hash=row.previous_hash, event_hash=row.event_hash)
        unsealed = session.scalar(
            select(func.count())
            .select_from(AuditEventRow)
            .where(AuditEventRow.workspace_id == workspace_id, AuditEventRow.sequence.is_(None))
        )
    return Verification(
        is_intact=check.finish(),
        sealed=check.sealed,
        unsealed=unsealed or 0,
        head=check.head,
        problem=check.problem,
        sequence=check.sequence,
    )


def _exact(value: JsonValue) -> JsonValue:
    # Canonical JSON has no floats and no large integers, and both databases must give back the same characters.
    if isinstance(value, float) or (isinstance(value, int) and abs(value) > _SAFE_INTEGER):
        return repr(value)
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    return value


def to_event(row: AuditEventRow) -> AuditEvent:
    """An event, as its row says."""
    return AuditEvent(
        id=row.id,
        residency=row.residency,
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        facts=row.facts,
        happened_at=row.happened_at,
        sequence=row.sequence,
        previous_hash=row.previous_hash,
        event_hash=row.event_hash,
    )
