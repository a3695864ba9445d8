"""Budgets: what copies between regions may cost in a day or a month, and how fast they may go.

A budget covers the copies from one region (or any) to one region (or any). Money is counted from the ledger, and what
running copies may yet cost is counted as spent, so that many that begin together do not exceed a limit together. A copy
that a budget does not cover waits; one that a promotion to production waits for does not. Speed is shared by all copies
of one worker process.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Literal, cast

from sqlalchemy import BigInteger, Float, func, or_, select
from sqlalchemy import cast as cast_sql
from sqlalchemy.orm import Session

from fairlead.core.errors import BudgetExhausted, BudgetNotFound, InvalidInput
from fairlead.core.ids import parse_name
from fairlead.registry import audit, work
from fairlead.registry.ledger import decimal_text
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.replicas import REPLICATE
from fairlead.registry.revisions import require_revision
from fairlead.registry.tables import LedgerRow, WorkRow
from fairlead.registry.tables_bytes import BudgetRow
from fairlead.sync.store.throttle import RateLimit

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.errors import JsonValue
    from fairlead.core.ports import Clock
    from fairlead.registry.identity import Caller
    from fairlead.registry.work import LeasedWork

Period = Literal["day", "month"]
PERIODS: tuple[Period, ...] = ("day", "month")
LOOK_AGAIN = timedelta(minutes=1)
"""When a copy looks again that only the reservations of others keep waiting."""

_LIMIT_MAX = Decimal(10) ** 9
_RATE_MAX = 10**15
_PICO = 12
_TRANSFERS = ("replicate", "repair")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A budget, and how much of it is left. Regions are None for any, limits None for none.

    `spent_usd` is what the ledger says of the present period, which ends at `resets_at`; `reserved_usd` is what copies
    that are under way may yet cost.
    """

    name: str
    source_region: str | None
    region: str | None
    period: Period
    limit_usd: Decimal | None
    bytes_per_second: int | None
    spent_usd: Decimal
    reserved_usd: Decimal
    resets_at: datetime
    revision: int
    updated_by: str
    updated_at: datetime


