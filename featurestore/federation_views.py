"""Which versions of which views a federated read takes, and from which snapshot's parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NewType

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.errors import FeatureViewNotFound, InvalidInput, NotReady
from fairlead.core.ids import Digest
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.definitions import VIEW, ViewDefinition, view_from_content
from fairlead.featurestore.federation_plan import FederatedRequest
from fairlead.featurestore.federation_sizes import lengths_of
from fairlead.featurestore.services import Projection, ServiceDefinition
from fairlead.featurestore.snapshot_views import snapshot_view
from fairlead.featurestore.snapshots import find_snapshot, newest_snapshot
from fairlead.featurestore.sub_views import sub_views
from fairlead.featurestore.tables import FeatureDefinitionRow, FeatureVersionRow, SnapshotPartRow, SnapshotRow
from fairlead.featurestore.tickets import TicketPart

ViewName = NewType("ViewName", str)
_OLDER_SNAPSHOTS = 50
"""How far back an older snapshot is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewParts:
    """The parts of one view, and the snapshot that they are of (None: they are read from the source).

    `lengths` says how long texts and lists are about, by feature, as far as that is known here.
    """

    snapshot: str | None
    as_of: datetime | None
    parts: tuple[TicketPart, ...]
    lengths: Mapping[str, float] = field(default_factory=dict[str, float])

    def of(self, features: Sequence[str]) -> tuple[TicketPart, ...]:
        """The parts that have any of the features."""
        return tuple(part for part in self.parts if not set(features).isdisjoint(part.features))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenViews:
    """A service, or features that were named one by one, with the version of each view and where its rows are."""

    service: ServiceDefinition
    service_digest: Digest | None
    snapshot: str | None
    views: Mapping[str, ViewDefinition]
    parts: Mapping[str, ViewParts]
    labels: Mapping[str, str]


def choose_views(session: Session, workspace_id: str, wanted: FederatedRequest) -> ChosenViews:
    """What a request names.

    Raises:
        InvalidInput: if it names neither a service nor features, or both, or a snapshot of something else.
        FeatureServiceNotFound, FeatureViewNotFound, SnapshotNotFound: if there is none.
        NotReady: if there is no snapshot that could be joined.
    """
    if (wanted.service is None) == (not wanted.features):
        raise InvalidInput("The request names not one of a service and features.", hint="Name a service, or features.")
    if wanted.service is not None:
        return _of_service(session, workspace_id, wanted, wanted.service)
    if wanted.snapshot is not None:
        raise InvalidInput("A snapshot is of a service.", hint="Name the service in place of its features.")
    return _of_features(session, workspace_id, wanted)


def older_parts(
    session: Session, workspace_id: str, view: ViewDefinition, features: Sequence[str]
) -> Iterator[ViewParts]:
    """The parts of READY snapshots that have this version of a view, newest first."""
    query = (
        select(SnapshotRow)
        .join(
            SnapshotPartRow,
            (SnapshotPartRow.workspace_id == SnapshotRow.workspace_id)
            & (SnapshotPartRow.snapshot_id == SnapshotRow.id),
        )
        .where(
            SnapshotRow.workspace_id == workspace_id,
            SnapshotRow.state == "READY",
            SnapshotPartRow.view == view.name,
            SnapshotPartRow.view_digest == view.digest,
        )
        .order_by(SnapshotRow.as_of.desc(), SnapshotRow.id.desc())
        .distinct()
        .limit(_OLDER_SNAPSHOTS)
    )
    for row in session.scalars(query).all():
        found = _parts_of(session, row, view)
        if found.of(features):
            yield found


