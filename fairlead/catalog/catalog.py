"""The catalog itself: what the tables say, asked one question at a time.

A gap stays a gap: an unknown region is an error, a figure that no source gives is None, and nothing is ever zero for
want of knowledge. A figure that was worked out and not found is flagged as an estimate.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from fairlead.catalog import power, reading
from fairlead.catalog.egress import EgressTariffs, Tier
from fairlead.catalog.figures import BYTES_PER_GB, Figure
from fairlead.catalog.latency import RoundTrips
from fairlead.catalog.prices import Price, StoreOperation
from fairlead.catalog.regions import Area, Region, distance_km
from fairlead.catalog.throughput import Throughput
from fairlead.core.errors import UnknownArea, UnknownRegion
from fairlead.core.ids import RegionId

if TYPE_CHECKING:
    from fairlead.catalog.private import PrivateRegion


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What a catalog knows at one moment: regions, areas, prices, tariffs, distances and carbon. Never changed.

    `private_regions` are those regions that somebody described, with their documents.
    """

    regions_by_id: Mapping[RegionId, Region]
    areas_by_id: Mapping[str, Area]
    nearest_regions: Mapping[str, Region]
    prices_by_region: Mapping[RegionId, tuple[Price, ...]]
    egress_tariffs: EgressTariffs
    round_trips: RoundTrips
    throughputs: Throughput
    request_prices: Mapping[tuple[str, StoreOperation], Figure]
    private_regions: Mapping[RegionId, PrivateRegion] = field(default_factory=dict[RegionId, "PrivateRegion"])