class Budgets:
    """Sets, shows and deletes budgets."""

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog

    def list(self, caller: Caller, page: PageRequest) -> Page[Budget]:
        """Budgets by name."""
        query = select(BudgetRow).where(BudgetRow.workspace_id == caller.workspace_id)
        now = self._clock.now()
        with self._database.read() as session:
            rows = page.fetch(session, query, [BudgetRow.name], listing=("budgets", caller.workspace_id))
            return rows.map(lambda row: _to_budget(session, row, now))

    def get(self, caller: Caller, name: str) -> Budget:
        """One budget.

        Raises:
            BudgetNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            return _to_budget(session, _find(session, caller.workspace_id, name), self._clock.now())

    def put(
        self,
        caller: Caller,
        name: str,
        *,
        source_region: str | None = None,
        region: str | None = None,
        period: str = "month",
        limit_usd: str | None = None,
        bytes_per_second: int | None = None,
        expected_revision: int | None = None,
    ) -> Budget:
        """Make a budget, or replace the one of that name. Copies that wait for money look again at once.

        Raises:
            InvalidInput: if it limits nothing, or a limit or period makes no sense.
            UnknownRegion: if the catalog has not one of the regions.
            StaleRevision: if it is not at the expected revision (0: none of that name).
        """
        budget = parse_name(name, what="budget")
        if period not in PERIODS:
            raise InvalidInput(f"{period[:40]!r} is no period.", hint="Use day or month.")
        limit = None if limit_usd is None else parse_limit(limit_usd)
        if bytes_per_second is not None and not 1 <= bytes_per_second <= _RATE_MAX:
            raise InvalidInput(f"A rate of {bytes_per_second} bytes a second is not possible.", hint="Give at least 1.")
        if limit is None and bytes_per_second is None:
            raise InvalidInput(f"The budget {budget!r} limits nothing.", hint="Give --limit-usd, --rate or both.")
        for each in (source_region, region):
            if each is not None:
                self._catalog.region(each)
        now = self._clock.now()
        with self._database.write() as session:
            row = session.get(BudgetRow, (caller.workspace_id, budget), with_for_update=True)
            _check_revision(budget, row, expected_revision)
            before = None if row is None else _facts(row)
            if row is None:
                row = BudgetRow(workspace_id=caller.workspace_id, name=budget, revision=0)
                session.add(row)
            row.source_region, row.region, row.period = source_region, region, period
            row.limit_usd = None if limit is None else decimal_text(limit)
            row.bytes_per_second = bytes_per_second
            row.revision, row.updated_by, row.updated_at = row.revision + 1, caller.principal, now
            session.flush()
            facts: dict[str, JsonValue] = {"before": before, "after": _facts(row)}
            audit.record(session, caller, self._clock, action="budget.set", subject=budget, facts=facts)
            work.hasten_postponed(session, caller.workspace_id, BudgetExhausted.code, now)
            return _to_budget(session, row, now)

    def delete(self, caller: Caller, name: str, *, expected_revision: int | None = None) -> None:
        """Delete a budget. Copies that wait for money look again at once.

        Raises:
            BudgetNotFound: if there is none of that name.
            StaleRevision: if it is not at the expected revision.
        """
        with self._database.write() as session:
            row = _find(session, caller.workspace_id, name, lock=True)
            _check_revision(row.name, row, expected_revision)
            facts: dict[str, JsonValue] = {"before": _facts(row)}
            session.delete(row)
            audit.record(session, caller, self._clock, action="budget.delete", subject=row.name, facts=facts)
            work.hasten_postponed(session, caller.workspace_id, BudgetExhausted.code, self._clock.now())


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """Why a copy has to wait, and until when."""

    error: BudgetExhausted
    until: datetime


def reserve(
    session: Session, leased: LeasedWork, *, source_region: str, region: str, usd: Decimal, now: datetime
) -> Shortfall | None:
    """Reserve what a copy may cost under every budget that covers it; or, changing nothing, say which one is short.

    Work that a promotion to production waits for is never short. The budgets' rows stay locked until the transaction
    ends, so that of two copies that ask at once the second counts the first.

    Raises:
        LeaseLost: if the lease's token is no longer current.
    """
    covering = select(BudgetRow).where(
        BudgetRow.workspace_id == leased.workspace_id,
        BudgetRow.limit_usd.is_not(None),
        or_(BudgetRow.source_region.is_(None), BudgetRow.source_region == source_region),
        or_(BudgetRow.region.is_(None), BudgetRow.region == region),
    )
    for row in session.scalars(covering.order_by(BudgetRow.name).with_for_update()).all():
        shortfall = _shortfall(session, row, leased, usd, now)
        if shortfall is not None and leased.priority > work.PROMOTED:
            return shortfall
    work.reserve(session, leased, source_region=source_region, usd=decimal_text(usd))
    return None


class Bandwidth:
    """The rates of budgets, each shared by every copy of this process that it covers. Safe to use from threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._limits: dict[tuple[str, str], RateLimit] = {}

    def limits(self, session: Session, workspace_id: str, *, source_region: str, region: str) -> tuple[RateLimit, ...]:
        """The limits that cover a copy. A rate that was changed holds for copies that begin afterwards."""
        rows = session.scalars(
            select(BudgetRow).where(
                BudgetRow.workspace_id == workspace_id,
                BudgetRow.bytes_per_second.is_not(None),
                or_(BudgetRow.source_region.is_(None), BudgetRow.source_region == source_region),
                or_(BudgetRow.region.is_(None), BudgetRow.region == region),
            )
        ).all()
        with self._guard:
            return tuple(self._limit(row) for row in rows)

    def _limit(self, row: BudgetRow) -> RateLimit:
        rate = float(row.bytes_per_second or 0)
        present = self._limits.get((row.workspace_id, row.name))
        if present is None or present.bytes_per_second != rate:
            present = self._limits[row.workspace_id, row.name] = RateLimit(rate)
        return present


def parse_limit(text: str) -> Decimal:
    """An amount of dollars: zero or more.

    Raises:
        InvalidInput: if it is not one.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or not 0 <= amount <= _LIMIT_MAX:
        raise InvalidInput(f"{text[:40]!r} is no amount of dollars.", hint="Write it as 50 or 12.5.")
    return amount


def period_of(period: str, now: datetime) -> tuple[datetime, datetime]:
    """The day or month (UTC) that a time lies in: its beginning, and that of the next."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day, day + timedelta(days=1)
    begin = day.replace(day=1)
    return begin, (begin + timedelta(days=32)).replace(day=1)


