"""A file of figures on the server's own disk: for servers without a network, negotiated prices and measurements.

A YAML or JSON resource of kind `CatalogFigures`: `spec.figures` is a list of kind, region, item, value, source, licence
and date, each as `Observation` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from fairlead.catalog.ages import first_day
from fairlead.catalog.feeds.ports import Missing, Reading
from fairlead.catalog.observations import REFRESHABLE, FigureKind, Observation
from fairlead.catalog.regions import Region
from fairlead.core.errors import FeedUnavailable
from fairlead.core.ids import RegionId

_API_VERSION, _KIND = "fairlead/v1", "CatalogFigures"
_MEMBERS = frozenset({"kind", "region", "item", "value", "source", "licence", "date", "is_estimate"})


class FigureFile:
    """A `PriceFeed` that brings figures of any kind."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_prices(self, regions: Sequence[Region]) -> Reading:
        """The figures of the file; those of regions that the catalog does not know are named as missing.

        Raises:
            FeedUnavailable: naming the entry that is wrong; a file counts as a whole or not at all.
        """
        known = {region.id for region in regions}
        found = [self._read(index, entry) for index, entry in enumerate(self._entries())]
        return Reading(
            observations=tuple(each for each in found if each.region in known),
            missing=tuple(
                Missing(region=each.region, item=each.item, reason="the catalog has no such region")
                for each in found
                if each.region not in known
            ),
        )

    def _entries(self) -> list[Any]:
        import yaml

        try:
            document: Any = yaml.safe_load(self._path.read_text(encoding="utf-8"))
        except OSError as error:
            raise _unavailable(f"{self._path.name} cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, ValueError, RecursionError):
            raise _unavailable(f"{self._path.name} is no YAML") from None
        try:
            said = (document["apiVersion"], document["kind"])
            figures = list(document["spec"]["figures"])
        except (KeyError, TypeError):
            said, figures = None, []
        if said != (_API_VERSION, _KIND):
            raise _unavailable(f"{self._path.name} is no {_KIND} of {_API_VERSION}")
        return figures

    def _read(self, index: int, entry: Any) -> Observation:
        where = f"/spec/figures/{index}"
        if not isinstance(entry, Mapping) or not set(cast("Mapping[str, Any]", entry)) <= _MEMBERS:
            raise _unavailable(f"{where} holds other members than {', '.join(sorted(_MEMBERS))}")
        figure = cast("Mapping[str, Any]", entry)
        try:
            kind, value = FigureKind(figure["kind"]), float(figure["value"])
            first_day(str(figure["date"]))
            found = Observation(
                kind=kind,
                region=RegionId(str(figure["region"])),
                item=str(figure.get("item") or ("0" if kind is FigureKind.INTERNET_EGRESS else "")),
                value=value,
                source=str(figure["source"]),
                licence=str(figure["licence"]),
                date=str(figure["date"]),
                is_estimate=bool(figure.get("is_estimate", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _unavailable(f"{where} is no figure ({type(error).__name__}: {str(error)[:60]})") from None
        if kind not in REFRESHABLE or not math.isfinite(value) or value < 0:
            raise _unavailable(f"{where} holds a kind or a value that no feed brings")
        return found


def _unavailable(why: str) -> FeedUnavailable:
    return FeedUnavailable(
        f"The feed 'file' brought nothing: {why}.", hint="See docs/how-to/refresh-the-catalog.md.", feed="file"
    )
