"""Egress: what a byte costs that leaves a region, by where it goes and by how much went before it in the month."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.catalog.figures import Figure
from fairlead.catalog.regions import Region
from fairlead.core.ids import RegionId

TARIFF = "USD/GB"
Pair = tuple[RegionId, RegionId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A step of a tariff: `tariff` holds for what a region sends beyond `from_gb` gigabytes in one month."""

    from_gb: float
    tariff: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressTariffs:
    """Tariffs in USD/GB: named pairs, each region's internet tariff, and each region's medians for the rest.

    `further` holds the steps of the internet tariff after the first one, for the regions whose steps somebody states.
    """

    pairs: Mapping[Pair, Figure]
    internet: Mapping[RegionId, Figure]
    further: Mapping[RegionId, tuple[Tier, ...]]
    same_continent: Mapping[RegionId, Figure]
    other_continent: Mapping[RegionId, Figure]
    other_cloud: Mapping[RegionId, Figure]

    def between(self, source: Region, destination: Region) -> Figure:
        """The tariff of a pair, or the documented stand-in, flagged as an estimate."""
        if source.id == destination.id:
            return Figure(
                value=0.0, unit=TARIFF, source="no egress is charged within one region (assumed)", is_estimate=True
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
            unit=TARIFF,
            source=f"internet tariff in place of an unknown pair; {internet.source}",
            is_estimate=True,
            date=internet.date,
            licence=internet.licence,
        )

    def tiers(self, region: Region) -> tuple[Tier, ...]:
        """The steps of a region's internet tariff, the first one from nothing on."""
        return (Tier(from_gb=0.0, tariff=self.internet[region.id]), *self.further.get(region.id, ()))

    def _medians(self, source: Region, destination: Region) -> Mapping[RegionId, Figure]:
        if source.cloud != destination.cloud:
            return self.other_cloud
        is_near = source.place.continent == destination.place.continent
        return self.same_continent if is_near else self.other_continent
