"""Private regions in the record: clouds and edge sites of one's own, applied as documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog.catalog import bundled_tables
from fairlead.catalog.private import read_private_region
from fairlead.core.db import Database
from fairlead.core.errors import AlreadyExists, Conflict, JsonValue, RegionNotFound
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.revisions import require_revision
from fairlead.registry.tables import LocationRow, WorkspaceRow
from fairlead.serving.catalog_state import CatalogState
from fairlead.serving.tables import DeploymentRegionRow
from fairlead.serving.tables_catalog import PrivateRegionRow
from fairlead.serving.tables_images import ContainerRegistryRow


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedRegion:
    """A private region as it was applied; `spec` is its document."""

    region: str
    jurisdiction: str
    spec: Mapping[str, JsonValue]
    revision: int
    updated_by: str
    updated_at: datetime


class PrivateRegions:
    """Applies and removes private regions."""

    def __init__(self, database: Database, clock: Clock, *, state: CatalogState) -> None:
        self._database = database
        self._clock = clock
        self._state = state

    def get(self, caller: Caller, region: str) -> AppliedRegion:
        """One private region of the caller's workspace, as it was applied.

        Raises:
            RegionNotFound: if the workspace has none of that id.
        """
        with self._database.read() as session:
            return _to_applied(_find(session, caller, region))

    def put(
        self, caller: Caller, region: str, document: Mapping[str, JsonValue], *, expected_revision: int | None
    ) -> AppliedRegion:
        """Apply a document: add the region or replace it. Without an expected revision it replaces what is there.

        Raises:
            InvalidInput: naming the member that is wrong.
            AlreadyExists: if another workspace has a region of that id.
            StaleRevision: if it is not at the expected revision (0: not there).
            Conflict: if it would come under another jurisdiction while something is there.
        """
        found = read_private_region(region, document, owner=caller.workspace_id, tables=bundled_tables())
        with self._database.write() as session:
            session.get(WorkspaceRow, caller.workspace_id, with_for_update=True)
            row = session.scalars(select(PrivateRegionRow).where(PrivateRegionRow.region == region)).one_or_none()
            if row is not None and row.workspace_id != caller.workspace_id:
                raise AlreadyExists(f"The id {region!r} is taken.", hint="Choose another name for the region.")
            _check_revision(region, 0 if row is None else row.revision, expected_revision)
            before = None if row is None else dict(row.document)
            if row is None:
                row = PrivateRegionRow(workspace_id=caller.workspace_id, region=region, revision=0)
                session.add(row)
            elif _to_applied(row).jurisdiction != found.region.jurisdiction:
                _require_unused(session, caller, region, "be under another jurisdiction")
            row.document, row.revision = dict(document), row.revision + 1
            row.updated_by, row.updated_at = caller.principal, self._clock.now()
            session.flush()
            facts: dict[str, JsonValue] = {"revision": row.revision, "before": before, "after": dict(document)}
            audit.record(session, caller, self._clock, action="catalog.region-apply", subject=region, facts=facts)
            applied = _to_applied(row)
        self._state.follow()
        return applied

    def delete(self, caller: Caller, region: str, *, expected_revision: int | None) -> None:
        """Forget a private region.

        Raises:
            RegionNotFound: if the workspace has none of that id.
            StaleRevision: if it is not at the expected revision.
            Conflict: while it has a location, a container registry or a deployment.
        """
        with self._database.write() as session:
            row = _find(session, caller, region, lock=True)
            _check_revision(region, row.revision, expected_revision)
            _require_unused(session, caller, region, "go")
            facts: dict[str, JsonValue] = {"revision": row.revision, "before": dict(row.document)}
            session.delete(row)
            audit.record(session, caller, self._clock, action="catalog.region-delete", subject=region, facts=facts)
        self._state.follow()


def _require_unused(session: Session, caller: Caller, region: str, what: str) -> None:
    location = session.scalars(
        select(LocationRow.name)
        .where(LocationRow.workspace_id == caller.workspace_id, LocationRow.region == region)
        .where(LocationRow.state != "RETIRED")
        .limit(1)
    ).first()
    if location is not None:
        raise Conflict(
            f"{region} cannot {what}: the location {location!r} is there.",
            hint=f"Retire it first: fairlead location retire {location}",
        )
    registry = session.scalars(
        select(ContainerRegistryRow.name)
        .where(ContainerRegistryRow.workspace_id == caller.workspace_id, ContainerRegistryRow.region == region)
        .limit(1)
    ).first()
    if registry is not None:
        raise Conflict(
            f"{region} cannot {what}: the container registry {registry!r} is there.",
            hint=f"Forget it first: fairlead images registry remove {registry}",
        )
    deployed = select(DeploymentRegionRow.region).where(
        DeploymentRegionRow.workspace_id == caller.workspace_id, DeploymentRegionRow.region == region
    )
    if session.scalars(deployed.limit(1)).first() is not None:
        raise Conflict(
            f"{region} cannot {what}: a deployment runs there.", hint="See what does: fairlead deploy status"
        )


def _find(session: Session, caller: Caller, region: str, *, lock: bool = False) -> PrivateRegionRow:
    row = session.get(PrivateRegionRow, (caller.workspace_id, region[:63]), with_for_update=lock)
    if row is None:
        raise RegionNotFound(
            f"The workspace has no private region {region[:80]!r}.",
            hint="List them: fairlead catalog regions --private",
            region=region[:80],
        )
    return row


def _check_revision(region: str, actual: int, expected: int | None) -> None:
    require_revision(f"The region {region!r}", actual, expected, hint=f"Look again: fairlead catalog show {region}")


def _to_applied(row: PrivateRegionRow) -> AppliedRegion:
    read = read_private_region(row.region, row.document, owner=row.workspace_id, tables=bundled_tables())
    return AppliedRegion(
        region=row.region,
        jurisdiction=read.region.jurisdiction,
        spec=dict(row.document),
        revision=row.revision,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )
