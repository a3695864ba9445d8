"""What a READY snapshot pins: its service, and each part of its views with the artifact that holds the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from fairlead.catalog import Residency, permits
from fairlead.core.errors import NotReady
from fairlead.featurestore.applied import PinnedService, find_pinned_service
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.replica_rows import ArtifactName
from fairlead.featurestore.snapshots import snapshot_parts
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPartName:
    """One part of a view: the *sub-view* that has only one residency class's features, and its rows' artifact."""

    view: ViewDefinition
    artifact: ArtifactName

    @property
    def name(self) -> str:
        """The view's name."""
        return self.view.name

    @property
    def residency(self) -> str:
        """The class that says where the part may be."""
        return self.artifact.residency


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotView:
    """A READY snapshot, its service, and the parts of its views, by view and class."""

    digest: str
    pinned: PinnedService
    parts: tuple[SnapshotPartName, ...]

    def permitted(self, jurisdiction: str) -> tuple[SnapshotPartName, ...]:
        """The parts that may be under a jurisdiction."""
        return tuple(part for part in self.parts if permits(Residency(part.residency), jurisdiction))

    def missing(self, jurisdiction: str) -> tuple[str, ...]:
        """What may not be under a jurisdiction: views of which nothing may, and else features, as `view:feature`."""
        here = {part.name for part in self.permitted(jurisdiction)}
        return tuple(
            sorted(
                {part.name for part in self.parts if part.name not in here}
                | {
                    f"{part.name}:{feature.name}"
                    for part in self.parts
                    if part.name in here and not permits(Residency(part.residency), jurisdiction)
                    for feature in part.view.features
                }
            )
        )


def snapshot_view(session: Session, row: SnapshotRow) -> SnapshotView:
    """What a READY snapshot pins.

    Raises:
        NotReady: if it is not READY.
    """
    if row.state != "READY" or row.digest is None:
        raise NotReady(
            f"The snapshot {row.id} of {row.service!r} is {row.state}.",
            hint=row.error_detail or "Its data is being written and read back; ask again soon.",
            state=row.state,
        )
    pinned = find_pinned_service(session, row.workspace_id, row.service, row.service_digest)
    return SnapshotView(
        digest=row.digest,
        pinned=pinned,
        parts=tuple(_part_name(pinned.views, part) for part in snapshot_parts(session, row)),
    )


def _part_name(views: Mapping[str, ViewDefinition], part: SnapshotPartRow) -> SnapshotPartName:
    return SnapshotPartName(
        view=part_view(views[part.view], part),
        artifact=ArtifactName(
            workspace_id=part.workspace_id, residency=part.residency, digest=part.artifact_digest or ""
        ),
    )


def part_view(view: ViewDefinition, part: SnapshotPartRow) -> ViewDefinition:
    """The sub-view that a part holds the rows of."""
    features = (
        view.features if part.features is None else [each for each in view.features if each.name in part.features]
    )
    return replace(view, features=tuple(features), residency=Residency(part.residency), column_residency={})
