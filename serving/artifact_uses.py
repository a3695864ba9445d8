"""Which model versions need which bundles, for the policies that say where artifacts should be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.registry.replica_policies import ArtifactUse
from fairlead.serving.tables import BundleRow


def bundle_uses(session: Session, workspace_id: str) -> Iterable[ArtifactUse]:
    """The bundles of every model version."""
    query = select(BundleRow.residency, BundleRow.digest, BundleRow.model_id, BundleRow.version).where(
        BundleRow.workspace_id == workspace_id, BundleRow.digest.is_not(None)
    )
    return [
        (residency, cast("str", digest), model_id, version)
        for residency, digest, model_id, version in session.execute(query)
    ]
