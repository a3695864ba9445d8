"""Electricity Maps: the mean of the last 24 hours at the place of a region.

https://app.electricitymaps.com/docs: `GET /v3/carbon-intensity/history` and `/v3/power-breakdown/history` by `lat` and
`lon`, with the key in the header `auth-token`. Life-cycle emissions, flows across borders traced.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from fairlead.catalog.feeds.fetching import NotCovered, Source
from fairlead.catalog.feeds.ports import Missing, Reading
from fairlead.catalog.observations import FigureKind, Observation
from fairlead.catalog.regions import Region

URL = "https://api.electricitymaps.com"
LICENCE = "Electricity Maps' terms of the key"


class ElectricityMaps:
    """A `CarbonFeed`."""

    def __init__(self, key: str, *, url: str = URL) -> None:
        self._source = Source("electricity-maps", url, headers={"auth-token": key})

    def read_carbon(self, regions: Sequence[Region]) -> Reading:
        """The mean of the last 24 hours at the place of each region; a key may cover some zones alone."""
        found: list[Observation] = []
        missing: list[Missing] = []
        for region in regions:
            try:
                found += self._read(region)
            except NotCovered as refused:
                missing.append(Missing(region=region.id, reason=refused.detail))
        if regions and not found:
            raise self._source.unavailable("the key covers none of the regions")
        return Reading(observations=tuple(found), missing=tuple(missing))

    def _read(self, region: Region) -> list[Observation]:
        place = {"lat": f"{region.place.latitude:.4f}", "lon": f"{region.place.longitude:.4f}"}
        intensity = self._source.get("v3/carbon-intensity/history", place)
        found = [self._mean(region, intensity, "carbonIntensity", FigureKind.CARBON, 1.0)]
        try:
            mix = self._source.get("v3/power-breakdown/history", place)
        except NotCovered:
            return found  # some keys bring the intensity alone
        return [*found, self._mean(region, mix, "fossilFreePercentage", FigureKind.CARBON_FREE_SHARE, 0.01)]

    def _mean(self, region: Region, answer: Any, member: str, kind: FigureKind, factor: float) -> Observation:
        def read() -> Observation:
            hours = [hour for hour in answer["history"] if hour[member] is not None]
            last = max(str(hour["datetime"]) for hour in hours)
            return Observation(
                kind=kind,
                region=region.id,
                value=round(statistics.fmean(float(hour[member]) for hour in hours) * factor, 4),
                source=f"Electricity Maps, zone {answer['zone']}, mean of {len(hours)} hours",
                licence=LICENCE,
                date=last[:10],
                is_estimate=any(bool(hour.get("isEstimated")) for hour in hours),
            )

        return self._source.parse("a history", read)