def _of_service(session: Session, workspace_id: str, wanted: FederatedRequest, name: str) -> ChosenViews:
    if wanted.live_until is not None:
        if wanted.snapshot is not None:
            raise InvalidInput("A live read joins no snapshot.", hint="Leave out the snapshot, or --live.")
        pinned = find_pinned_service(session, workspace_id, name)
        return ChosenViews(
            service=pinned.service,
            service_digest=pinned.digest,
            snapshot=None,
            views=pinned.views,
            parts={view.name: _live(view) for view in pinned.views.values()},
            labels=pinned.labels,
        )
    find_pinned_service(session, workspace_id, name)
    row = (
        newest_snapshot(session, workspace_id, name)
        if wanted.snapshot is None
        else find_snapshot(session, workspace_id, wanted.snapshot)
    )
    if row is None:
        raise NotReady(
            f"The service {name!r} has no snapshot that is READY.",
            hint=f"Take one: fairlead features snapshot {name}",
        )
    if row.service != name:
        raise InvalidInput(f"The snapshot {wanted.snapshot} is of {row.service!r}, not of {name!r}.", hint="Name one.")
    found = snapshot_view(session, row)
    return ChosenViews(
        service=found.pinned.service,
        service_digest=found.pinned.digest,
        snapshot=found.digest,
        views=found.pinned.views,
        parts={name: _parts_of(session, row, view) for name, view in found.pinned.views.items()},
        labels=found.pinned.labels,
    )


def _of_features(session: Session, workspace_id: str, wanted: FederatedRequest) -> ChosenViews:
    named: dict[str, list[str]] = {}
    for each in wanted.features:
        view, separator, feature = each.partition(":")
        if not separator or not feature:
            raise InvalidInput(f"{each[:80]!r} names no feature of a view.", hint="Write view:feature.")
        if feature not in named.setdefault(view, []):
            named[view].append(feature)
    views: dict[str, ViewDefinition] = {}
    parts: dict[str, ViewParts] = {}
    for name, features in named.items():
        views[name] = view = _present_view(session, workspace_id, name)
        if unknown := [feature for feature in features if view.feature(feature) is None]:
            raise FeatureViewNotFound(
                f"View {name!r} has no feature {unknown[0][:80]!r}.",
                hint=f"It has: {', '.join(column.name for column in view.features)[:400]}.",
                view=name,
            )
        newest = next(older_parts(session, workspace_id, view, features), None)
        if wanted.live_until is None and newest is None:
            raise NotReady(
                f"No snapshot that is READY has view {name!r} as it is defined now.",
                hint="Take one of a service that takes it: fairlead features snapshot SERVICE, or read it --live.",
                view=name,
            )
        parts[name] = _live(view) if wanted.live_until is not None or newest is None else newest
    projections = tuple(
        Projection(view=name, alias=name, features=tuple(features), join_key_map={}) for name, features in named.items()
    )
    service = ServiceDefinition(name="features", projections=projections)
    return ChosenViews(service=service, service_digest=None, snapshot=None, views=views, parts=parts, labels={})


def _present_view(session: Session, workspace_id: str, name: str) -> ViewDefinition:
    row = session.get(FeatureDefinitionRow, (workspace_id, VIEW, name))
    if row is None:
        raise FeatureViewNotFound(
            f"There is no feature view {name[:80]!r}.", hint="Apply it: fairlead features apply PATH", view=name[:80]
        )
    version = session.get_one(FeatureVersionRow, (workspace_id, VIEW, name, row.digest))
    return view_from_content(version.content, row.residency, row.home, row.column_residency)


def _live(view: ViewDefinition) -> ViewParts:
    parts = tuple(
        TicketPart(residency=residency, digest=None, features=tuple(column.name for column in part.features))
        for residency, part in sub_views(view).items()
    )
    return ViewParts(snapshot=None, as_of=None, parts=parts)


def _parts_of(session: Session, snapshot: SnapshotRow, view: ViewDefinition) -> ViewParts:
    query = select(SnapshotPartRow).where(
        SnapshotPartRow.workspace_id == snapshot.workspace_id,
        SnapshotPartRow.snapshot_id == snapshot.id,
        SnapshotPartRow.view == view.name,
    )
    every = tuple(column.name for column in view.features)
    rows = session.scalars(query.order_by(SnapshotPartRow.residency)).all()
    return ViewParts(
        snapshot=snapshot.digest,
        as_of=snapshot.as_of,
        parts=tuple(
            TicketPart(
                residency=row.residency,
                digest=row.artifact_digest,
                features=every if row.features is None else tuple(row.features),
            )
            for row in rows
        ),
        lengths={name: length for row in rows for name, length in lengths_of(row.statistics).items()},
    )
