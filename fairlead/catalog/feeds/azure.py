"""The Azure Retail Prices API: list prices of virtual machines, on demand and spot, and of traffic to the internet.

https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices: one open address, filtered by
OData, in pages that name the next one. Prices are US dollars.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fairlead.catalog.feeds.fetching import Source
from fairlead.catalog.feeds.ports import Missing, Reading
from fairlead.catalog.observations import FigureKind, Observation, instance_types, tier_item
from fairlead.catalog.regions import Region

URL = "https://prices.azure.com"
LICENCE = "facts published by the provider"
_PATH = "api/retail/prices"
_PAGES_MAX = 200
_TRAFFIC = "Standard Data Transfer Out"


class AzureRetailPrices:
    """A `PriceFeed`."""

    def __init__(self, *, url: str = URL) -> None:
        self._source = Source("azure", url)

    def read_prices(self, regions: Sequence[Region]) -> Reading:
        """The list prices of the instance types that the catalog follows, and of traffic out, in Azure's regions."""
        found: list[Observation] = []
        missing: list[Missing] = []
        for region in (each for each in regions if each.cloud == "azure"):
            prices = list(self._machines(region))
            priced = {each.item for each in prices if each.kind is FigureKind.ON_DEMAND}
            found += [*prices, *self._traffic(region)]
            missing += [
                Missing(region=region.id, item=sku, reason="not listed")
                for sku in instance_types("azure")
                if sku not in priced
            ]
        return Reading(observations=tuple(found), missing=tuple(missing))

    def _machines(self, region: Region) -> Iterator[Observation]:
        wanted = " or ".join(f"armSkuName eq '{sku}'" for sku in instance_types("azure"))
        query = (
            f"serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq '{region.name}' "
            f"and ({wanted})"
        )
        for item in self._items(query):
            kind = _kind_of(item)
            if kind is not None:
                yield self._observe(region, item, kind, str(item["armSkuName"]))

    def _traffic(self, region: Region) -> Iterator[Observation]:
        query = f"serviceName eq 'Bandwidth' and armRegionName eq '{region.name}' and meterName eq '{_TRAFFIC}'"
        steps = {
            float(item["tierMinimumUnits"]): item
            for item in self._items(query)
            if item.get("productName") == "Rtn Preference: MGN" and item.get("type") == "Consumption"
        }
        # The first gigabytes of a month cost nothing; the tariff begins after them.
        charged = sorted(start for start, item in steps.items() if item["retailPrice"] > 0)
        for index, start in enumerate(charged):
            at = 0.0 if index == 0 else start
            yield self._observe(region, steps[start], FigureKind.INTERNET_EGRESS, tier_item(at))

    def _items(self, query: str) -> Iterator[dict[str, Any]]:
        answer = self._source.get(_PATH, {"$filter": query, "currencyCode": "USD"})
        for _ in range(_PAGES_MAX):
            page = answer
            yield from self._source.parse("a page", lambda page=page: list(page["Items"]))
            following = page.get("NextPageLink")
            if not following:
                return
            # The service names its own address; behind a mirror that is another one.
            answer = self._source.get(_PATH, dict(parse_qsl(urlsplit(str(following)).query)))
        raise self._source.unavailable("its list has no end")

    def _observe(self, region: Region, item: dict[str, Any], kind: FigureKind, name: str) -> Observation:
        return self._source.parse(
            "a price",
            lambda: Observation(
                kind=kind,
                region=region.id,
                item=name,
                value=float(item["retailPrice"]),
                source=f"Azure Retail Prices API, meter {item['meterId']}",
                licence=LICENCE,
                date=str(item["effectiveStartDate"])[:10],
            ),
        )


def _kind_of(item: dict[str, Any]) -> FigureKind | None:
    """Whether an item is the price of an hour with Linux, on demand or spot; None for anything else."""
    name, product = str(item.get("skuName", "")), str(item.get("productName", ""))
    is_hour_of_linux = item.get("unitOfMeasure") == "1 Hour" and "Windows" not in product
    if not is_hour_of_linux or "Low Priority" in name or "CloudServices" in product.replace(" ", ""):
        return None
    return FigureKind.SPOT if name.endswith(" Spot") else FigureKind.ON_DEMAND
