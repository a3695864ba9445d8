"""Work: the difference between what should be true and what is, leased to one worker at a time.

A row asks for one thing to be made true (`kind` and `subject` name it) by a worker of one region. It is inserted by
whoever finds the difference, as often as they like, and deleted in the transaction that records the result. Three rules
make that safe:

- A lease is a token, and tokens of a row only grow. Clocks decide when a worker is presumed dead; only the token
  decides who may record, so a clock that lies costs time and never correctness.
- A worker whose token is no longer current gets `LeaseLost` from `finish`, inside the transaction that would have
  recorded its result, which is rolled back.
- A row that is lost is derived again from the desired state, so nothing here needs to be kept for ever.

The lowest `priority` is served first, and within it the oldest row.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult

from fairlead.core.errors import FairleadError, LeaseLost
from fairlead.core.ids import RowId, new_row_id
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import WorkRow

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import Session

    from fairlead.core.db import Database
    from fairlead.core.ports import Clock

PROMOTED = 5
"""A promotion to production waits for it: it goes first, and no budget holds it up."""

URGENT = 10
"""Somebody waits for it: an upload to verify, a replica to mend."""

USUAL = 100

FIRST_RETRY = timedelta(seconds=1)
LONGEST_RETRY = timedelta(minutes=5)
_DETAIL_MAX_LENGTH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedWork:
    """One row of work, held under a fencing token. `attempt` is 1 for the first try, crashed ones included.

    `written_packs` (hexadecimal) are those that earlier attempts say they wrote.
    """

    id: RowId
    workspace_id: str
    residency: str
    kind: str
    subject: str
    region: str
    attempt: int
    holder: str
    token: int
    priority: int = USUAL
    written_packs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} in {self.region}"


def require_work(
    session: Session,
    *,
    workspace_id: str,
    residency: str,
    kind: str,
    subject: str,
    region: str,
    priority: int,
    now: datetime,
) -> bool:
    """Ask for a piece of work unless it is asked for already; True if this call asked. May be repeated at will."""
    dialect: Any = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    statement = (
        dialect.insert(WorkRow)
        .values(
            workspace_id=workspace_id,
            id=new_row_id(),
            residency=residency,
            kind=kind,
            subject=subject,
            region=region,
            priority=priority,
            attempts=0,
            lease_token=0,
            not_before=now,
            created_at=now,
        )
        .on_conflict_do_nothing(index_elements=["workspace_id", "kind", "subject"])
        .returning(WorkRow.id)
    )
    return session.execute(statement).scalar_one_or_none() is not None


def hasten(session: Session, *, workspace_id: str, kind: str, subject: str, now: datetime) -> None:
    """End the back-off of a piece of work, because what it failed on may have changed."""
    _changed(
        session,
        update(WorkRow)
        .where(WorkRow.workspace_id == workspace_id, WorkRow.kind == kind, WorkRow.subject == subject)
        .where(WorkRow.not_before > now)
        .values(not_before=now),
    )


def lease(
    database: Database,
    clock: Clock,
    *,
    kinds: Collection[str],
    regions: Collection[str] | None,
    holder: str,
    ttl: timedelta,
) -> LeasedWork | None:
    """Take the most urgent piece of work that is due and that nobody holds, or None.

    `regions` None means every region. The lease ends after `ttl` unless `renew` prolongs it.
    """
    now = clock.now()
    due = _due(kinds, regions, now)
    with database.read() as session:
        # An idle worker asks often; it takes the write lock only when there is something to take.
        if session.execute(due).first() is None:
            return None
    with database.write() as session:
        row = session.execute(due.with_for_update(skip_locked=True)).scalar_one_or_none()
        if row is None:
            return None
        row.lease_holder = holder
        row.lease_token += 1
        row.lease_expires_at = now + ttl
        row.attempts += 1
        row.phase = row.bytes_per_second = row.progress_bytes = row.total_bytes = None
        return LeasedWork(
            id=RowId(row.id),
            workspace_id=row.workspace_id,
            residency=row.residency,
            kind=row.kind,
            subject=row.subject,
            region=row.region,
            attempt=row.attempts,
            holder=holder,
            token=row.lease_token,
            priority=row.priority,
            written_packs=tuple(row.written_packs or ()),
        )


def is_due(database: Database, clock: Clock, *, kinds: Collection[str], regions: Collection[str] | None) -> bool:
    """Whether there is a piece of work that `lease` would give."""
    with database.read() as session:
        return session.execute(_due(kinds, regions, clock.now())).first() is not None


def renew(database: Database, clock: Clock, leased: LeasedWork, ttl: timedelta) -> None:
    """Prolong a lease to `ttl` from now.

    Raises:
        LeaseLost: if another worker took it over, or the work is no longer wanted.
    """
    with database.write() as session:
        _require(leased, _changed(session, _held(leased).values(lease_expires_at=clock.now() + ttl)))


def report_progress(
    database: Database,
    leased: LeasedWork,
    progress_bytes: int,
    total_bytes: int,
    *,
    phase: str | None = None,
    bytes_per_second: int | None = None,
    moved_bytes: int = 0,
) -> None:
    """Say how far the work is, in bytes, what it is at, and how fast that goes; `moved_bytes` are added to the count.

    Raises:
        LeaseLost: so that a worker which was presumed dead stops early.
    """
    values = {
        "progress_bytes": progress_bytes,
        "total_bytes": total_bytes,
        "phase": phase,
        "bytes_per_second": bytes_per_second,
        "moved_bytes": WorkRow.moved_bytes + moved_bytes,
    }
    with database.write() as session:
        _require(leased, _changed(session, _held(leased).values(values)))


def add_moved(session: Session, leased: LeasedWork, moved_bytes: int) -> None:
    """Count bytes that were moved for a piece of work, whoever holds it by now: they were paid for."""
    this = and_(WorkRow.workspace_id == leased.workspace_id, WorkRow.id == leased.id)
    _changed(session, update(WorkRow).where(this).values(moved_bytes=WorkRow.moved_bytes + moved_bytes))


def moved_bytes(session: Session, leased: LeasedWork) -> int:
    """The bytes that all attempts moved together, as far as they were counted."""
    this = and_(WorkRow.workspace_id == leased.workspace_id, WorkRow.id == leased.id)
    return session.scalar(select(WorkRow.moved_bytes).where(this)) or 0


def note_packs(session: Session, leased: LeasedWork, packs: Collection[str]) -> None:
    """Keep the names of packs (hexadecimal) that this work wrote, in place of those noted before.

    Raises:
        LeaseLost: if the token is no longer current.
    """
    _require(leased, _changed(session, _held(leased).values(written_packs=sorted(packs) or None)))


def forget_packs(session: Session, leased: LeasedWork, packs: Collection[str]) -> None:
    """Strike packs (hexadecimal) that turned out damaged off those that this work is said to have written."""
    row = session.get(WorkRow, (leased.workspace_id, leased.id))
    if row is not None and row.written_packs:
        row.written_packs = [each for each in row.written_packs if each not in packs] or None


def reserve(session: Session, leased: LeasedWork, *, source_region: str, usd: str) -> None:
    """Say where a copy reads from and what it may cost; budgets count that until the work is done or postponed.

    Raises:
        LeaseLost: if the token is no longer current.
    """
    _require(leased, _changed(session, _held(leased).values(source_region=source_region, reserved_usd=usd)))


def check_lease(session: Session, leased: LeasedWork) -> None:
    """Lock the row of a lease until the transaction ends, for a step that records something and is not the last.

    Raises:
        LeaseLost: if the token is no longer current.
    """
    held = select(WorkRow.id).where(*_is_held(leased)).with_for_update()
    _require(leased, len(session.execute(held).all()))


def finish(session: Session, leased: LeasedWork) -> None:
    """Remove the work, in the transaction that records its result: both happen or neither.

    Raises:
        LeaseLost: if the token is no longer current; the transaction must not commit.
    """
    _require(leased, _changed(session, delete(WorkRow).where(*_is_held(leased))))


def fail(database: Database, clock: Clock, leased: LeasedWork, error: Exception, retry_in: timedelta | None) -> bool:
    """Give a lease back after a failure; the work is due again after `retry_in` (None: see `retry_delay`).

    Returns False, and changes nothing, where the lease was lost meanwhile.
    """
    # The text of an unforeseen exception may quote data or paths; only our own errors are written to be shown.
    code, detail = (error.code, str(error)) if isinstance(error, FairleadError) else ("internal", type(error).__name__)
    values = {
        "lease_holder": None,
        "lease_expires_at": None,
        "not_before": clock.now() + (retry_delay(leased.attempt) if retry_in is None else retry_in),
        "error_code": code,
        "error_detail": detail[:_DETAIL_MAX_LENGTH],
    }
    with database.write() as session:
        return _changed(session, _held(leased).values(values)) == 1


def postpone(database: Database, leased: LeasedWork, until: datetime, reason: FairleadError) -> bool:
    """Give a lease back because it is too early: the work is due at `until`, and this was no attempt.

    Returns False, and changes nothing, where the lease was lost meanwhile.
    """
    values = {
        "lease_holder": None,
        "lease_expires_at": None,
        "attempts": WorkRow.attempts - 1,
        "not_before": until,
        "reserved_usd": None,
        "error_code": reason.code,
        "error_detail": str(reason)[:_DETAIL_MAX_LENGTH],
    }
    with database.write() as session:
        return _changed(session, _held(leased).values(values)) == 1


def hasten_postponed(session: Session, workspace_id: str, code: str, now: datetime, *, subject_end: str = "") -> None:
    """Let work of a workspace that was put off for one reason be looked at now, because that may have changed.

    With `subject_end`, only work whose subject ends so.
    """
    waiting = update(WorkRow).where(WorkRow.workspace_id == workspace_id, WorkRow.error_code == code)
    waiting = waiting.where(WorkRow.subject.endswith(subject_end, autoescape=True))
    _changed(session, waiting.where(WorkRow.not_before > now).values(not_before=now))


def retry_delay(attempt: int, *, draw: float | None = None) -> timedelta:
    """How long to wait after the n-th failed attempt: doubling, bounded, and spread over its upper half.

    `draw`, from 0 to 1, stands in for chance.
    """
    longest = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(attempt - 1, 30))
    chance = random.random() if draw is None else draw  # noqa: S311  (spreads retries, guards nothing)
    return longest * (0.5 + chance / 2)


def release_leases(database: Database) -> int:
    """Give every lease back; how many there were.

    For a process that owns the database alone, when it starts: what its killed predecessor held is then taken at once
    instead of after the lease's time. Were a holder still alive, its token would be old as soon as the work is taken.
    """
    with database.write() as session:
        held = update(WorkRow).where(WorkRow.lease_holder.is_not(None))
        return _changed(session, held.values(lease_holder=None, lease_expires_at=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkStatus:
    """One piece of work as it stands. A holder is named only while its lease runs; errors are the last attempt's.

    `moved_bytes` counts all attempts; speed and time to go are those of the phase that runs.
    """

    kind: str
    subject: str
    region: str
    residency: str
    state: Literal["RUNNING", "WAITING"]
    holder: str | None
    priority: int
    attempts: int
    phase: str | None
    progress_bytes: int | None
    total_bytes: int | None
    moved_bytes: int
    bytes_per_second: int | None
    eta_seconds: int | None
    source_region: str | None
    not_before: datetime
    error_code: str | None
    error_detail: str | None
    created_at: datetime


def list_work(session: Session, workspace_id: str, now: datetime, page: PageRequest | None = None) -> Page[WorkStatus]:
    """What runs and what waits in a workspace, in the order it was asked for."""
    query = select(WorkRow).where(WorkRow.workspace_id == workspace_id)
    found = (page or PageRequest()).fetch(session, query, [WorkRow.id], listing=("work", workspace_id))
    return found.map(lambda row: _to_status(row, now))


def _to_status(row: WorkRow, now: datetime) -> WorkStatus:
    is_running = row.lease_expires_at is not None and row.lease_expires_at > now
    return WorkStatus(
        kind=row.kind,
        subject=row.subject,
        region=row.region,
        residency=row.residency,
        state="RUNNING" if is_running else "WAITING",
        holder=row.lease_holder if is_running else None,
        priority=row.priority,
        attempts=row.attempts,
        phase=row.phase if is_running else None,
        progress_bytes=row.progress_bytes,
        total_bytes=row.total_bytes,
        moved_bytes=row.moved_bytes,
        bytes_per_second=row.bytes_per_second if is_running else None,
        eta_seconds=_seconds_to_go(row) if is_running else None,
        source_region=row.source_region,
        not_before=row.not_before,
        error_code=row.error_code,
        error_detail=row.error_detail,
        created_at=row.created_at,
    )


def _seconds_to_go(row: WorkRow) -> int | None:
    if row.total_bytes is None or row.progress_bytes is None or not row.bytes_per_second:
        return None
    return math.ceil(max(0, row.total_bytes - row.progress_bytes) / row.bytes_per_second)


def _due(kinds: Collection[str], regions: Collection[str] | None, now: datetime) -> Select[WorkRow]:
    statement = (
        select(WorkRow)
        .where(WorkRow.kind.in_(sorted(kinds)), WorkRow.not_before <= now)
        .where(or_(WorkRow.lease_expires_at.is_(None), WorkRow.lease_expires_at <= now))
        .order_by(WorkRow.priority, WorkRow.created_at, WorkRow.id)
        .limit(1)
    )
    return statement if regions is None else statement.where(WorkRow.region.in_(sorted(regions)))


def _is_held(leased: LeasedWork) -> tuple[ColumnElement[bool], ...]:
    return (
        and_(WorkRow.workspace_id == leased.workspace_id, WorkRow.id == leased.id),
        WorkRow.lease_token == leased.token,
        # A lease that was given back keeps its token until the next one is taken.
        WorkRow.lease_holder.is_not(None),
    )


def _held(leased: LeasedWork) -> Any:
    return update(WorkRow).where(*_is_held(leased))


def _changed(session: Session, statement: Any) -> int:
    # The rows in memory, if any, are not looked at again: every caller goes by the count.
    result = session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)  # noqa: S101  (what a statement that changes rows always gives)
    return result.rowcount


def _require(leased: LeasedWork, changed: int) -> None:
    if changed != 1:
        raise LeaseLost(
            f"The lease of {leased} is lost (token {leased.token}).", hint="Another worker records the result."
        )
