"""Which views and services the subject of an erasure may have rows in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from fairlead.featurestore.definitions import SERVICE, VIEW
from fairlead.featurestore.tables import FeatureVersionRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.featurestore.tables_erasures import ErasureRow


class Concerned:
    """Views and services in any version whose keys include those that name the subject."""

    def __init__(self, session: Session, erasure: ErasureRow) -> None:
        self._session = session
        self._erasure = erasure
        query = select(FeatureVersionRow).where(
            FeatureVersionRow.workspace_id == erasure.workspace_id, FeatureVersionRow.kind == VIEW
        )
        keys = set(erasure.keys)
        versions = session.scalars(query).all()
        self._versions = {
            (row.name, row.digest) for row in versions if keys <= {key["name"] for key in row.content["keys"]}
        }
        self._views = {name for name, _ in self._versions}

    def view(self, name: str, digest: str | None) -> bool:
        """Whether a version of a view (None: any) has the keys."""
        return name in self._views if digest is None else (name, digest) in self._versions

    def service(self, name: str) -> bool:
        """Whether any version of a service takes such a view."""
        query = select(FeatureVersionRow.content).where(
            FeatureVersionRow.workspace_id == self._erasure.workspace_id,
            FeatureVersionRow.kind == SERVICE,
            FeatureVersionRow.name == name,
        )
        return any(
            view["view"] in self._views for content in self._session.scalars(query).all() for view in content["views"]
        )
