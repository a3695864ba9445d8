"""WattTime: the mean of the last 24 hours of the average emissions rate of the grid at the place of a region.

https://docs.watttime.org: `GET /login` with user and password gives a token for half an hour; `GET
/v3/region-from-loc` names the grid region of a place, `GET /v3/historical` its values in pounds per megawatt hour.
"""

from __future__ import annotations

import base64
import statistics
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from fairlead.catalog.feeds.fetching import NotCovered, Source
from fairlead.catalog.feeds.ports import Missing, Reading
from fairlead.catalog.observations import FigureKind, Observation
from fairlead.catalog.regions import Region

URL = "https://api.watttime.org"
LICENCE = "WattTime's terms of the account"
SIGNAL = "co2_aoer"
_GRAMS_PER_KWH = 453.59237 / 1000
"""Of one pound per megawatt hour."""


class WattTime:
    """A `CarbonFeed`."""

    def __init__(self, user: str, password: str, *, now: Callable[[], datetime], url: str = URL) -> None:
        self._source = Source("watttime", url)
        self._login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._now = now

    def read_carbon(self, regions: Sequence[Region]) -> Reading:
        """The mean of the last 24 hours at the place of each region; an account may cover some grids alone."""
        try:
            answer = self._source.get("login", authorization=self._login)
        except NotCovered:
            raise self._source.unavailable("it refuses the user or the password") from None
        bearer = "Bearer " + self._source.parse("the login", lambda: str(answer["token"]))
        found: list[Observation] = []
        missing: list[Missing] = []
        for region in regions:
            try:
                found.append(self._read(region, bearer))
            except NotCovered as refused:
                missing.append(Missing(region=region.id, reason=refused.detail))
        if regions and not found:
            raise self._source.unavailable("the account covers none of the regions")
        return Reading(observations=tuple(found), missing=tuple(missing))

    def _read(self, region: Region, bearer: str) -> Observation:
        place = {
            "latitude": f"{region.place.latitude:.4f}",
            "longitude": f"{region.place.longitude:.4f}",
            "signal_type": SIGNAL,
        }
        grid = self._source.get("v3/region-from-loc", place, authorization=bearer)
        name = self._source.parse("a grid region", lambda: str(grid["region"]))
        end = self._now().replace(minute=0, second=0, microsecond=0)
        period = {"start": (end - timedelta(days=1)).isoformat(), "end": end.isoformat()}
        answer = self._source.get(
            "v3/historical", {"region": name, "signal_type": SIGNAL, **period}, authorization=bearer
        )

        def read() -> Observation:
            if answer["meta"]["units"] != "lbs_co2_per_mwh":
                raise ValueError(answer["meta"]["units"])
            points = answer["data"]
            if not points:
                raise NotCovered("watttime has no values of the last day")
            mean = statistics.fmean(float(point["value"]) for point in points)
            return Observation(
                kind=FigureKind.CARBON,
                region=region.id,
                value=round(mean * _GRAMS_PER_KWH, 2),
                source=f"WattTime {SIGNAL}, {name}, mean of a day",
                licence=LICENCE,
                date=max(str(point["point_time"]) for point in points)[:10],
            )

        return self._source.parse("a history", read)
