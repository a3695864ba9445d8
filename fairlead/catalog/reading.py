"""Read the shipped tables into the catalog's records. An empty cell is a gap, never a zero."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import cast

from fairlead.catalog.figures import Figure
from fairlead.catalog.latency import RoundTripModel, RoundTrips
from fairlead.catalog.prices import Price, StoreOperation
from fairlead.catalog.regions import Area, Place, Region
from fairlead.catalog.throughput import Throughput
from fairlead.core.ids import RegionId

THROUGHPUT_SOURCE = "skyplane iperf3 profiles 2022-01 and 2022-11, 64 connections (Apache-2.0)"
_TARIFF = "USD/GB"
_CARBON_BASIS = {"region": "", "nearest": ", the nearest in the country", "country": ", mean of the country"}

Pair = tuple[RegionId, RegionId]


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressTariffs:
    """Tariffs in USD/GB: named pairs, each region's internet tariff, and each region's medians for the rest."""

    pairs: Mapping[Pair, Figure]
    internet: Mapping[RegionId, Figure]
    same_continent: Mapping[RegionId, Figure]
    other_continent: Mapping[RegionId, Figure]
    other_cloud: Mapping[RegionId, Figure]

    def between(self, source: Region, destination: Region) -> Figure:
        """The tariff of a pair, or the documented stand-in, flagged as an estimate."""
        if source.id == destination.id:
            return Figure(
                value=0.0, unit=_TARIFF, source="no egress is charged within one region (assumed)", is_estimate=True
            )
        named = self.pairs.get((source.id, destination.id))
        if named is not None:
            return named
        median = self._medians(source, destination).get(source.id)
        if median is not None:
            return median
        internet = self.internet[source.id]
        return Figure(
            value=internet.value,
            unit=_TARIFF,
            source=f"internet tariff in place of an unknown pair; {internet.source}",
            is_estimate=True,
        )

    def _medians(self, source: Region, destination: Region) -> Mapping[RegionId, Figure]:
        if source.cloud != destination.cloud:
            return self.other_cloud
        is_near = source.place.continent == destination.place.continent
        return self.same_continent if is_near else self.other_continent


def read_regions() -> Mapping[RegionId, Region]:
    """Every region by id, in id order."""
    found: dict[RegionId, Region] = {}
    for row in _rows("regions"):
        region = RegionId(row["region"])
        cloud, _, name = region.partition(":")
        carbon = Figure(
            value=float(row["carbon_g_per_kwh"]),
            unit="gCO2e/kWh",
            source=row["carbon_source"] + _CARBON_BASIS[row["carbon_basis"]],
            is_estimate=row["carbon_basis"] != "region",
        )
        pue = Figure(
            value=float(row["pue"]),
            unit="ratio",
            source=row["pue_source"],
            is_estimate=row["pue_basis"] != "region",
        )
        found[region] = Region(
            id=region,
            cloud=cloud,
            name=name,
            place=_place(row),
            jurisdiction=row["jurisdiction"],
            carbon=carbon,
            pue=pue,
        )
    return MappingProxyType(found)


def read_areas() -> Mapping[str, Area]:
    """Every demand area by id, in id order."""
    return MappingProxyType({row["area"]: Area(id=row["area"], place=_place(row)) for row in _rows("areas")})


def read_prices() -> Mapping[RegionId, tuple[Price, ...]]:
    """The priced instance types of each region, by sku."""
    found: dict[RegionId, list[Price]] = {}
    for row in _rows("prices"):
        region = RegionId(row["region"])
        on_demand = _figure(row["on_demand_usd_per_hour"], "USD/h", row["on_demand_source"])
        if on_demand is None:
            continue
        price = Price(
            region=region,
            sku=row["sku"],
            architecture=row["architecture"],
            vcpus=int(row["vcpus"]),
            memory_gib=float(row["memory_gib"]),
            accelerator=row["accelerator"] or None,
            accelerator_count=int(row["accelerator_count"]),
            on_demand=on_demand,
            spot=_figure(row["spot_usd_per_hour"], "USD/h", row["spot_source"]),
        )
        found.setdefault(region, []).append(price)
    return MappingProxyType({region: tuple(offers) for region, offers in found.items()})


def read_egress() -> EgressTariffs:
    """All egress tariffs."""
    pairs: dict[Pair, Figure] = {}
    for row in _rows("egress_pairs"):
        pairs[_pair(row)] = Figure(value=float(row["usd_per_gb"]), unit=_TARIFF, source=row["source"])
    internet: dict[RegionId, Figure] = {}
    same_continent: dict[RegionId, Figure] = {}
    other_continent: dict[RegionId, Figure] = {}
    other_cloud: dict[RegionId, Figure] = {}
    for row in _rows("egress_regions"):
        region = RegionId(row["region"])
        internet[region] = Figure(
            value=float(row["internet_usd_per_gb"]),
            unit=_TARIFF,
            source=row["internet_source"],
            is_estimate=row["internet_basis"] != "internet",
        )
        for column, medians in (
            ("same_continent_median_usd_per_gb", same_continent),
            ("other_continent_median_usd_per_gb", other_continent),
            ("other_cloud_median_usd_per_gb", other_cloud),
        ):
            if row[column]:
                source = f"median of the region's known pairs, {' '.join(column.split('_')[:2])}"
                medians[region] = Figure(value=float(row[column]), unit=_TARIFF, source=source, is_estimate=True)
    return EgressTariffs(
        pairs=MappingProxyType(pairs),
        internet=MappingProxyType(internet),
        same_continent=MappingProxyType(same_continent),
        other_continent=MappingProxyType(other_continent),
        other_cloud=MappingProxyType(other_cloud),
    )


def read_round_trips() -> RoundTrips:
    """The measured round trips and the fitted models."""
    models = {
        row["continent_pair"]: RoundTripModel(
            continent_pair=row["continent_pair"],
            measurements=int(row["measurements"]),
            shortest_km=float(row["shortest_km"]),
            longest_km=float(row["longest_km"]),
            ms_per_km=float(row["ms_per_km"]),
            intercept_ms=float(row["intercept_ms"]),
            mean_absolute_error_ms=float(row["mean_absolute_error_ms"]),
        )
        for row in _rows("round_trip_model")
    }
    measured = {_pair(row): float(row["round_trip_ms"]) for row in _rows("round_trips")}
    return RoundTrips(measured=MappingProxyType(measured), models=MappingProxyType(models))


def read_throughput() -> Throughput:
    """Measured throughput."""
    measured = {_pair(row): float(row["gbit_per_second"]) for row in _rows("throughput")}
    return Throughput(measured=MappingProxyType(measured), source=THROUGHPUT_SOURCE)


def read_request_prices() -> Mapping[tuple[str, StoreOperation], Figure]:
    """What 1000 requests cost, by cloud and operation."""
    found: dict[tuple[str, StoreOperation], Figure] = {}
    for row in _rows("request_prices"):
        price = Figure(
            value=float(row["usd_per_1000"]),
            unit="USD/1000",
            source=row["source"],
            is_estimate=row["basis"] != "region",
        )
        found[row["cloud"], cast("StoreOperation", row["operation"])] = price
    return MappingProxyType(found)


def _rows(table: str) -> Iterator[dict[str, str]]:
    text = files("fairlead.catalog.tables").joinpath(f"{table}.csv").read_text(encoding="utf-8")
    yield from csv.DictReader(io.StringIO(text, newline=""))


def _pair(row: Mapping[str, str]) -> Pair:
    return RegionId(row["source_region"]), RegionId(row["destination_region"])


def _place(row: Mapping[str, str]) -> Place:
    return Place(
        name=row["place"],
        country=row["country"],
        continent=row["continent"],
        latitude=float(row["latitude"]),
        longitude=float(row["longitude"]),
    )


def _figure(cell: str, unit: str, source: str) -> Figure | None:
    return Figure(value=float(cell), unit=unit, source=source) if cell else None
