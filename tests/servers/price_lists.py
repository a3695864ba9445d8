"""The clouds' price lists and the grids' carbon on loopback, small, in the shapes that their documentation gives.

AWS: https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-the-aws-price-list-bulk-api.html
Google: https://docs.cloud.google.com/billing/v1/how-tos/catalog-api
Azure: https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices
Electricity Maps: https://app.electricitymaps.com/docs
WattTime: https://docs.watttime.org
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.servers.token_services import Answer, Request, serving

KEY, USER, PASSWORD = "emaps-secret", "harbour", "watt-secret"
GOOGLE_KEY = "billing-secret"

_EC2 = """"FormatVersion","v1.0"
"Disclaimer","This pricing list is for informational purposes only."
"Publication Date","2026-11-01T00:00:00Z"
"Version","20261101000000"
"OfferCode","AmazonEC2"
"SKU","TermType","PriceDescription","EffectiveDate","StartingRange","EndingRange","Unit","PricePerUnit","Currency",\
"Instance Type","Tenancy","Operating System","CapacityStatus","Pre Installed S/W","Region Code"
"A1","OnDemand","m6i.large Linux","2026-11-01","0","Inf","Hrs","0.1230000000","USD",\
"m6i.large","Shared","Linux","Used","NA","eu-central-1"
"A2","OnDemand","m6i.large Windows","2026-11-01","0","Inf","Hrs","0.2150000000","USD",\
"m6i.large","Shared","Windows","Used","NA","eu-central-1"
"A3","Reserved","m6i.large upfront","2026-11-01","0","Inf","Quantity","500","USD",\
"m6i.large","Shared","Linux","Used","NA","eu-central-1"
"A4","OnDemand","inf2.xlarge Linux","2026-11-01","0","Inf","Hrs","0.9854000000","USD",\
"inf2.xlarge","Shared","Linux","Used","NA","eu-central-1"
"A5","OnDemand","x9.large Linux","2026-11-01","0","Inf","Hrs","9.9","USD",\
"x9.large","Shared","Linux","Used","NA","eu-central-1"
"""
_TRAFFIC = """"FormatVersion","v1.0"
"Disclaimer","This pricing list is for informational purposes only."
"Publication Date","2026-11-01T00:00:00Z"
"Version","20261101000000"
"OfferCode","AWSDataTransfer"
"SKU","TermType","EffectiveDate","StartingRange","EndingRange","Unit","PricePerUnit","Currency","Transfer Type",\
"From Location","To Location","usageType","From Region Code","To Region Code"
"T1","OnDemand","2026-11-01","0","10240","GB","0.0850000000","USD","AWS Outbound",\
"EU (Frankfurt)","External","EUC1-DataTransfer-Out-Bytes","eu-central-1",""
"T1","OnDemand","2026-11-01","10240","Inf","GB","0.0800000000","USD","AWS Outbound",\
"EU (Frankfurt)","External","EUC1-DataTransfer-Out-Bytes","eu-central-1",""
"T2","OnDemand","2026-11-01","0","Inf","GB","0.0150000000","USD","InterRegion Outbound",\
"EU (Frankfurt)","EU (Ireland)","EUC1-EUW1-AWS-Out-Bytes","eu-central-1","eu-west-1"
"""


@dataclass(slots=True)
class PriceLists:
    """Answers as five services do; `down` names the paths that fail, `asked` holds what was asked."""

    url: str = ""
    machine_usd: float = 0.23
    down: str | None = None
    asked: list[str] = field(default_factory=list[str])

    def __call__(self, request: Request) -> Answer:
        """Answer by the beginning of the path."""
        self.asked.append(request.path)
        if self.down is not None and self.down in request.path:
            return 500, {}, b"<html>down</html>"
        path, query, headers = urlsplit(request.path).path, request.query, request.headers
        if path.startswith("/offers/"):
            return self._aws(path)
        if path.startswith("/v1/services"):
            return _json(self._google(path, query)) if headers.get("x-goog-api-key") == GOOGLE_KEY else _refused()
        if path == "/api/retail/prices":
            return _json(self._azure(query))
        if path in {"/v3/carbon-intensity/history", "/v3/power-breakdown/history"}:
            return _json(_emaps(path, query)) if headers.get("auth-token") == KEY else _refused()
        return _watttime(path, query, headers.get("authorization", ""))

    def _aws(self, path: str) -> Answer:
        offer = path.split("/")[4]
        if path.endswith("region_index.json"):
            file = f"/offers/v1.0/aws/{offer}/20261101000000/eu-central-1/index.json"
            return _json({"regions": {"eu-central-1": {"regionCode": "eu-central-1", "currentVersionUrl": file}}})
        assert path.endswith("/index.csv"), path
        return 200, {}, (_EC2 if offer == "AmazonEC2" else _TRAFFIC).encode()

    def _google(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        if path == "/v1/services":
            return {
                "services": [
                    {"serviceId": "AAAA", "displayName": "Compute Engine"},
                    {"serviceId": "BBBB", "displayName": "Cloud TPU"},
                    {"serviceId": "CCCC", "displayName": "Cloud Spanner"},
                ]
            }
        if path == "/v1/services/BBBB/skus":
            return {"skus": [_sku("Tpu-v5e running in Netherlands", "OnDemand", 1, 560_000_000)]}
        assert path == "/v1/services/AAAA/skus"
        if "pageToken" not in query:
            return {
                "skus": [_sku("N2 Instance Core running in Netherlands", "OnDemand", 0, 35_000_000)],
                "nextPageToken": "two",
            }
        return {
            "skus": [
                _sku("N2 Instance Ram running in Netherlands", "OnDemand", 0, 4_700_000),
                _sku("Spot Preemptible N2 Instance Core running in Netherlands", "Preemptible", 0, 10_000_000),
                _sku("Spot Preemptible N2 Instance Ram running in Netherlands", "Preemptible", 0, 1_000_000),
                _sku("N2 Instance Core running in Netherlands for 1 year", "Commit1Yr", 0, 22_000_000),
            ]
        }

    def _azure(self, query: dict[str, str]) -> dict[str, Any]:
        wanted = query["$filter"]
        if "armRegionName eq 'westeurope'" not in wanted:
            return {"Items": [], "NextPageLink": None}
        if "Bandwidth" in wanted:
            return {"Items": [_meter("", "", 0.0, 0), _meter("", "", 0.087, 100), _meter("", "", 0.083, 10335)]}
        if "$skip" not in query:
            following = f"https://prices.azure.com:443/api/retail/prices?$filter={wanted}&$skip=100"
            return {"Items": [_meter("Standard_D2s_v5", "D2s v5", self.machine_usd)], "NextPageLink": following}
        return {
            "Items": [
                _meter("Standard_D2s_v5", "D2s v5 Spot", 0.03),
                _meter("Standard_D2s_v5", "D2s v5 Low Priority", 0.04),
                _meter("Standard_D2s_v5", "D2s v5", 0.5, product="Virtual Machines Dsv5 Series Windows"),
            ],
            "NextPageLink": None,
        }


@contextlib.contextmanager
def price_lists() -> Generator[PriceLists]:
    """The services while the block runs."""
    lists = PriceLists()
    with serving(lists) as url:
        lists.url = url
        yield lists


def _sku(description: str, usage: str, units: int, nanos: int) -> dict[str, Any]:
    price = {"currencyCode": "USD", "units": str(units), "nanos": nanos}
    return {
        "skuId": "0000",
        "description": description,
        "category": {"serviceDisplayName": "Compute Engine", "resourceFamily": "Compute", "usageType": usage},
        "serviceRegions": ["europe-west4"],
        "pricingInfo": [
            {
                "effectiveTime": "2026-11-02T00:00:00Z",
                "pricingExpression": {"usageUnit": "h", "tieredRates": [{"startUsageAmount": 0, "unitPrice": price}]},
            }
        ],
    }


def _meter(sku: str, name: str, price: float, start: float = 0, product: str | None = None) -> dict[str, Any]:
    usual = "Virtual Machines Dsv5 Series" if sku else "Rtn Preference: MGN"
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": start,
        "retailPrice": price,
        "armRegionName": "westeurope",
        "effectiveStartDate": "2026-11-01T00:00:00Z",
        "meterId": "0000-1111",
        "meterName": name or "Standard Data Transfer Out",
        "productName": product or usual,
        "skuName": name,
        "unitOfMeasure": "1 Hour" if sku else "1 GB",
        "type": "Consumption",
        "armSkuName": sku,
    }


def _emaps(path: str, query: dict[str, str]) -> dict[str, Any]:
    assert {"lat", "lon"} <= query.keys()
    if path.startswith("/v3/carbon"):
        hours = [
            {
                "zone": "DE",
                "carbonIntensity": value,
                "datetime": f"2026-11-21T{hour:02}:00:00.000Z",
                "isEstimated": False,
            }
            for hour, value in enumerate((300, 320, 340))
        ]
        return {"zone": "DE", "history": hours}
    return {"zone": "DE", "history": [{"datetime": "2026-11-21T00:00:00.000Z", "fossilFreePercentage": 61}]}


def _watttime(path: str, query: dict[str, str], authorization: str) -> Answer:
    if path == "/login":
        said = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return _json({"token": "a-token"}) if authorization == said else _refused()
    if authorization != "Bearer a-token":
        return _refused()
    if path == "/v3/region-from-loc":
        # An account covers some grids alone.
        if not 47 < float(query["latitude"]) < 55:
            return 403, {}, b"{}"
        return _json({"region": "DE", "region_full_name": "Germany", "signal_type": "co2_aoer"})
    points = [{"point_time": f"2026-11-21T{hour:02}:00:00+00:00", "value": 700 + hour} for hour in range(3)]
    return _json({"data": points, "meta": {"region": "DE", "signal_type": "co2_aoer", "units": "lbs_co2_per_mwh"}})


def _json(value: object) -> Answer:
    return 200, {"content-type": "application/json"}, json.dumps(value).encode()


def _refused() -> Answer:
    return 401, {}, b"{}"
