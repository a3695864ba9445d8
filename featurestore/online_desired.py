"""Which snapshot each region should serve of each service, as rows, and the work that closes the gap."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Session

from fairlead.catalog import UNRESTRICTED, load_catalog
from fairlead.featurestore.freshness import forget_freshness
from fairlead.featurestore.online_engines import NEWEST, StoreName
from fairlead.featurestore.replica_rows import ArtifactName, verified_regions
from fairlead.featurestore.snapshot_views import SnapshotView, snapshot_view
from fairlead.featurestore.snapshots import find_snapshot, newest_snapshot
from fairlead.featurestore.tables import OnlineIntentRow, OnlineStateRow, SnapshotRow
from fairlead.featurestore.tables_online import LEAVING, OnlineSlotRow
from fairlead.registry import work
from fairlead.registry.locations import all_locations
from fairlead.registry.tables import ModelVersionRow

MATERIALIZE = "materialize"
"""The work of making one region serve one service's wanted snapshot; its subject is `online_subject`."""

Region = str


def online_subject(service: str, region: str, slot: str = NEWEST) -> str:
    """The subject of the work of materializing a service in a region."""
    return f"{region}/{service}@{slot}" if slot else f"{region}/{service}"


def read_subject(workspace_id: str, subject: str) -> StoreName:
    """The store that such a piece of work is about."""
    region, _, rest = subject.partition("/")
    service, _, slot = rest.partition("@")
    return StoreName(workspace_id=workspace_id, service=service, region=region, slot=slot)


def online_regions(session: Session, workspace_id: str) -> frozenset[Region]:
    """The regions that serve a workspace's features as far as residency lets them."""
    # Until a location is retired, what is served from its region stays up to date.
    return frozenset(
        location.region for location in all_locations(session, workspace_id) if location.state in {"ACTIVE", "DRAINING"}
    )


def derive_online_states(session: Session, now: datetime) -> None:
    """Bring each region's wanted snapshot up to date, and require the work where it is not served yet."""
    wanted: set[tuple[str, str, str]] = set()
    settled: set[tuple[str, str]] = set()
    for (workspace_id, service), intent in _wanted_services(session).items():
        snapshot = wanted_snapshot(session, workspace_id, service)
        if snapshot is not None:
            settled.add((workspace_id, service))
            found = snapshot_view(session, snapshot)
            regions = set(online_regions(session, workspace_id))
            if intent is not None and intent.regions is not None:
                regions &= set(intent.regions)
            for region in sorted(regions):
                row = _desired_state(session, found, (workspace_id, service, region), now)
                if row is not None:
                    wanted.add((workspace_id, service, region))
                    if row.state != "READY":
                        require_materialization(session, found, row, now)
    for row in session.scalars(select(OnlineStateRow)):
        if (row.workspace_id, row.service) in settled and (row.workspace_id, row.service, row.region) not in wanted:
            if row.state != LEAVING:
                # Nobody is sent there from now on: what is no longer kept up would be read as if it were.
                row.state, row.served_snapshot, row.updated_at = LEAVING, None, now
                forget_freshness(session, row)
            require_materialization(session, None, row, now)


def _desired_state(
    session: Session, found: SnapshotView, key: tuple[str, str, str], now: datetime
) -> OnlineStateRow | None:
    """The row of a region with what it should serve, or None where no view of the service may be there."""
    workspace_id, service, region = key
    jurisdiction = load_catalog().region(region).jurisdiction
    if not found.permitted(jurisdiction):
        return None
    missing = list(found.missing(jurisdiction))
    fresh = {"state": "WAITING", "wanted_snapshot": found.digest, "missing_views": missing, "updated_at": now}
    values = {"workspace_id": workspace_id, "service": service, "region": region}
    insert_unless_there(session, OnlineStateRow, values | fresh)
    row = session.get_one(OnlineStateRow, key)
    if row.wanted_snapshot != found.digest or row.state == LEAVING:
        for name, value in fresh.items():
            setattr(row, name, value)
    return row


def insert_unless_there(session: Session, table: type[DeclarativeBase], values: Mapping[str, Any]) -> None:
    """Insert a row, which another deriver, or a request, may be inserting as well."""
    dialect: Any = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    session.execute(dialect.insert(table).values(**values).on_conflict_do_nothing())


def require_materialization(
    session: Session,
    found: SnapshotView | None,
    row: OnlineStateRow | OnlineSlotRow,
    now: datetime,
    *,
    slot: str = NEWEST,
) -> None:
    """Ask for the work once the region's own replicas of all its views are verified; None: the store is to go."""
    wanted: list[ArtifactName] = []
    if found is not None:
        wanted = [part.artifact for part in found.permitted(load_catalog().region(row.region).jurisdiction)]
    is_here = all(row.region in verified_regions(session, artifact) for artifact in wanted)
    state = row.state if found is None else "PENDING" if is_here else "WAITING"
    if row.state != state:
        row.state, row.updated_at = state, now
    if is_here:
        classes = [artifact.residency for artifact in wanted] or [UNRESTRICTED]
        work.require_work(
            session,
            workspace_id=row.workspace_id,
            residency=max(classes, key=lambda each: (each != UNRESTRICTED, each)),
            kind=MATERIALIZE,
            subject=online_subject(row.service, row.region, slot),
            region=row.region,
            priority=work.USUAL,
            now=now,
        )


def _wanted_services(session: Session) -> Mapping[tuple[str, str], OnlineIntentRow | None]:
    """Every service that is wanted online, with what was asked for it, if anything was."""
    pinned = select(ModelVersionRow.workspace_id, ModelVersionRow.feature_service).where(
        ModelVersionRow.feature_service.is_not(None), ModelVersionRow.state != "FAILED"
    )
    wanted: dict[tuple[str, str], OnlineIntentRow | None] = {
        (workspace_id, service): None for workspace_id, service in session.execute(pinned.distinct()) if service
    }
    return wanted | {(row.workspace_id, row.service): row for row in session.scalars(select(OnlineIntentRow))}


def wanted_snapshot(session: Session, workspace_id: str, service: str) -> SnapshotRow | None:
    """The snapshot that regions should serve of a service: the one that was asked for, or the newest."""
    intent = session.get(OnlineIntentRow, (workspace_id, service))
    if intent is not None and intent.snapshot_digest is not None:
        return find_snapshot(session, workspace_id, intent.snapshot_digest)
    return newest_snapshot(session, workspace_id, service)
