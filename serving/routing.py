"""The routing table: which endpoints a deployment has, and in which order a request may try them.

The table is a JSON file that the deploy side replaces atomically and the gateway reads again when it changed, so that
requests are answered also while everything else is down. An endpoint outside its deployment's residency class is
dropped when the table is read: the gateway trusts the catalog for that, not the file. Of private regions, which are in
no catalog that it could read by itself, the file holds the documents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from fairlead.catalog import load_catalog
from fairlead.catalog.catalog import bundled_tables
from fairlead.catalog.private import read_private_region, with_private_regions
from fairlead.catalog.residency import parse_residency, permits
from fairlead.core.errors import FairleadError
from fairlead.core.ids import RegionId
from fairlead.serving.processes import read_json, write_atomically

_FORMAT = 1
Chosen = TypeVar("Chosen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint of a deployment. The lowest `order` is tried first where nothing else decides.

    `weight` is its share, in percent, of what its region is given: less than 100 while traffic moves from one revision
    to the next. `shares` hold, by area, the share of that area's requests that a placement gives the region; None
    where no placement does. `identity` is what it says of itself, None for one that says nothing.
    """

    region: RegionId
    url: str
    bundle_digest: str
    order: int = 0
    weight: int = 100
    shares: Mapping[str, float] | None = None
    identity: str | None = None


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

    def in_order(
        self,
        *,
        prefer: str | None = None,
        area: str | None = None,
        draw: Callable[[str], float] = lambda _: 0.0,
    ) -> list[Endpoint]:
        """The endpoints from first to last choice.

        First the region asked for, then the one that the placement's shares of `area` give this request, then the
        nearest to `area`, then by order. Within a region the revision that its weight gives the request comes first,
        and one without any share of the traffic last of all. `draw` gives a number from 0 (included) to 1 for a
        purpose; the same numbers give the same order.

        Raises:
            UnknownArea: if the catalog has no such area.
        """
        catalog = load_catalog()
        if area is not None:
            catalog.area(area)
        shared = None if area is None else _drawn(self._shares(area), draw("region"))
        revision = draw("revision")

        def key(endpoint: Endpoint) -> tuple[bool, bool, bool, float, int, str, bool]:
            distance = 0.0 if area is None else catalog.area_round_trip(area, endpoint.region).value
            here = [each for each in self.endpoints if each.region == endpoint.region]
            chosen = _drawn([(each, each.weight) for each in here], revision)
            return (
                endpoint.weight == 0,
                endpoint.region != prefer,
                endpoint.region != shared,
                distance,
                endpoint.order,
                endpoint.region,
                chosen is not None and endpoint is not chosen,
            )

        return sorted(self.endpoints, key=key)

    def _shares(self, area: str) -> list[tuple[RegionId, float]]:
        shares = {each.region: (each.shares or {}).get(area, 0.0) for each in self.endpoints}
        return sorted(shares.items())


def _drawn(choices: Sequence[tuple[Chosen, float]], number: float) -> Chosen | None:
    """The choice in whose part of the whole a number from 0 to 1 falls; None where nothing has a part."""
    left = number * sum(part for _, part in choices)
    last: Chosen | None = None
    for choice, part in choices:
        if part > 0:
            last = choice
            if left < part:
                break
            left -= part
    return last


RoutingTable = Mapping[str, Route]
"""Routes by deployment name."""


def write_table(path: Path, table: RoutingTable, *, unless_same: bool = False) -> None:
    """Replace the file, with `unless_same` only by another one; a reader sees the old table or the new one."""
    routes = {
        name: {"residency": route.residency, "endpoints": [asdict(endpoint) for endpoint in route.endpoints]}
        for name, route in table.items()
    }
    private = load_catalog().tables.private_regions
    used = {endpoint.region for route in table.values() for endpoint in route.endpoints}
    documents = {
        region: {"owner": each.region.owner, "document": dict(each.document)}
        for region, each in private.items()
        if region in used
    }
    written = {"format": _FORMAT, "deployments": routes, "private_regions": documents}
    if not unless_same or json.loads(json.dumps(written)) != read_json(path):
        write_atomically(path, written)


def read_table(path: Path) -> dict[str, Route] | None:
    """The permitted part of the file, or None where there is no readable one (keep the table that was read before)."""
    value = read_json(path)
    if value is None or value.get("format") != _FORMAT:
        return None
    table: dict[str, Route] = {}
    try:
        _know_private_regions(value.get("private_regions") or {})
        for name, route in value["deployments"].items():
            table[str(name)] = _to_route(route).permitted()
    except (KeyError, TypeError, AttributeError, ValueError, FairleadError):
        return None
    return table


def _know_private_regions(documents: Mapping[str, Any]) -> None:
    """Have the process's catalog know the private regions that endpoints are in; a gateway reads no database."""
    if documents.keys() <= load_catalog().tables.private_regions.keys():
        return
    bundled = bundled_tables()
    regions = [
        read_private_region(region, each["document"], owner=str(each["owner"]), tables=bundled)
        for region, each in documents.items()
    ]
    load_catalog().adopt(with_private_regions(bundled, regions))


def _to_route(value: Any) -> Route:
    return Route(
        residency=str(value["residency"]),
        endpoints=tuple(
            Endpoint(
                region=RegionId(item["region"]),
                url=str(item["url"]),
                bundle_digest=str(item["bundle_digest"]),
                order=int(item["order"]),
                # A table that an older release wrote has none of these.
                weight=int(item.get("weight", 100)),
                shares=item.get("shares"),
                identity=item.get("identity"),
            )
            for item in value["endpoints"]
        ),
    )