class Catalog:
    """Regions, areas, prices, tariffs, distances and carbon, as they are known now.

    A catalog may come to know more while it is used (`adopt`): whoever needs one answer to many questions asks a
    `snapshot`, or what one workspace sees (`within`).
    """

    __slots__ = ("_tables",)

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    @property
    def tables(self) -> Tables:
        """What is known at this moment."""
        return self._tables

    def adopt(self, tables: Tables) -> None:
        """Know this from now on, in place of what was known. Readers see the one or the other, never a mixture."""
        self._tables = tables

    def snapshot(self) -> Catalog:
        """A catalog that stays as this one is now."""
        return Catalog(self._tables)

    def within(self, workspace_id: str) -> Catalog:
        """A catalog as one workspace sees it now: without the private regions of others. It stays as it is."""
        tables = self._tables
        hidden = {region.id for region in tables.regions_by_id.values() if region.owner not in {None, workspace_id}}
        if not hidden:
            return Catalog(tables)
        return Catalog(
            replace(
                tables,
                regions_by_id=_without(tables.regions_by_id, hidden),
                prices_by_region=_without(tables.prices_by_region, hidden),
            )
        )

    def regions(self) -> tuple[Region, ...]:
        """Every region, by id."""
        return tuple(self._tables.regions_by_id.values())

    def region(self, region: str) -> Region:
        """One region by its id, such as `aws:us-east-1`.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        found = self._tables.regions_by_id.get(RegionId(region))
        if found is None:
            hint = _nearest_spellings(region, self._tables.regions_by_id, "Write cloud:region, such as aws:us-east-1.")
            raise UnknownRegion(f"The catalog has no region {region[:80]!r}.", hint=hint, region=region[:80])
        return found

    def areas(self) -> tuple[Area, ...]:
        """Every demand area, by id."""
        return tuple(self._tables.areas_by_id.values())

    def area(self, area: str) -> Area:
        """One demand area by its id, such as `new-york`.

        Raises:
            UnknownArea: with the nearest spellings.
        """
        found = self._tables.areas_by_id.get(area)
        if found is None:
            hint = _nearest_spellings(area, self._tables.areas_by_id, f"Known: {', '.join(self._tables.areas_by_id)}.")
            raise UnknownArea(f"The catalog has no demand area {area[:80]!r}.", hint=hint, area=area[:80])
        return found

    def prices(self, region: str, sku: str | None = None) -> tuple[Price, ...]:
        """The instance types of a region that someone gives a price for, by sku; empty where nobody does.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        offers = self._tables.prices_by_region.get(self.region(region).id, ())
        return tuple(offer for offer in offers if sku is None or offer.sku == sku)

    def accelerators(self) -> tuple[str, ...]:
        """The accelerator boards that some priced instance has, by name."""
        offers = (offer for each in self._tables.prices_by_region.values() for offer in each)
        return tuple(sorted({offer.accelerator for offer in offers if offer.accelerator is not None}))

    def egress(self, source: str, destination: str) -> Figure:
        """The tariff for a byte that goes from one region to another, in USD/GB, at the first (dearest) tier.

        Where no source names the pair: the median of the sending region's known pairs of the same kind (same cloud and
        continent, same cloud and another continent, another cloud), else its internet tariff; flagged as estimates.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        return self._tables.egress_tariffs.between(self.region(source), self.region(destination))

    def internet_egress(self, region: str) -> Figure:
        """The tariff for a byte that a region sends to users, in USD/GB, at the first (dearest) tier.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        return self._tables.egress_tariffs.internet[self.region(region).id]

    def internet_egress_tiers(self, region: str) -> tuple[Tier, ...]:
        """The steps of a region's internet tariff in USD/GB, by the gigabytes sent before in the month.

        One step alone says that no source states the further ones.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        return self._tables.egress_tariffs.tiers(self.region(region))

    def round_trip(self, source: str, destination: str) -> Figure:
        """The round trip between two regions in ms: measured, else modelled and flagged.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        return self._tables.round_trips.between_regions(self.region(source), self.region(destination))

    def area_round_trip(self, area: str, region: str) -> Figure:
        """The round trip from an area's users to a region in ms, always an estimate.

        Raises:
            UnknownArea, UnknownRegion: with the nearest spellings.
        """
        here = self.area(area)
        return self._tables.round_trips.from_area(here, self.region(region), self._tables.nearest_regions[here.id])

    def carbon(self, region: str) -> Figure:
        """The grid's yearly mean in gCO2e/kWh.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        return self.region(region).carbon

    def throughput(self, source: str, destination: str) -> Figure | None:
        """Measured throughput of 64 parallel connections in Gbit/s, or None where nobody measured the pair.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        return self._tables.throughputs.between(self.region(source), self.region(destination))

    def expected_throughput(self, source: str, destination: str) -> Figure:
        """The throughput of 64 parallel connections in Gbit/s: measured, else a stand-in, flagged as an estimate.

        Within one region: the fastest that the region was measured at. Where nobody measured the pair: the median of
        what the sending region reached towards that cloud, else the median between the two clouds.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        return self._tables.throughputs.expected(self.region(source), self.region(destination))

    def request_price(self, region: str, operation: StoreOperation) -> Figure:
        """What 1000 requests to an object store of a region cost, in USD; always an estimate.

        The price is the cloud's list price in one region, which stands for all of them; a private region has its own.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        found, prices = self.region(region), self._tables.request_prices
        own = prices.get((found.id, operation))
        return prices[found.cloud, operation] if own is None else own

    def transfer_cost(self, source: str, destination: str, size_bytes: int) -> Figure:
        """What it costs to send bytes from one region to another, in USD.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        tariff = self.egress(source, destination)
        return Figure(
            value=size_bytes / BYTES_PER_GB * tariff.value,
            unit="USD",
            source=tariff.source,
            is_estimate=tariff.is_estimate,
            date=tariff.date,
            licence=tariff.licence,
        )

    def transfer_carbon(self, source: str, destination: str, size_bytes: int) -> Figure:
        """What sending bytes from one region to another emits, in gCO2e; nothing is counted within one region.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        if self.region(source).id == self.region(destination).id:
            return Figure(value=0.0, unit="gCO2e", source="no transfer is counted within one region", is_estimate=True)
        return self.internet_transfer_carbon(source, size_bytes)

    def internet_transfer_carbon(self, region: str, size_bytes: int) -> Figure:
        """What sending bytes out of a region emits, in gCO2e: GB x 0.001 kWh/GB x PUE x the sending region's grid.

        Raises:
            UnknownRegion: with the nearest spellings.
        """
        sender = self.region(region)
        kwh = size_bytes / BYTES_PER_GB * power.NETWORK_KWH_PER_GB.value * sender.pue.value
        return Figure(
            value=kwh * sender.carbon.value,
            unit="gCO2e",
            source=f"{power.NETWORK_KWH_PER_GB.source}; grid: {sender.carbon.source}",
            is_estimate=True,
        )


@cache
def load_catalog() -> Catalog:
    """The process's catalog: what this package ships (some 50 ms to read, once), and what a service made it adopt."""
    return Catalog(bundled_tables())


@cache
def bundled_tables() -> Tables:
    """What this package ships."""
    regions, areas = reading.read_regions(), reading.read_areas()
    return Tables(
        regions_by_id=regions,
        areas_by_id=areas,
        nearest_regions=MappingProxyType({area.id: _nearest(area, regions.values()) for area in areas.values()}),
        prices_by_region=reading.read_prices(),
        egress_tariffs=reading.read_egress(),
        round_trips=reading.read_round_trips(),
        throughputs=reading.read_throughput(),
        request_prices=reading.read_request_prices(),
    )


Key = TypeVar("Key")
Value = TypeVar("Value")


def _without(table: Mapping[Key, Value], hidden: Collection[object]) -> Mapping[Key, Value]:
    return MappingProxyType({key: value for key, value in table.items() if key not in hidden})


def _nearest(area: Area, regions: Iterable[Region]) -> Region:
    return min(regions, key=lambda region: (distance_km(area.place, region.place), region.id))


def _nearest_spellings(text: str, known: Iterable[str], otherwise: str) -> str:
    names = list(known)
    near = difflib.get_close_matches(text.lower()[:80], names, n=3, cutoff=0.5)
    near += [name for name in names if text and name.endswith(":" + text.lower()) and name not in near]
    if near:
        return f"Did you mean {' or '.join(near[:4])}?"
    return otherwise
