"""Throughput between regions: measured where someone measured it, else a stand-in that says it is an estimate.

All figures are of 64 parallel TCP connections between two machines. What a worker reaches depends on its machine and on
what else goes over the line, so seconds worked out from here compare paths; they promise no arrival time.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fairlead.catalog.figures import Figure
from fairlead.catalog.regions import Region
from fairlead.catalog.sources import with_source
from fairlead.core.ids import RegionId

_UNIT = "Gbit/s"
Pair = tuple[RegionId, RegionId]


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """The measured matrix in Gbit/s; a pair that nobody measured is not in it.

    `lines` is how much the line of each private region carries, as its owner says.
    """

    measured: Mapping[Pair, float]
    source: str
    lines: Mapping[RegionId, Figure] = field(default_factory=dict[RegionId, Figure])

    def between(self, source: Region, destination: Region) -> Figure | None:
        """What was measured from one region to another, or None."""
        value = self.measured.get((source.id, destination.id))
        return None if value is None else with_source(Figure(value=value, unit=_UNIT, source=self.source))

    def expected(self, source: Region, destination: Region) -> Figure:
        """What was measured, else an estimate.

        Within one region: the fastest that the region was measured at. For a pair without a measurement: the median of
        what the sending region reached towards the same cloud, else the median between the two clouds.
        """
        found = self.between(source, destination)
        if found is not None:
            return found
        if source.owner is not None or destination.owner is not None:
            return self._over_a_private_line(source, destination)
        if source.id == destination.id:
            value = max(each for (sender, _), each in self.measured.items() if sender == source.id)
            return self._estimate(value, "the fastest measured from the region, assumed within it")
        medians = self._medians
        own = medians.get((source.id, destination.cloud))
        if own is not None:
            return self._estimate(own, f"median of the region's measured pairs with {destination.cloud}")
        value = medians[source.cloud, destination.cloud]
        return self._estimate(value, f"median of the measured pairs from {source.cloud} to {destination.cloud}")

    def _over_a_private_line(self, source: Region, destination: Region) -> Figure:
        """What the narrower of two lines carries; where neither is stated, the median of everything measured."""
        ends = dict.fromkeys((source.id, destination.id))
        stated = [self.lines[region] for region in ends if region in self.lines]
        if not stated:
            return self._estimate(self._median, "median of all measured pairs, for a private line of unknown width")
        narrow = min(stated, key=lambda line: line.value)
        return Figure(
            value=narrow.value,
            unit=_UNIT,
            source=narrow.source,
            is_estimate=True,
            date=narrow.date,
            licence=narrow.licence,
        )

    @cached_property
    def _median(self) -> float:
        return statistics.median(self.measured.values())

    @cached_property
    def _medians(self) -> Mapping[tuple[str, str], float]:
        """By (sending region or cloud, receiving cloud)."""
        groups: dict[tuple[str, str], list[float]] = {}
        for (sender, receiver), value in self.measured.items():
            cloud = receiver.partition(":")[0]
            groups.setdefault((sender, cloud), []).append(value)
            groups.setdefault((sender.partition(":")[0], cloud), []).append(value)
        return {key: statistics.median(values) for key, values in groups.items()}

    def _estimate(self, value: float, how: str) -> Figure:
        return Figure(value=value, unit=_UNIT, source=f"{how}; {self.source}", is_estimate=True)
