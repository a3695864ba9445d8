"""The AWS price list: list prices on demand, and tariffs of traffic to the internet and between regions.

https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-the-aws-price-list-bulk-api.html: the offer files of
a region, as CSV. Those of EC2 are some hundred megabytes each, so they are read line by line and never held. The list
has no spot prices.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from fairlead.catalog.feeds.fetching import NotCovered, Source
from fairlead.catalog.feeds.ports import Missing, Reading
from fairlead.catalog.observations import FigureKind, Observation, instance_types, tier_item
from fairlead.catalog.regions import Region

URL = "https://pricing.us-east-1.amazonaws.com"
LICENCE = "facts published by the provider"
_INDEX = "offers/v1.0/aws/{}/current/region_index.json"
_LINES_BEFORE_THE_HEADER = 5
_TO_INTERNET, _TO_REGION = "DataTransfer-Out-Bytes", "AWS-Out-Bytes"
_RENTED = {
    "TermType": "OnDemand",
    "Tenancy": "Shared",
    "Operating System": "Linux",
    "Pre Installed S/W": "NA",
    "CapacityStatus": "Used",
    "Unit": "Hrs",
}


class AwsPriceList:
    """A `PriceFeed`."""

    def __init__(self, *, url: str = URL) -> None:
        self._source = Source("aws", url)

    def read_prices(self, regions: Sequence[Region]) -> Reading:
        """The list prices of the instance types that the catalog follows, and of traffic out, in the regions of AWS."""
        here = [each for each in regions if each.cloud == "aws"]
        machines, traffic = (self._files(offer) if here else {} for offer in ("AmazonEC2", "AWSDataTransfer"))
        found: list[Observation] = []
        missing: list[Missing] = []
        for region in here:
            prices = list(self._machines(region, machines.get(region.name)))
            found += [*prices, *self._traffic(region, traffic.get(region.name), regions)]
            priced = {each.item for each in prices}
            missing += [
                Missing(region=region.id, item=sku, reason="not listed")
                for sku in instance_types("aws")
                if sku not in priced
            ]
        return Reading(observations=tuple(found), missing=tuple(missing))

    def _files(self, offer: str) -> dict[str, str]:
        """The newest offer file of each region, as CSV."""
        answer = self._source.get(_INDEX.format(offer))
        return self._source.parse(
            "the index of regions",
            lambda: {
                str(name): str(entry["currentVersionUrl"]).removesuffix(".json") + ".csv"
                for name, entry in answer["regions"].items()
            },
        )

    def _machines(self, region: Region, file: str | None) -> Iterator[Observation]:
        followed = instance_types("aws")
        for row in self._rows(file):
            if row.get("Instance Type") in followed and all(row.get(name) == value for name, value in _RENTED.items()):
                found = self._observe(region, row, FigureKind.ON_DEMAND, row["Instance Type"])
                if found.value > 0:
                    yield found

    def _traffic(self, region: Region, file: str | None, regions: Sequence[Region]) -> Iterator[Observation]:
        by_name = {each.name: each.id for each in regions if each.cloud == "aws"}
        for row in self._rows(file):
            usage, target = row.get("usageType", ""), by_name.get(row.get("To Region Code", ""))
            if row.get("TermType") != "OnDemand" or row.get("From Region Code", region.name) != region.name:
                continue
            if usage.endswith(_TO_INTERNET) and row.get("To Location") == "External":
                begins = self._source.parse("a range", lambda row=row: float(row["StartingRange"]))
                yield self._observe(region, row, FigureKind.INTERNET_EGRESS, tier_item(begins))
            elif usage.endswith(_TO_REGION) and target is not None and target != region.id:
                yield self._observe(region, row, FigureKind.EGRESS, target)

    def _rows(self, file: str | None) -> Iterator[dict[str, str]]:
        if file is None:
            return
        try:
            with self._source.lines(file) as lines:
                yield from csv.DictReader(islice(lines, _LINES_BEFORE_THE_HEADER, None))
        except NotCovered:
            return

    def _observe(self, region: Region, row: dict[str, Any], kind: FigureKind, item: str) -> Observation:
        def read() -> Observation:
            if row["Currency"] != "USD":
                raise ValueError(row["Currency"])
            return Observation(
                kind=kind,
                region=region.id,
                item=item,
                value=float(row["PricePerUnit"]),
                source=f"AWS price list, SKU {row['SKU']}",
                licence=LICENCE,
                date=str(row["EffectiveDate"])[:10],
            )

        return self._source.parse("a price", read)
