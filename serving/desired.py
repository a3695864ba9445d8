"""What a deployment should run now, read from its row, its regions' rows and the pointer that it follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.registry.identity import DEFAULT_WORKSPACE
from fairlead.registry.tables import AliasRow, ModelVersionRow, RegisteredModelRow
from fairlead.serving.bundles import READY, find_bundle
from fairlead.serving.tables import BundleRow, DeploymentRegionRow, DeploymentRow

ACTIVE, DELETING = "ACTIVE", "DELETING"
WAITING, DEPLOYING, RUNNING, FAILED, STOPPING = "WAITING", "DEPLOYING", "RUNNING", "FAILED", "STOPPING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The version that a deployment should run now; `revision` is that of the environment's pointer, or 0."""

    version: ModelVersionRow | None
    bundle: BundleRow | None
    revision: int


def route_name(row: DeploymentRow) -> str:
    """What the gateway calls a deployment; names hold no colon, so workspaces never collide."""
    return row.name if row.workspace_id == DEFAULT_WORKSPACE else f"{row.workspace_id}:{row.name}"


def desired_of(session: Session, model: RegisteredModelRow, environment: str | None, version: int | None) -> Desired:
    """What should run now: the environment's pointer, or the fixed version; its bundle, if there is one."""
    number, revision = version, 0
    if environment is not None:
        alias = session.get(AliasRow, (model.workspace_id, model.id, environment))
        number, revision = (None, 0) if alias is None else (alias.version, alias.revision)
    row = None if number is None else session.get(ModelVersionRow, (model.workspace_id, model.id, number))
    bundle = find_bundle(session, model, row) if row is not None and row.state == READY else None
    return Desired(version=row, bundle=bundle, revision=revision)


def regions_of(session: Session, row: DeploymentRow, *, lock: bool = False) -> Sequence[DeploymentRegionRow]:
    """The regions of a deployment, in their order; with `lock`, as they are until the transaction ends."""
    query = (
        select(DeploymentRegionRow)
        .where(DeploymentRegionRow.workspace_id == row.workspace_id, DeploymentRegionRow.deployment_id == row.id)
        .order_by(DeploymentRegionRow.position, DeploymentRegionRow.region)
    )
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return session.scalars(query).all()
