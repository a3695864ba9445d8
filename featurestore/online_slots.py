"""The snapshots that regions keep materialized beside the newest, so that who goes back finds its features at once.

A model version that pins a snapshot needs that snapshot's version of its feature service: while the version holds an
environment, or held it before the present holder, each region that may serve the model keeps the snapshot in a slot of
its own. Earlier holders that an environment can be rolled back to are served from the newest, like others, or from a
slot where that is of another version of the service by now. A slot that nobody needs any longer is taken away by the
region's worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from fairlead.catalog import Residency, load_catalog, permits
from fairlead.featurestore.online_desired import (
    Region,
    insert_unless_there,
    online_regions,
    require_materialization,
    wanted_snapshot,
)
from fairlead.featurestore.online_engines import StoreName
from fairlead.featurestore.releases import releasable
from fairlead.featurestore.snapshot_views import SnapshotView, snapshot_view
from fairlead.featurestore.tables import OnlineIntentRow, OnlineStateRow, SnapshotRow
from fairlead.featurestore.tables_online import LEAVING, OnlineSlotRow
from fairlead.registry.rollback import RECENT_HOLDERS
from fairlead.registry.tables import AliasMoveRow, AliasRow, EnvironmentRow, ModelVersionRow, RegisteredModelRow


def derive_online_slots(session: Session, now: datetime) -> None:
    """Bring the slots of every region up to date, and require the work that they lack."""
    wanted = _wanted_slots(session)
    rows = {
        (row.workspace_id, row.service, row.region, row.slot): row for row in session.scalars(select(OnlineSlotRow))
    }
    for key, found in wanted.items():
        row = rows.get(key) or _insert(session, key, found, now)
        if row.state == LEAVING:
            # What is there is looked at again.
            row.state, row.updated_at = "WAITING", now
        if row.state != "READY":
            require_materialization(session, found, row, now, slot=row.slot)
    for key in rows.keys() - wanted.keys():
        row = rows[key]
        if row.state != LEAVING:
            row.state, row.updated_at = LEAVING, now
        require_materialization(session, None, row, now, slot=row.slot)


def store_for(session: Session, version: ModelVersionRow, region: str) -> StoreName | None:
    """The store that a model version's endpoints read in a region; None until something is served there.

    That is the newest, unless it has another version of the feature service than the model was trained with and the
    region keeps the snapshot that the model pins: then that one.
    """
    key = (version.workspace_id, version.feature_service or "", region)
    newest = session.get(OnlineStateRow, key)
    has_newest = newest is not None and newest.served_snapshot is not None
    name = StoreName(workspace_id=key[0], service=key[1], region=region)
    kept = session.get(OnlineSlotRow, (*key, pinned_snapshot(session, version) or ""))
    if kept is not None and kept.served_snapshot is not None:
        served = newest.served_snapshot if newest is not None else None
        query = (
            select(SnapshotRow.service_digest)
            .distinct()
            .where(SnapshotRow.workspace_id == version.workspace_id, SnapshotRow.digest.in_([served, kept.slot]))
        )
        if not has_newest or len(session.scalars(query).all()) > 1:
            return replace(name, slot=kept.slot)
    return name if has_newest else None


def pinned_snapshot(session: Session, version: ModelVersionRow) -> str | None:
    """The digest of the snapshot that a model version needs online.

    Of one that pins a version of its feature service and no data, the newest snapshot of that version.
    """
    if version.snapshot_digest is not None or version.feature_service_digest is None:
        return version.snapshot_digest
    query = (
        select(SnapshotRow.digest)
        .where(
            SnapshotRow.workspace_id == version.workspace_id,
            SnapshotRow.service == version.feature_service,
            SnapshotRow.service_digest == version.feature_service_digest,
            SnapshotRow.state == "READY",
        )
        .where(releasable())
        .order_by(SnapshotRow.as_of.desc(), SnapshotRow.id.desc())
    )
    return session.scalars(query.limit(1)).first()


@dataclass(slots=True)
class _Need:
    """Who needs a snapshot: the residency classes of the models, and whether it is kept whatever is the newest."""

    residencies: set[str] = field(default_factory=set[str])
    is_always: bool = False


def _needed_snapshots(session: Session) -> dict[tuple[str, str], _Need]:
    """The snapshots that holders of environments need, by workspace and digest."""
    holders = _holders(session)
    pinning = (
        select(ModelVersionRow)
        .join(
            RegisteredModelRow,
            and_(
                RegisteredModelRow.workspace_id == ModelVersionRow.workspace_id,
                RegisteredModelRow.id == ModelVersionRow.model_id,
            ),
        )
        .where(
            ModelVersionRow.feature_service.is_not(None),
            ModelVersionRow.deleted_at.is_(None),
            RegisteredModelRow.deleted_at.is_(None),
        )
    )
    needed: dict[tuple[str, str], _Need] = {}
    for version in session.scalars(pinning):
        since = holders.get((version.workspace_id, version.model_id, version.version))
        digest = None if since is None else pinned_snapshot(session, version)
        if since is not None and digest is not None:
            need = needed.setdefault((version.workspace_id, digest), _Need())
            need.residencies.add(version.residency)
            need.is_always |= since <= 1 and version.snapshot_digest is not None
    return needed


def _holders(session: Session) -> dict[tuple[str, str, int], int]:
    """Which versions hold an environment, or are a way back; by how many others have held one since at least."""
    environment = and_(EnvironmentRow.workspace_id == AliasRow.workspace_id, EnvironmentRow.name == AliasRow.name)
    held = select(AliasRow).join(EnvironmentRow, environment).where(AliasRow.version.is_not(None))
    in_order = {(row.workspace_id, row.model_id, row.name): [row.version or 0] for row in session.scalars(held)}
    moves = select(
        AliasMoveRow.workspace_id, AliasMoveRow.model_id, AliasMoveRow.name, AliasMoveRow.to_version
    ).order_by(AliasMoveRow.revision.desc())
    for workspace_id, model, name, version in session.execute(moves):
        versions = in_order.get((workspace_id, model, name), [])
        if version is not None and 0 < len(versions) <= RECENT_HOLDERS and version not in versions:
            versions.append(version)
    found: dict[tuple[str, str, int], int] = {}
    for (workspace_id, model, _), versions in in_order.items():
        for since, version in enumerate(versions):
            key = (workspace_id, model, version)
            found[key] = min(since, found.get(key, since))
    return found


def _wanted_slots(session: Session) -> Mapping[tuple[str, str, str, str], SnapshotView]:
    wanted: dict[tuple[str, str, str, str], SnapshotView] = {}
    regions: dict[str, frozenset[Region]] = {}
    for (workspace_id, digest), need in _needed_snapshots(session).items():
        query = select(SnapshotRow).where(
            SnapshotRow.workspace_id == workspace_id, SnapshotRow.digest == digest, SnapshotRow.state == "READY"
        )
        snapshot = session.scalars(query.order_by(SnapshotRow.id)).first()
        if snapshot is None or not (need.is_always or _is_of_another_version(session, snapshot)):
            continue
        if workspace_id not in regions:
            regions[workspace_id] = online_regions(session, workspace_id)
        intent = session.get(OnlineIntentRow, (workspace_id, snapshot.service))
        found = snapshot_view(session, snapshot)
        for region in regions[workspace_id]:
            jurisdiction = load_catalog().region(region).jurisdiction
            may_serve = any(permits(Residency(each), jurisdiction) for each in need.residencies)
            is_asked = intent is None or intent.regions is None or region in intent.regions
            if may_serve and is_asked and found.permitted(jurisdiction):
                wanted[(workspace_id, snapshot.service, region, digest)] = found
    return wanted


def _is_of_another_version(session: Session, snapshot: SnapshotRow) -> bool:
    """Whether what is served from the service is of another version of it than a snapshot."""
    served = wanted_snapshot(session, snapshot.workspace_id, snapshot.service)
    return served is not None and served.service_digest != snapshot.service_digest


def _insert(session: Session, key: tuple[str, str, str, str], found: SnapshotView, now: datetime) -> OnlineSlotRow:
    workspace_id, service, region, slot = key
    missing = list(found.missing(load_catalog().region(region).jurisdiction))
    values = {"workspace_id": workspace_id, "service": service, "region": region, "slot": slot}
    fresh = {"state": "WAITING", "missing_views": missing, "updated_at": now}
    insert_unless_there(session, OnlineSlotRow, values | fresh)
    return session.get_one(OnlineSlotRow, (workspace_id, service, region, slot))
