"""The ports of feeds: what brings prices, and what brings carbon.

A feed reads; it never changes anything where it reads, so it may be asked again at any time. It brings what it finds
and names what it does not: a region that its source does not cover is `missing`, no error. It raises `FeedUnavailable`
where the source as a whole does not answer, refuses the credentials, or answers in another shape; then it brought
nothing, and the figures of the last time hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fairlead.catalog.observations import Observation
from fairlead.catalog.regions import Region
from fairlead.core.errors import FeedUnavailable
from fairlead.core.ids import RegionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What a feed has nothing to say of, and why."""

    region: RegionId
    item: str = ""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a feed brought."""

    observations: tuple[Observation, ...]
    missing: tuple[Missing, ...] = ()


@runtime_checkable
class PriceFeed(Protocol):
    """Brings prices of instance types and tariffs for egress, in US dollars."""

    def read_prices(self, regions: Sequence[Region]) -> Reading:
        """The present prices in those of the regions that are this feed's.

        Raises:
            FeedUnavailable: if the source does not answer as it should.
        """
        ...


@runtime_checkable
class CarbonFeed(Protocol):
    """Brings the carbon intensity of grids, in gCO2e/kWh, and the share of carbon-free electricity."""

    def read_carbon(self, regions: Sequence[Region]) -> Reading:
        """The carbon of the grid at the place of each region.

        Raises:
            FeedUnavailable: if the source does not answer as it should.
        """
        ...


Feed = PriceFeed | CarbonFeed


def read_feed(feed: Feed, regions: Sequence[Region]) -> Reading:
    """What a feed brings; one that is both brings prices and carbon.

    Raises:
        FeedUnavailable: if the source does not answer as it should.
    """
    readings: list[Reading] = []
    if isinstance(feed, PriceFeed):
        readings.append(feed.read_prices(regions))
    if isinstance(feed, CarbonFeed):
        readings.append(feed.read_carbon(regions))
    observations = tuple(each for reading in readings for each in reading.observations)
    for each in observations:
        # A source may write what JSON has no numbers for, and no solver goes on with.
        if not 0 <= each.value < math.inf:
            raise FeedUnavailable(
                f"The feed brought {each.value} as the {each.kind.value} of {each.region}, which no figure can be.",
                hint="The figures of the last time hold; see fairlead catalog feeds.",
            )
    return Reading(
        observations=observations,
        missing=tuple(each for reading in readings for each in reading.missing),
    )
