"""Tells the record what serving has of it: `DeploymentIndex` and `BundleIndex`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, and_, select

from fairlead.core.ports import SmokeTestFacts
from fairlead.registry.tables import RegisteredModelRow
from fairlead.serving.bundle_tests import PASSED
from fairlead.serving.bundles import READY
from fairlead.serving.desired import DELETING
from fairlead.serving.tables import BundleRow, DeploymentRow
from fairlead.serving.tables_bundles import BundleTestRow

if TYPE_CHECKING:
    from fairlead.core.db import Database


class FollowingDeployments:
    """The deployments that follow an environment's pointer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def following(self, workspace_id: str, model: str, environment: str) -> Sequence[str]:
        """Their names, in order. Reads on a connection of its own, so it waits for nobody."""
        return self._names(workspace_id, model, DeploymentRow.environment == environment)

    def pinned(self, workspace_id: str, model: str, version: int | None) -> Sequence[str]:
        """The names of those of one version, or of any. Reads on a connection of its own, so it waits for nobody."""
        is_of = DeploymentRow.version.is_not(None) if version is None else DeploymentRow.version == version
        return self._names(workspace_id, model, is_of)

    def _names(self, workspace_id: str, model: str, is_of: ColumnElement[bool]) -> Sequence[str]:
        query = (
            select(DeploymentRow.name)
            .join(
                RegisteredModelRow,
                and_(
                    RegisteredModelRow.workspace_id == DeploymentRow.workspace_id,
                    RegisteredModelRow.id == DeploymentRow.model_id,
                ),
            )
            .where(
                DeploymentRow.workspace_id == workspace_id,
                RegisteredModelRow.name == model,
                is_of,
                DeploymentRow.state != DELETING,
            )
            .order_by(DeploymentRow.name)
        )
        with self._database.read() as session:
            return tuple(session.scalars(query))


class ReadyBundles:
    """The bundles that model versions were built into."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def bundle_of(self, workspace_id: str, model_id: str, version: int) -> str | None:
        """The digest of the newest READY one. Reads on a connection of its own, so it waits for nobody."""
        with self._database.read() as session:
            return session.scalar(_newest_ready(BundleRow.digest, workspace_id, model_id, version))

    def smoke_test_of(self, workspace_id: str, model_id: str, version: int) -> SmokeTestFacts | None:
        """The newest test of that bundle that has finished. Reads on a connection of its own too."""
        newest = _newest_ready(BundleRow.id, workspace_id, model_id, version)
        query = (
            select(BundleTestRow)
            .where(
                BundleTestRow.workspace_id == workspace_id,
                BundleTestRow.bundle_id == newest.scalar_subquery(),
                BundleTestRow.finished_at.is_not(None),
            )
            .order_by(BundleTestRow.id.desc())
            .limit(1)
        )
        with self._database.read() as session:
            row = session.scalars(query).one_or_none()
            if row is None or row.finished_at is None:
                return None
            return SmokeTestFacts(
                is_passed=row.state == PASSED,
                answered=row.answered or 0,
                compared=row.compared or 0,
                finished_at=row.finished_at,
            )


def _newest_ready(column: Any, workspace_id: str, model_id: str, version: int) -> Select[Any]:
    """A column of the newest READY bundle of a version."""
    return (
        select(column)
        .where(
            BundleRow.workspace_id == workspace_id,
            BundleRow.model_id == model_id,
            BundleRow.version == version,
            BundleRow.state == READY,
        )
        .order_by(BundleRow.id.desc())
        .limit(1)
    )
