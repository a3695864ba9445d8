"""Where things are: the clouds' regions, and the metropolitan areas from which demand comes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fairlead.catalog.figures import Figure
from fairlead.core.ids import RegionId

_EARTH_RADIUS_KM = 6371.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A point on the map. Degrees north and east; `country` is ISO 3166 alpha-3, `continent` two letters."""

    name: str
    country: str
    continent: str
    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One region of one cloud.

    `jurisdiction` is the body of law that data there falls under: `EU`, `EEA` (in the EEA and outside the EU), `UK`,
    `CH`, `US`, else the country. `carbon` is in gCO2e/kWh of grid electricity, a yearly mean unless a feed brought a
    newer one; `carbon_free_share` is the part, from 0 to 1, of the electricity that comes without carbon, None where
    nobody says; `pue` is the ratio of the data centre's power to that of its computers. `owner` is the workspace that
    added a private region, None for a cloud's.
    """

    id: RegionId
    cloud: str
    name: str
    place: Place
    jurisdiction: str
    coordinate_source: str
    carbon: Figure
    carbon_free_share: Figure | None
    pue: Figure
    owner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """A metropolitan area whose users send requests, such as `new-york`."""

    id: str
    place: Place


def distance_km(one: Place, other: Place) -> float:
    """Great-circle distance in kilometres."""
    lat1, lon1, lat2, lon2 = map(math.radians, (one.latitude, one.longitude, other.latitude, other.longitude))
    chord = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * _EARTH_RADIUS_KM * math.asin(math.sqrt(chord))
