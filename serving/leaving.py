"""Leaving a region whose last location is being retired: what is there goes on elsewhere, or says what would move it.

A deployment that runs in other regions too leaves by itself, as soon as one of those answers. One that has no other
region is moved by nobody: where it should run is its owner's to say, and the retirement waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.db import Database
from fairlead.core.ports import RegionUser
from fairlead.registry import audit
from fairlead.registry.identity import system_caller
from fairlead.registry.locations import all_locations, traffic_locations
from fairlead.registry.tables import RegisteredModelRow
from fairlead.serving.desired import ACTIVE, RUNNING, STOPPING, regions_of
from fairlead.serving.tables import DeploymentRegionRow, DeploymentRow


def draining_regions(session: Session, workspace_id: str) -> frozenset[str]:
    """The regions that have a location that drains, and none that stays."""
    locations = all_locations(session, workspace_id)
    staying = {each.region for each in locations if each.takes_traffic}
    return frozenset(each.region for each in locations if each.state == "DRAINING") - staying


def leave(session: Session, row: DeploymentRow, regions: Sequence[DeploymentRegionRow], now: datetime) -> list[str]:
    """Stop a deployment in regions that drain, if it answers in another one; the regions that it leaves so."""
    draining = draining_regions(session, row.workspace_id)
    leaving = [each for each in regions if each.region in draining and each.state != STOPPING]
    answering = [each.region for each in regions if each.region not in draining and each.state == RUNNING]
    if not answering:
        return []
    for each in leaving:
        each.state, each.updated_at = STOPPING, now
        audit.record_at(
            session,
            system_caller(row.workspace_id, "worker"),
            now,
            action="deployment.leave",
            subject=row.name,
            residency=row.residency,
            facts={"deployment": row.id, "region": each.region, "goes_on_in": list(answering)},
        )
    return [each.region for each in leaving]


class RegionDeployments:
    """The deployments that run in a region."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database = database
        self._catalog = catalog

    def used_by(self, workspace_id: str, region: str) -> Sequence[RegionUser]:
        """`deployment NAME` for each, in order. Reads on a connection of its own, so it waits for nobody."""
        query = (
            select(DeploymentRow, DeploymentRegionRow.state)
            .join(
                DeploymentRegionRow,
                and_(
                    DeploymentRegionRow.workspace_id == DeploymentRow.workspace_id,
                    DeploymentRegionRow.deployment_id == DeploymentRow.id,
                ),
            )
            .where(DeploymentRow.workspace_id == workspace_id, DeploymentRegionRow.region == region)
            .order_by(DeploymentRow.name)
        )
        with self._database.read() as session:
            return tuple(self._user(session, row, region, state) for row, state in session.execute(query).all())

    def _user(self, session: Session, row: DeploymentRow, region: str, state: str) -> RegionUser:
        name = f"deployment {row.name}"
        if row.state != ACTIVE or state == STOPPING:
            return RegionUser(name=name)
        avoided = draining_regions(session, row.workspace_id) | {region}
        elsewhere = [each.region for each in regions_of(session, row) if each.state != STOPPING]
        goes_on_in = tuple(each for each in elsewhere if each not in avoided)
        command = None if goes_on_in else self._command(session, row, region, avoided)
        return RegionUser(name=name, goes_on_in=goes_on_in, command=command)

    def _command(self, session: Session, row: DeploymentRow, region: str, avoided: frozenset[str]) -> str:
        model = session.get_one(RegisteredModelRow, (row.workspace_id, row.model_id))
        permitted = {
            each.region
            for each in traffic_locations(session, row.workspace_id)
            if each.region not in avoided and each.permits(model.residency, model.regions)
        }
        if not permitted:
            return "fairlead location add NAME --region REGION --url URL, in a region that its data may be in"
        nearest = min(sorted(permitted), key=lambda each: self._catalog.round_trip(region, each).value)
        what = f"{model.name}/{row.version}" if row.environment is None else f"{model.name}@{row.environment}"
        return f"fairlead deploy apply {what} --name {row.name} --region {nearest}"
