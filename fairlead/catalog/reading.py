"""Read the shipped tables into the catalog's records. An empty cell is a gap, never a zero."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from fairlead.catalog.egress import TARIFF, EgressTariffs, Pair, Tier
from fairlead.catalog.figures import Figure
from fairlead.catalog.latency import RoundTripModel, RoundTrips
from fairlead.catalog.prices import Price, StoreOperation
from fairlead.catalog.regions import Area, Place, Region
from fairlead.catalog.rows import table_rows
from fairlead.catalog.sources import with_source
from fairlead.catalog.throughput import Throughput
from fairlead.core.ids import RegionId

THROUGHPUT_SOURCE = "skyplane iperf3 profiles 2022-01 and 2022-11, 64 connections (Apache-2.0)"
_CARBON_BASIS = {"region": "", "nearest": ", the nearest in the country", "country": ", mean of the country"}


def read_regions() -> Mapping[RegionId, Region]:
    """Every region by id, in id order."""
    found: dict[RegionId, Region] = {}
    for row in table_rows("regions"):
        region = RegionId(row["region"])
        cloud, _, name = region.partition(":")
        carbon = with_source(
            Figure(
                value=float(row["carbon_g_per_kwh"]),
                unit="gCO2e/kWh",
                source=row["carbon_source"] + _CARBON_BASIS[row["carbon_basis"]],
                is_estimate=row["carbon_basis"] != "region",
            )
        )
        pue = with_source(
            Figure(
                value=float(row["pue"]),
                unit="ratio",
                source=row["pue_source"],
                is_estimate=row["pue_basis"] != "region",
            )
        )
        found[region] = Region(
            id=region,
            cloud=cloud,
            name=name,
            place=_place(row),
            jurisdiction=row["jurisdiction"],
            coordinate_source=row["coordinate_source"],
            carbon=carbon,
            carbon_free_share=_figure(row["carbon_free_share"], "share", row["carbon_free_share_source"]),
            pue=pue,
        )
    return MappingProxyType(found)


def read_areas() -> Mapping[str, Area]:
    """Every demand area by id, in id order."""
    return MappingProxyType({row["area"]: Area(id=row["area"], place=_place(row)) for row in table_rows("areas")})


def read_prices() -> Mapping[RegionId, tuple[Price, ...]]:
    """The priced instance types of each region, by sku."""
    found: dict[RegionId, list[Price]] = {}
    for row in table_rows("prices"):
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
    for row in table_rows("egress_pairs"):
        pairs[_pair(row)] = with_source(Figure(value=float(row["usd_per_gb"]), unit=TARIFF, source=row["source"]))
    internet: dict[RegionId, Figure] = {}
    same_continent: dict[RegionId, Figure] = {}
    other_continent: dict[RegionId, Figure] = {}
    other_cloud: dict[RegionId, Figure] = {}
    for row in table_rows("egress_regions"):
        region = RegionId(row["region"])
        internet[region] = with_source(
            Figure(
                value=float(row["internet_usd_per_gb"]),
                unit=TARIFF,
                source=row["internet_source"],
                is_estimate=row["internet_basis"] != "internet",
            )
        )
        for column, medians in (
            ("same_continent_median_usd_per_gb", same_continent),
            ("other_continent_median_usd_per_gb", other_continent),
            ("other_cloud_median_usd_per_gb", other_cloud),
        ):
            if row[column]:
                source = f"median of the region's known pairs, {' '.join(column.split('_')[:2])}"
                medians[region] = with_source(
                    Figure(value=float(row[column]), unit=TARIFF, source=source, is_estimate=True)
                )
    return EgressTariffs(
        pairs=MappingProxyType(pairs),
        internet=MappingProxyType(internet),
        further=_read_tiers(),
        same_continent=MappingProxyType(same_continent),
        other_continent=MappingProxyType(other_continent),
        other_cloud=MappingProxyType(other_cloud),
    )


def _read_tiers() -> Mapping[RegionId, tuple[Tier, ...]]:
    found: dict[RegionId, list[Tier]] = {}
    for row in table_rows("egress_tiers"):
        tariff = Figure(
            value=float(row["usd_per_gb"]), unit=TARIFF, source=row["source"], is_estimate=row["basis"] != "region"
        )
        found.setdefault(RegionId(row["region"]), []).append(
            Tier(from_gb=float(row["from_gb"]), tariff=with_source(tariff))
        )
    return MappingProxyType({region: tuple(tiers) for region, tiers in found.items()})


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
        for row in table_rows("round_trip_model")
    }
    measured = {_pair(row): float(row["round_trip_ms"]) for row in table_rows("round_trips")}
    return RoundTrips(measured=MappingProxyType(measured), models=MappingProxyType(models))


def read_throughput() -> Throughput:
    """Measured throughput."""
    measured = {_pair(row): float(row["gbit_per_second"]) for row in table_rows("throughput")}
    return Throughput(measured=MappingProxyType(measured), source=THROUGHPUT_SOURCE)


def read_request_prices() -> Mapping[tuple[str, StoreOperation], Figure]:
    """What 1000 requests cost, by cloud and operation."""
    found: dict[tuple[str, StoreOperation], Figure] = {}
    for row in table_rows("request_prices"):
        price = Figure(
            value=float(row["usd_per_1000"]),
            unit="USD/1000",
            source=row["source"],
            is_estimate=row["basis"] != "region",
        )
        found[row["cloud"], cast("StoreOperation", row["operation"])] = with_source(price)
    return MappingProxyType(found)


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
    return with_source(Figure(value=float(cell), unit=unit, source=source)) if cell else None
