"""The routing table: which endpoints a deployment has, and in which order a request may try them.

The table is a JSON file that the deploy side replaces atomically and the gateway reads again when it changed, so that
requests are answered also while everything else is down. An endpoint outside its deployment's residency class is
dropped when the table is read: the gateway trusts the catalog for that, not the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fairlead.catalog import load_catalog
from fairlead.catalog.residency import parse_residency, permits
from fairlead.core.errors import FairleadError
from fairlead.core.ids import RegionId
from fairlead.serving.processes import read_json, write_atomically

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint of a deployment. The lowest `order` is tried first where nothing else decides."""

    region: RegionId
    url: str
    bundle_digest: str
    order: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A deployment as the gateway sees it."""

    residency: str
    endpoints: tuple[Endpoint, ...]

    def permitted(self) -> Route:
        """The route without the endpoints where its residency class forbids data to be."""
        residency = parse_residency(self.residency)
        catalog = load_catalog()
        inside: list[Endpoint] = []
        for endpoint in self.endpoints:
            region = catalog.tables.regions_by_id.get(endpoint.region)
            if region is not None and permits(residency, region.jurisdiction):
                inside.append(endpoint)
        return Route(residency=self.residency, endpoints=tuple(inside))

    def in_order(self, *, prefer: str | None = None, area: str | None = None) -> list[Endpoint]:
        """The endpoints from first to last choice: the region asked for, then the nearest to `area`, then by order.

        Raises:
            UnknownArea: if the catalog has no such area.
        """
        catalog = load_catalog()
        if area is not None:
            catalog.area(area)

        def key(endpoint: Endpoint) -> tuple[bool, float, int, str]:
            distance = 0.0 if area is None else catalog.area_round_trip(area, endpoint.region).value
            return endpoint.region != prefer, distance, endpoint.order, endpoint.region

        return sorted(self.endpoints, key=key)


RoutingTable = Mapping[str, Route]
"""Routes by deployment name."""


def write_table(path: Path, table: RoutingTable) -> None:
    """Replace the file; a reader sees the old table or the new one."""
    routes = {
        name: {"residency": route.residency, "endpoints": [asdict(endpoint) for endpoint in route.endpoints]}
        for name, route in table.items()
    }
    write_atomically(path, {"format": _FORMAT, "deployments": routes})


def read_table(path: Path) -> dict[str, Route] | None:
    """The permitted part of the file, or None where there is no readable one (keep the table that was read before)."""
    value = read_json(path)
    if value is None or value.get("format") != _FORMAT:
        return None
    table: dict[str, Route] = {}
    try:
        for name, route in value["deployments"].items():
            table[str(name)] = _to_route(route).permitted()
    except (KeyError, TypeError, AttributeError, ValueError, FairleadError):
        return None
    return table


def _to_route(value: Any) -> Route:
    return Route(
        residency=str(value["residency"]),
        endpoints=tuple(
            Endpoint(
                region=RegionId(item["region"]),
                url=str(item["url"]),
                bundle_digest=str(item["bundle_digest"]),
                order=int(item["order"]),
            )
            for item in value["endpoints"]
        ),
    )