def _shortfall(session: Session, row: BudgetRow, leased: LeasedWork, usd: Decimal, now: datetime) -> Shortfall | None:
    limit = Decimal(row.limit_usd or "0")
    _, resets_at = period_of(row.period, now)
    spent, reserved = _spent(session, row, now), _reserved(session, row, but=leased.id)
    if spent + reserved + usd <= limit:
        return None
    hint = f"Raise it or let it go first: fairlead budget set {row.name} --limit-usd ..."
    is_beyond = spent + usd > limit
    until = resets_at if is_beyond else now + LOOK_AGAIN
    left = limit - spent if is_beyond else limit - spent - reserved
    return Shortfall(
        error=BudgetExhausted(
            f"The copy may cost ${usd:.6f}, and the budget {row.name!r} has ${max(left, Decimal(0)):.6f} left of "
            f"${decimal_text(limit)} a {row.period}.",
            hint=hint,
            budget=row.name,
        ),
        until=until,
    )


def _spent(session: Session, row: BudgetRow, now: datetime) -> Decimal:
    begin, end = period_of(row.period, now)
    # Whole picodollars: texts have to be added as numbers, and floats would not add up.
    amount = cast_sql(func.round(cast_sql(LedgerRow.actual_usd, Float) * 10.0**_PICO), BigInteger)
    spent = select(func.sum(amount)).where(
        LedgerRow.workspace_id == row.workspace_id,
        LedgerRow.kind.in_(_TRANSFERS),
        LedgerRow.recorded_at >= begin,
        LedgerRow.recorded_at < end,
        *_between(row, LedgerRow.source_region, LedgerRow.region),
    )
    return Decimal(session.scalar(spent) or 0).scaleb(-_PICO)


def _reserved(session: Session, row: BudgetRow, *, but: str | None = None) -> Decimal:
    amounts = select(WorkRow.reserved_usd).where(
        WorkRow.workspace_id == row.workspace_id,
        WorkRow.kind == REPLICATE,
        WorkRow.reserved_usd.is_not(None),
        *_between(row, WorkRow.source_region, WorkRow.region),
    )
    if but is not None:
        amounts = amounts.where(WorkRow.id != but)
    return sum((Decimal(amount or "0") for amount in session.scalars(amounts)), Decimal(0))


def _between(row: BudgetRow, source: object, region: object) -> list[ColumnElement[bool]]:
    pairs = ((row.source_region, source), (row.region, region))
    return [cast("ColumnElement[bool]", column == wanted) for wanted, column in pairs if wanted is not None]


def _find(session: Session, workspace_id: str, name: str, *, lock: bool = False) -> BudgetRow:
    row = session.get(BudgetRow, (workspace_id, parse_name(name, what="budget")), with_for_update=lock or None)
    if row is None:
        raise BudgetNotFound(f"There is no budget {name[:80]!r}.", hint="See: fairlead budget list", budget=name[:80])
    return row


def _check_revision(name: str, row: BudgetRow | None, expected: int | None) -> None:
    require_revision(
        f"The budget {name!r}",
        0 if row is None else row.revision,
        expected,
        hint="Look at it and try again: fairlead budget list",
    )


def _facts(row: BudgetRow) -> dict[str, JsonValue]:
    return {
        "source_region": row.source_region,
        "region": row.region,
        "period": row.period,
        "limit_usd": row.limit_usd,
        "bytes_per_second": row.bytes_per_second,
    }


def _to_budget(session: Session, row: BudgetRow, now: datetime) -> Budget:
    return Budget(
        name=row.name,
        source_region=row.source_region,
        region=row.region,
        period=cast("Period", row.period),
        limit_usd=None if row.limit_usd is None else Decimal(row.limit_usd),
        bytes_per_second=row.bytes_per_second,
        spent_usd=_spent(session, row, now),
        reserved_usd=_reserved(session, row),
        resets_at=period_of(row.period, now)[1],
        revision=row.revision,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )
