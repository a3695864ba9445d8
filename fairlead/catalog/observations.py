"""Observations: figures as feeds bring them, and tables that know them.

Each figure of the catalog has a key: its kind, its region, and where that is not enough an item (an instance type, a
destination, the gigabytes that a tier begins at). An observation is a figure under its key; `refreshed` makes tables
that answer with it. What no observation speaks of stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from fairlead.catalog.catalog import Tables, bundled_tables
from fairlead.catalog.egress import Tier
from fairlead.catalog.figures import Figure
from fairlead.catalog.prices import Price
from fairlead.catalog.regions import Region
from fairlead.catalog.rows import table_rows
from fairlead.core.ids import RegionId


class FigureKind(StrEnum):
    """What a figure is of."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    CARBON = "carbon"
    CARBON_FREE_SHARE = "carbon-free-share"
    PUE = "pue"
    INTERNET_EGRESS = "internet-egress"
    EGRESS = "egress"
    ROUND_TRIP = "round-trip"
    THROUGHPUT = "throughput"


UNITS = MappingProxyType(
    {
        FigureKind.ON_DEMAND: "USD/h",
        FigureKind.SPOT: "USD/h",
        FigureKind.CARBON: "gCO2e/kWh",
        FigureKind.CARBON_FREE_SHARE: "share",
        FigureKind.PUE: "ratio",
        FigureKind.INTERNET_EGRESS: "USD/GB",
        FigureKind.EGRESS: "USD/GB",
        FigureKind.ROUND_TRIP: "ms",
        FigureKind.THROUGHPUT: "Gbit/s",
    }
)
REFRESHABLE = frozenset(FigureKind) - {FigureKind.THROUGHPUT}
"""What a feed may bring."""


class FigureKey(NamedTuple):
    """Which figure: its kind, its region, and an instance type, a destination, a tier's gigabytes or nothing."""

    kind: FigureKind
    region: RegionId
    item: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A figure as a feed brought it. `date` is ISO 8601: a year, a month or a day."""

    kind: FigureKind
    region: RegionId
    item: str = ""
    value: float
    source: str
    licence: str
    date: str
    is_estimate: bool = False

    @property
    def key(self) -> FigureKey:
        """Which figure it is."""
        return FigureKey(self.kind, self.region, self.item)

    @property
    def figure(self) -> Figure:
        """The figure itself."""
        return Figure(
            value=self.value,
            unit=UNITS[self.kind],
            source=self.source,
            is_estimate=self.is_estimate,
            date=self.date,
            licence=self.licence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """What an instance type is, wherever it is rented."""

    sku: str
    architecture: str
    vcpus: int
    memory_gib: float
    accelerator: str | None
    accelerator_count: int


@cache
def instance_types(cloud: str) -> Mapping[str, InstanceType]:
    """The instance types of a cloud that the catalog follows, by sku: those with a price, and some that lack one."""
    found = {
        row["sku"]: InstanceType(
            sku=row["sku"],
            architecture=row["architecture"],
            vcpus=int(row["vcpus"]),
            memory_gib=float(row["memory_gib"]),
            accelerator=row["accelerator"] or None,
            accelerator_count=int(row["accelerator_count"]),
        )
        for row in table_rows("instance_types")
        if row["cloud"] == cloud
    }
    for region, offers in bundled_tables().prices_by_region.items():
        if region.partition(":")[0] == cloud:
            found |= {offer.sku: _type_of(offer) for offer in offers}
    return MappingProxyType(dict(sorted(found.items())))


def tier_item(from_gb: float) -> str:
    """The item of a tier of the internet tariff: the gigabytes that it begins at."""
    return str(int(from_gb)) if from_gb == int(from_gb) else str(from_gb)


def known_figures(tables: Tables) -> dict[FigureKey, Figure]:
    """Every figure that somebody gives, by its key; what is only worked out (medians, models) is not among them."""
    return dict(_known(tables))


def _known(tables: Tables) -> Iterator[tuple[FigureKey, Figure]]:
    for region in tables.regions_by_id.values():
        yield FigureKey(FigureKind.CARBON, region.id, ""), region.carbon
        yield FigureKey(FigureKind.PUE, region.id, ""), region.pue
        if region.carbon_free_share is not None:
            yield FigureKey(FigureKind.CARBON_FREE_SHARE, region.id, ""), region.carbon_free_share
        for tier in tables.egress_tariffs.tiers(region):
            yield FigureKey(FigureKind.INTERNET_EGRESS, region.id, tier_item(tier.from_gb)), tier.tariff
        for offer in tables.prices_by_region.get(region.id, ()):
            yield FigureKey(FigureKind.ON_DEMAND, region.id, offer.sku), offer.on_demand
            if offer.spot is not None:
                yield FigureKey(FigureKind.SPOT, region.id, offer.sku), offer.spot
    regions = tables.regions_by_id
    for (source, destination), tariff in tables.egress_tariffs.pairs.items():
        if source in regions and destination in regions:
            yield FigureKey(FigureKind.EGRESS, source, destination), tariff
    for source, destination in {**tables.round_trips.measured, **tables.round_trips.stated}:
        if source in regions and destination in regions:
            trip = tables.round_trips.between_regions(regions[source], regions[destination])
            yield FigureKey(FigureKind.ROUND_TRIP, source, destination), trip
    for source, destination in tables.throughputs.measured:
        speed = tables.throughputs.between(regions[source], regions[destination])
        if speed is not None:
            yield FigureKey(FigureKind.THROUGHPUT, source, destination), speed


def refreshed(tables: Tables, observations: Iterable[Observation]) -> Tables:
    """Tables that answer with the observations; of two of one figure the later one in order counts.

    An observation is left out whose region or destination the tables do not know, whose instance type the catalog does
    not follow, or that is a spot price without a price on demand.
    """
    found: dict[FigureKind, dict[FigureKey, Figure]] = {kind: {} for kind in FigureKind}
    for each in observations:
        if each.region in tables.regions_by_id:
            found[each.kind][each.key] = each.figure
    tariffs = tables.egress_tariffs
    internet, further = _refreshed_internet(tables, found[FigureKind.INTERNET_EGRESS])
    trips = {
        (key.region, RegionId(key.item)): figure
        for key, figure in found[FigureKind.ROUND_TRIP].items()
        if key.item in tables.regions_by_id
    }
    return replace(
        tables,
        regions_by_id=_refreshed_regions(tables, found),
        prices_by_region=_refreshed_prices(tables, found[FigureKind.ON_DEMAND], found[FigureKind.SPOT]),
        egress_tariffs=replace(
            tariffs,
            pairs=MappingProxyType(
                {
                    **tariffs.pairs,
                    **{(key.region, RegionId(key.item)): figure for key, figure in found[FigureKind.EGRESS].items()},
                }
            ),
            internet=MappingProxyType(internet),
            further=MappingProxyType(further),
        ),
        round_trips=replace(tables.round_trips, stated=MappingProxyType({**tables.round_trips.stated, **trips})),
    )


def _refreshed_regions(
    tables: Tables, found: Mapping[FigureKind, Mapping[FigureKey, Figure]]
) -> Mapping[RegionId, Region]:
    regions = dict(tables.regions_by_id)
    for key, figure in found[FigureKind.CARBON].items():
        regions[key.region] = replace(regions[key.region], carbon=figure)
    for key, figure in found[FigureKind.CARBON_FREE_SHARE].items():
        regions[key.region] = replace(regions[key.region], carbon_free_share=figure)
    for key, figure in found[FigureKind.PUE].items():
        regions[key.region] = replace(regions[key.region], pue=figure)
    return MappingProxyType(regions)


def _refreshed_internet(
    tables: Tables, found: Mapping[FigureKey, Figure]
) -> tuple[dict[RegionId, Figure], dict[RegionId, tuple[Tier, ...]]]:
    internet, further = dict(tables.egress_tariffs.internet), dict(tables.egress_tariffs.further)
    steps: dict[RegionId, dict[float, Figure]] = {}
    for key, figure in found.items():
        steps.setdefault(key.region, {})[float(key.item or 0)] = figure
    for region, tariffs in steps.items():
        if 0.0 in tariffs:
            # One list of steps is of one source: what another one said of further steps is not mixed in.
            internet[region] = tariffs.pop(0.0)
            further[region] = tuple(Tier(from_gb=start, tariff=tariffs[start]) for start in sorted(tariffs))
    return internet, further


def _refreshed_prices(
    tables: Tables, on_demand: Mapping[FigureKey, Figure], spot: Mapping[FigureKey, Figure]
) -> Mapping[RegionId, tuple[Price, ...]]:
    touched = {key.region for key in (*on_demand, *spot)}
    prices = dict(tables.prices_by_region)
    for region in touched:
        offers = {offer.sku: offer for offer in prices.get(region, ())}
        followed = instance_types(region.partition(":")[0])
        for key, figure in on_demand.items():
            if key.region != region:
                continue
            if key.item in offers:
                offers[key.item] = replace(offers[key.item], on_demand=figure)
            elif key.item in followed:
                offers[key.item] = _offer(region, followed[key.item], figure)
        for key, figure in spot.items():
            if key.region == region and key.item in offers:
                offers[key.item] = replace(offers[key.item], spot=figure)
        prices[region] = tuple(offers[sku] for sku in sorted(offers))
    return MappingProxyType(prices)


def _offer(region: RegionId, kind: InstanceType, on_demand: Figure) -> Price:
    return Price(
        region=region,
        sku=kind.sku,
        architecture=kind.architecture,
        vcpus=kind.vcpus,
        memory_gib=kind.memory_gib,
        accelerator=kind.accelerator,
        accelerator_count=kind.accelerator_count,
        on_demand=on_demand,
        spot=None,
    )


def _type_of(offer: Price) -> InstanceType:
    return InstanceType(
        sku=offer.sku,
        architecture=offer.architecture,
        vcpus=offer.vcpus,
        memory_gib=offer.memory_gib,
        accelerator=offer.accelerator,
        accelerator_count=offer.accelerator_count,
    )
