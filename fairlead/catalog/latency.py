"""Round trips: measured where someone measured them, else estimated from the distance, with the error shown.

A measured pair answers for both directions where the other one has no usable measurement. The model is a straight line
in kilometres per pair of continents, fitted by least squares to the measurements; it interpolates only. Outside the
distances it was fitted on, and for pairs of continents with fewer than 10 measurements, the line through all
measurements stands in. No estimate is below what light needs through fibre.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fairlead.catalog.figures import Figure
from fairlead.catalog.regions import Area, Place, Region, distance_km
from fairlead.catalog.sources import with_source
from fairlead.core.ids import RegionId

MEASURED = "skyplane ping profile 2022-04 (Apache-2.0), lowest of many"
_FIBRE_ROUND_TRIP_MS_PER_KM = 0.01
_SAME_REGION_MS = 1.0
_NEARBY_KM = 500.0
_ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTripModel:
    """One fitted line: milliseconds = intercept + slope x km, within the distances it was fitted on."""

    continent_pair: str
    measurements: int
    shortest_km: float
    longest_km: float
    ms_per_km: float
    intercept_ms: float
    mean_absolute_error_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrips:
    """The measured matrix and the models, in milliseconds; `stated` is what owners of private regions say."""

    measured: Mapping[tuple[RegionId, RegionId], float]
    models: Mapping[str, RoundTripModel]
    stated: Mapping[tuple[RegionId, RegionId], Figure] = field(default_factory=dict[tuple[RegionId, RegionId], Figure])

    def between_regions(self, source: Region, destination: Region) -> Figure:
        """The round trip between two regions: measured either way, else modelled."""
        if source.id == destination.id:
            return Figure(
                value=_SAME_REGION_MS, unit="ms", source="assumed within one region", is_estimate=True, error=None
            )
        stated = self.stated.get((source.id, destination.id)) or self.stated.get((destination.id, source.id))
        if stated is not None:
            return stated
        forward = self.measured.get((source.id, destination.id))
        if forward is not None:
            return with_source(Figure(value=forward, unit="ms", source=MEASURED))
        backward = self.measured.get((destination.id, source.id))
        if backward is not None:
            return with_source(Figure(value=backward, unit="ms", source=MEASURED + ", other direction"))
        return self.model(source.place, destination.place)

    def from_area(self, area: Area, region: Region, nearest: Region) -> Figure:
        """The round trip from users in an area, always an estimate.

        `nearest` is the catalog's region nearest to the area. Within 500 km of it the area takes its measured round
        trip plus the modelled way to it; farther away the model answers alone.
        """
        if distance_km(area.place, nearest.place) > _NEARBY_KM:
            return self.model(area.place, region.place)
        access = self.model(area.place, nearest.place)
        if nearest.id == region.id:
            return access
        onward = self.between_regions(nearest, region)
        return Figure(
            value=round(access.value + onward.value, 1),
            unit="ms",
            source=f"{onward.source}, from {nearest.id}; access: {access.source}",
            is_estimate=True,
            error=access.error if onward.error is None else round((access.error or 0.0) + onward.error, 1),
        )

    def model(self, one: Place, other: Place) -> Figure:
        """The round trip that the distance suggests."""
        km = distance_km(one, other)
        pair = "-".join(sorted((one.continent, other.continent)))
        line = self.models.get(pair)
        if line is None or not line.shortest_km <= km <= line.longest_km:
            line = self.models[_ANY]
        value = max(line.intercept_ms + line.ms_per_km * km, _FIBRE_ROUND_TRIP_MS_PER_KM * km)
        return Figure(
            value=round(value, 1),
            unit="ms",
            source=f"distance model {line.continent_pair}, {line.measurements} measurements",
            is_estimate=True,
            error=line.mean_absolute_error_ms,
        )
