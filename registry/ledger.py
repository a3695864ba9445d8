"""The ledger: what each move of bytes and each deployment cost, in dollars and grams of CO2.

A row names its *cause*, which is unique, so work that is done twice is paid for once. Amounts are decimals from the
tariff to the sum: no sum is ever off by a rounding. Every row says where its price comes from and how its grams were
worked out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Literal

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.catalog.figures import BYTES_PER_GB
from fairlead.core.db import Database
from fairlead.core.ids import new_row_id
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_text
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import LedgerRow

LedgerKind = Literal["upload", "replicate", "repair", "snapshot", "deploy", "federate"]

_EXPONENT = Decimal("1e-12")
_DIGITS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What moving some bytes costs: USD and gCO2e, with the source of the price and the method of the grams."""

    usd: Decimal
    gco2: Decimal
    price_source: str
    gco2_method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One row of the ledger."""

    id: str
    residency: str
    cause: str
    kind: str
    subject: str
    source_region: str | None
    region: str
    planned_bytes: int
    moved_bytes: int
    planned_usd: Decimal
    actual_usd: Decimal
    gco2: Decimal
    gco2_method: str
    price_source: str
    labels: Mapping[str, str]
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSum:
    """The exact sums of the rows that share a label, a region or a kind; `key` is "" where they have no such label."""

    key: str
    entries: int
    planned_bytes: int
    moved_bytes: int
    planned_usd: Decimal
    actual_usd: Decimal
    gco2: Decimal


def transfer_cost(catalog: Catalog, *, source_region: str | None, region: str, size_bytes: int) -> Cost:
    """What moving bytes from one region to another costs, exactly; None as source means from outside every cloud.

    Raises:
        UnknownRegion: if the catalog has not one of the regions.
    """
    if source_region is None:
        catalog.region(region)
        return Cost(
            usd=Decimal(0),
            gco2=Decimal(0),
            price_source="no cloud charges for bytes that come in",
            gco2_method="the sender's network is not known and not counted",
        )
    tariff = catalog.egress(source_region, region)
    carbon = catalog.transfer_carbon(source_region, region, size_bytes)
    with localcontext(prec=_DIGITS):
        usd = Decimal(size_bytes) / BYTES_PER_GB * Decimal(str(tariff.value))
    estimate = " (estimate)" if tariff.is_estimate else ""
    return Cost(
        usd=usd,
        gco2=Decimal(str(carbon.value)),
        price_source=f"{tariff.source}{estimate}",
        gco2_method=carbon.source,
    )


def record(
    session: Session,
    *,
    workspace_id: str,
    residency: str,
    cause: str,
    kind: LedgerKind,
    subject: str,
    source_region: str | None,
    region: str,
    planned_bytes: int,
    moved_bytes: int,
    planned: Cost,
    actual: Cost,
    labels: Mapping[str, str],
    now: datetime,
) -> bool:
    """Add a row to the transaction that is open, unless its cause has one already; whether it was added."""
    values = {
        "workspace_id": workspace_id,
        "id": new_row_id(),
        "residency": residency,
        "cause": cause,
        "kind": kind,
        "subject": subject,
        "source_region": source_region,
        "region": region,
        "planned_bytes": planned_bytes,
        "moved_bytes": moved_bytes,
        "planned_usd": decimal_text(planned.usd),
        "actual_usd": decimal_text(actual.usd),
        "gco2": decimal_text(actual.gco2),
        "gco2_method": actual.gco2_method,
        "price_source": actual.price_source,
        "labels": dict(labels),
        "recorded_at": now,
    }
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    insert = dialect.insert(LedgerRow).values(values).on_conflict_do_nothing(index_elements=["workspace_id", "cause"])
    return session.execute(insert.returning(LedgerRow.id)).first() is not None


def decimal_text(value: Decimal) -> str:
    """An amount as plain decimal text, to 12 places, without zeros at its end."""
    with localcontext(prec=_DIGITS):
        text = format(value.quantize(_EXPONENT, rounding=ROUND_HALF_EVEN), "f")
    return text.rstrip("0").rstrip(".")


class Ledger:
    """Reads a workspace's ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self,
        caller: Caller,
        page: PageRequest,
        *,
        subject: str | None = None,
        kind: str | None = None,
        newest_first: bool = False,
    ) -> Page[LedgerEntry]:
        """Rows, oldest first. `subject` and `kind` match exactly."""
        query = select(LedgerRow).where(LedgerRow.workspace_id == caller.workspace_id)
        if subject is not None:
            query = query.where(LedgerRow.subject == parse_text(subject, what="subject", max_length=512))
        if kind is not None:
            query = query.where(LedgerRow.kind == parse_text(kind, what="kind", max_length=32))
        listing = ("ledger", caller.workspace_id, subject, kind, newest_first)
        with self._database.read() as session:
            rows = page.fetch(session, query, [LedgerRow.id], listing=listing, descending=newest_first)
        return rows.map(_to_entry)

    def summarize(self, caller: Caller, *, by: str) -> list[LedgerSum]:
        """Exact sums by `region`, by `kind`, or by the value of any label such as `team`, in order of that key."""
        sums: dict[str, LedgerSum] = {}
        query = select(LedgerRow).where(LedgerRow.workspace_id == caller.workspace_id)
        with self._database.read() as session, localcontext(prec=_DIGITS):
            for row in session.scalars(query.execution_options(yield_per=1000)):
                key = row.region if by == "region" else row.kind if by == "kind" else str(row.labels.get(by, ""))
                sums[key] = _add(sums.get(key), key, row)
        return [sums[key] for key in sorted(sums)]


def _add(before: LedgerSum | None, key: str, row: LedgerRow) -> LedgerSum:
    zero = Decimal(0)
    return LedgerSum(
        key=key,
        entries=1 + (before.entries if before else 0),
        planned_bytes=row.planned_bytes + (before.planned_bytes if before else 0),
        moved_bytes=row.moved_bytes + (before.moved_bytes if before else 0),
        planned_usd=Decimal(row.planned_usd) + (before.planned_usd if before else zero),
        actual_usd=Decimal(row.actual_usd) + (before.actual_usd if before else zero),
        gco2=Decimal(row.gco2) + (before.gco2 if before else zero),
    )


def _to_entry(row: LedgerRow) -> LedgerEntry:
    return LedgerEntry(
        id=row.id,
        residency=row.residency,
        cause=row.cause,
        kind=row.kind,
        subject=row.subject,
        source_region=row.source_region,
        region=row.region,
        planned_bytes=row.planned_bytes,
        moved_bytes=row.moved_bytes,
        planned_usd=Decimal(row.planned_usd),
        actual_usd=Decimal(row.actual_usd),
        gco2=Decimal(row.gco2),
        gco2_method=row.gco2_method,
        price_source=row.price_source,
        labels=row.labels,
        recorded_at=row.recorded_at,
    )
