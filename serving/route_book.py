"""Publishes the routing table from the record."""

from __future__ import annotations

import fcntl
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.ids import RegionId
from fairlead.serving.desired import ACTIVE, STOPPING, regions_of, route_name
from fairlead.serving.processes import read_json
from fairlead.serving.routing import Endpoint, Route, write_table
from fairlead.serving.tables import DeploymentRegionRow, DeploymentRow


class RouteBook:
    """Publishes the routing table from the record. Publishing is safe at any time, from any process of the machine."""

    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self.path = path

    @property
    def has_endpoints(self) -> bool:
        """Whether the last table that was written names any endpoint. Cheap."""
        state = read_json(self.path)
        return state is not None and bool(state["deployments"])

    def follow(self) -> None:
        """Publish what changed in the record beside what runs: shares, and the order of regions. Cheap.

        Only where there is a table already: nobody reads one in a process that runs nothing.
        """
        if self.path.exists():
            self.publish(unless_same=True)

    def publish(self, *, unless_same: bool = False) -> None:
        """Write the table of every deployment that runs somewhere."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever is last to write has read last.
        with self.path.with_suffix(".lock").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with self._database.read() as session:
                rows = session.scalars(select(DeploymentRow).where(DeploymentRow.state == ACTIVE)).all()
                table = {route_name(row): _route(session, row) for row in rows}
            named = {name: route for name, route in table.items() if route.endpoints}
            write_table(self.path, named, unless_same=unless_same)


def _route(session: Session, row: DeploymentRow) -> Route:
    regions = [each for each in regions_of(session, row) if each.state != STOPPING]
    return Route(residency=row.residency, endpoints=tuple(end for each in regions for end in _endpoints(each)))


def _endpoints(row: DeploymentRegionRow) -> list[Endpoint]:
    """The endpoints of a region: the one that serves and, while traffic moves, the former one with the rest of it."""
    if row.url is None:
        return []
    workload = row.workload or {}
    former = workload.get("former")
    beside = None if former is None else row.former_url
    percent = 100 if beside is None else int(workload.get("traffic_percent", 100))
    region, shares = RegionId(row.region), row.shares
    found = [
        Endpoint(
            region=region,
            url=row.url,
            bundle_digest=row.bundle_digest or "",
            order=row.position,
            weight=percent,
            shares=shares,
            identity=row.identity,
        )
    ]
    if former is not None and beside is not None:
        found.append(
            Endpoint(
                region=region,
                url=beside,
                bundle_digest=former["bundle_digest"],
                order=row.position,
                weight=100 - percent,
                shares=shares,
                identity=row.former_identity,
            )
        )
    return found
