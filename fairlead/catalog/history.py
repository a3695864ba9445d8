"""What the shipped tables know of the past: Google's prices on each day since 2022."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from types import MappingProxyType

from fairlead.catalog.catalog import Tables, bundled_tables
from fairlead.catalog.observations import FigureKind, Observation, refreshed
from fairlead.catalog.rows import table_rows
from fairlead.core.ids import RegionId

_LAST = date(2026, 7, 30)


def bundled_on(day: date) -> Tables:
    """The shipped tables with the prices of a day, for those instance types whose past prices are known.

    Such a type is left out where it had no price yet. Whatever else the tables say they say of every day.
    """
    tables = bundled_tables()
    if day >= _LAST:
        return tables
    rows = list(table_rows("price_changes"))
    followed = {(row["region"], row["sku"]) for row in rows}
    prices = {
        region: tuple(offer for offer in offers if (region, offer.sku) not in followed)
        for region, offers in tables.prices_by_region.items()
    }
    before = replace(tables, prices_by_region=MappingProxyType(prices))
    return refreshed(before, _prices(row for row in rows if row["date"] <= day.isoformat()))


def _prices(rows: Iterable[dict[str, str]]) -> Iterable[Observation]:
    last = {(row["region"], row["sku"]): row for row in rows}  # by date within each: the last one stays
    for (region, sku), row in last.items():
        for kind, cell in (
            (FigureKind.ON_DEMAND, row["on_demand_usd_per_hour"]),
            (FigureKind.SPOT, row["spot_usd_per_hour"]),
        ):
            if cell and float(cell) > 0:  # a zero in the source is a price that it lost
                yield Observation(
                    kind=kind,
                    region=RegionId(region),
                    item=sku,
                    value=float(cell),
                    source=f"cyclenerd {row['date']}",
                    licence="Apache-2.0",
                    date=row["date"],
                )
