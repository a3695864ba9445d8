"""Gaps: what no source says of a region, and what the catalog answers in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fairlead.catalog.catalog import Tables
from fairlead.catalog.observations import FigureKind, instance_types
from fairlead.catalog.power import instance_power
from fairlead.catalog.regions import Region
from fairlead.core.ids import RegionId

_POWER = "power"
NO_ANSWER = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """What is missing of one region. `items` are instance types or destinations; empty where the region has one figure.

    `kind` is a kind of figure or `power`; `stand_in` is what is answered instead, `nothing` where nothing is.
    """

    region: RegionId
    kind: str
    items: tuple[str, ...]
    stand_in: str


def gaps(tables: Tables) -> list[Gap]:
    """Every gap, by region and kind."""
    found = (gap for region in tables.regions_by_id.values() for gap in _gaps_of(tables, region))
    return sorted(found, key=lambda gap: (gap.region, gap.kind))


def _gaps_of(tables: Tables, region: Region) -> Iterator[Gap]:
    if region.carbon.is_estimate:
        yield _gap(region, FigureKind.CARBON, stand_in=region.carbon.source)
    if region.pue.is_estimate:
        yield _gap(region, FigureKind.PUE, stand_in=region.pue.source)
    if region.carbon_free_share is None:
        yield _gap(region, FigureKind.CARBON_FREE_SHARE)
    tiers = tables.egress_tariffs.tiers(region)
    if tiers[0].tariff.is_estimate:
        yield _gap(region, FigureKind.INTERNET_EGRESS, ("0",), stand_in=tiers[0].tariff.source)
    if len(tiers) == 1 or any(tier.tariff.is_estimate for tier in tiers[1:]):
        stand_in = "the first tier" if len(tiers) == 1 else tiers[-1].tariff.source
        yield _gap(region, FigureKind.INTERNET_EGRESS, ("further tiers",), stand_in=stand_in)
    yield from _gaps_of_prices(tables, region)
    yield from _gaps_of_pairs(tables, region)


def _gaps_of_prices(tables: Tables, region: Region) -> Iterator[Gap]:
    offers = {offer.sku: offer for offer in tables.prices_by_region.get(region.id, ())}
    unpriced = tuple(sku for sku in instance_types(region.cloud) if sku not in offers)
    if unpriced:
        yield _gap(region, FigureKind.ON_DEMAND, unpriced)
    if region.owner is None:
        without_spot = tuple(sku for sku, offer in offers.items() if offer.spot is None)
        if without_spot:
            yield _gap(region, FigureKind.SPOT, without_spot)
    unpowered = tuple(sku for sku, offer in offers.items() if instance_power(offer, utilization=1.0) is None)
    if unpowered:
        yield Gap(region=region.id, kind=_POWER, items=unpowered, stand_in=NO_ANSWER)


def _gaps_of_pairs(tables: Tables, region: Region) -> Iterator[Gap]:
    others = [other for other in tables.regions_by_id.values() if other.id != region.id]
    tariffs, trips = tables.egress_tariffs, tables.round_trips
    unnamed = tuple(other.id for other in others if (region.id, other.id) not in tariffs.pairs)
    if unnamed:
        yield _gap(
            region,
            FigureKind.EGRESS,
            unnamed,
            stand_in="the region's median of that kind of pair, else its internet tariff",
        )
    unmeasured = tuple(other.id for other in others if trips.between_regions(region, other).is_estimate)
    if unmeasured:
        yield _gap(region, FigureKind.ROUND_TRIP, unmeasured, stand_in="the distance model")
    untried = tuple(other.id for other in others if tables.throughputs.between(region, other) is None)
    if untried:
        yield _gap(
            region,
            FigureKind.THROUGHPUT,
            untried,
            stand_in="the narrower line" if region.owner is not None else "the region's median towards that cloud",
        )


def _gap(region: Region, kind: FigureKind, items: tuple[str, ...] = (), *, stand_in: str = NO_ANSWER) -> Gap:
    return Gap(region=region.id, kind=kind, items=items, stand_in=stand_in)
