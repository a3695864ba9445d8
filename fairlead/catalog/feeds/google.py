"""The Google Cloud Billing catalog: list prices, on demand and spot, summed from those of cores, memory and boards.

https://docs.cloud.google.com/billing/v1/how-tos/catalog-api: `GET /v1/services` and `/v1/services/ID/skus`, with the
key in the header `X-Goog-Api-Key`. Google sells no machine as such: an instance type's price is the sum of its parts,
which the list names by the beginning of their descriptions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fairlead.catalog.feeds.fetching import NotCovered, Source
from fairlead.catalog.feeds.ports import Missing, Reading
from fairlead.catalog.observations import FigureKind, InstanceType, Observation, instance_types
from fairlead.catalog.regions import Region

URL = "https://cloudbilling.googleapis.com"
LICENCE = "facts published by the provider"
SERVICES = frozenset({"Compute Engine", "Cloud TPU"})
_PAGES_MAX = 200
_SPOT = "Spot Preemptible "
_FAMILIES = MappingProxyType(
    {
        "e2": "E2 Instance",
        "n2": "N2 Instance",
        "c2": "Compute optimized",
        "c4a": "C4A Arm Instance",
        "t2a": "T2A Arm Instance",
        "g2": "G2 Instance",
        "a2": "A2 Instance",
        "a3": "A3 Instance",
    }
)
_BOARDS = MappingProxyType(
    {
        "L4": "Nvidia L4 GPU",
        "A100-40": "Nvidia Tesla A100 GPU",
        "A100-80": "Nvidia Tesla A100 80GB GPU",
        "H100-80": "Nvidia H100 80GB GPU",
        "TPU-v5e": "Tpu-v5e",
        "TPU-v5p": "Tpu-v5p",
        "TPU-v6e": "Tpu-v6e",
    }
)
_USAGE = MappingProxyType({"OnDemand": FigureKind.ON_DEMAND, "Preemptible": FigureKind.SPOT})
_RUNNING_IN = re.compile(r" (running|attached) .*")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rate:
    usd_per_hour: float
    date: str


Rates = dict[tuple[str, FigureKind, str], _Rate]
"""By region, way of renting, and the part's description in small letters."""


class GoogleBilling:
    """A `PriceFeed`."""

    def __init__(self, key: str, *, url: str = URL) -> None:
        self._source = Source("google", url, headers={"x-goog-api-key": key})

    def read_prices(self, regions: Sequence[Region]) -> Reading:
        """The list prices of the instance types that the catalog follows, in Google's regions that list all parts."""
        here = [each for each in regions if each.cloud == "gcp"]
        rates = self._rates({each.name for each in here}) if here else {}
        found: list[Observation] = []
        missing: list[Missing] = []
        for region in here:
            for kind in instance_types("gcp").values():
                for way in (FigureKind.ON_DEMAND, FigureKind.SPOT):
                    price = _price(rates, region, kind, way)
                    if price is not None:
                        found.append(price)
                    elif way is FigureKind.ON_DEMAND:
                        missing.append(Missing(region=region.id, item=kind.sku, reason="not all of its parts listed"))
        if here and not found:
            raise self._source.unavailable("its list names none of the parts of any instance type")
        return Reading(observations=tuple(found), missing=tuple(missing))

    def _rates(self, names: set[str]) -> Rates:
        rates: Rates = {}
        for service in self._items("v1/services", "services"):
            if service.get("displayName") in SERVICES:
                for sku in self._items(f"v1/services/{service['serviceId']}/skus", "skus"):
                    self._add(rates, sku, names)
        return rates

    def _add(self, rates: Rates, sku: Mapping[str, Any], names: set[str]) -> None:
        def add() -> None:
            way = _USAGE.get(sku["category"]["usageType"])
            inside = names & set(sku.get("serviceRegions") or ())
            if way is None or not inside or not sku.get("pricingInfo"):
                return
            newest = sku["pricingInfo"][-1]
            price = newest["pricingExpression"]["tieredRates"][-1]["unitPrice"]
            if price["currencyCode"] != "USD":
                raise ValueError(price["currencyCode"])
            rate = _Rate(
                usd_per_hour=int(price.get("units") or 0) + int(price.get("nanos") or 0) / 1e9,
                date=str(newest["effectiveTime"])[:10],
            )
            part = _RUNNING_IN.sub("", str(sku["description"]).removeprefix(_SPOT)).lower()
            for name in inside:
                rates.setdefault((name, way, part), rate)

        self._source.parse("a SKU", add)

    def _items(self, path: str, member: str) -> Iterator[dict[str, Any]]:
        parameters = {"pageSize": "5000"}
        for _ in range(_PAGES_MAX):
            try:
                answer = self._source.get(path, parameters)
            except NotCovered:
                raise self._source.unavailable("it refuses the key") from None
            yield from self._source.parse("a page", lambda answer=answer: list(answer.get(member) or ()))
            if not answer.get("nextPageToken"):
                return
            parameters = {**parameters, "pageToken": str(answer["nextPageToken"])}
        raise self._source.unavailable("its list has no end")


def _price(rates: Rates, region: Region, kind: InstanceType, way: FigureKind) -> Observation | None:
    total, dates = 0.0, ["0000"]
    for part, amount in _parts(kind):
        rate = rates.get((region.name, way, part.lower()))
        if rate is None:
            return None
        total += amount * rate.usd_per_hour
        dates.append(rate.date)
    return Observation(
        kind=way,
        region=region.id,
        item=kind.sku,
        value=round(total, 6),
        source="Google Cloud Billing catalog, sum of the parts",
        licence=LICENCE,
        date=max(dates),
    )


def _parts(kind: InstanceType) -> list[tuple[str, float]]:
    """What an instance type is charged for: descriptions as the list begins them, and how many units of each."""
    family = _FAMILIES.get(kind.sku.partition("-")[0])
    parts = [] if family is None else [(f"{family} Core", float(kind.vcpus)), (f"{family} Ram", kind.memory_gib)]
    if kind.accelerator is not None:
        parts.append((_BOARDS[kind.accelerator], float(kind.accelerator_count)))
    return parts
