"""Historical reads: training sets from a snapshot, joined point in time, inside the residency rules."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from fairlead.catalog import UNRESTRICTED, check
from fairlead.catalog.residency import Residency
from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput, NotReady, ResidencyViolation
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.duck import ArrowTable
from fairlead.featurestore.joins import ViewRows, join_point_in_time
from fairlead.featurestore.replica_rows import ReplicaRows
from fairlead.featurestore.snapshot_views import snapshot_view
from fairlead.featurestore.snapshots import find_snapshot, newest_snapshot
from fairlead.featurestore.tables import SnapshotRow
from fairlead.registry.identity import Caller
from fairlead.sync.scratch import Scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """The entity rows with features, and what they were joined with."""

    rows: ArrowTable
    snapshot: str
    service: str
    service_digest: str


class HistoricalReads:
    """Joins entity rows with a snapshot.

    Args:
        database: the record.
        replicas: brings the snapshot's rows here.
        scratch: for what does not fit into memory.
        home_region: where this process runs; None where nothing but the caller's word places it (embedded mode).
    """

    def __init__(
        self, database: Database, *, replicas: ReplicaRows, scratch: Scratch, home_region: str | None = None
    ) -> None:
        self._database = database
        self._replicas = replicas
        self._scratch = scratch
        self._home_region = home_region

    def join(
        self,
        caller: Caller,
        entity_rows: ArrowTable,
        *,
        snapshot: str | None = None,
        service: str | None = None,
        region: str | None = None,
    ) -> TrainingSet:
        """Add a service's features to entity rows: from a snapshot, or else from the newest one of the service.

        `region` is where the result goes. Views under a residency class are read only when it is stated, and inside.
        Features are those of the service's version that the snapshot pins.

        Raises:
            InvalidInput: if the entity rows do not fit, or snapshot and service do not name one thing.
            SnapshotNotFound, FeatureServiceNotFound: if there is none.
            NotReady: if the snapshot's data is not there yet.
            ResidencyViolation: before anything is read, if a view may not go to the region or to where this runs.
            ReplicaUnavailable: if no verified replica can be read.
        """
        with self._database.read() as session:
            found = snapshot_view(session, _find(session, caller, snapshot, service))
        for part in found.parts:
            self._check_residency(part.name, part.residency, region)
        views: dict[str, list[ViewRows]] = {}
        for part in found.parts:
            path = self._replicas.fetch(part.artifact, near=region)
            views.setdefault(part.name, []).append(ViewRows(view=part.view, path=path))
        with self._scratch.folder("join-") as folder:
            rows = join_point_in_time(entity_rows, found.pinned.service, views, scratch=folder)
        return TrainingSet(
            rows=rows,
            snapshot=found.digest,
            service=found.pinned.service.name,
            service_digest=found.pinned.digest,
        )

    def _check_residency(self, view: str, residency: str, region: str | None) -> None:
        if residency == UNRESTRICTED:
            if region is not None:
                check(UNRESTRICTED, region)
            return
        if region is None:
            raise ResidencyViolation(
                f"View {view!r} is under the residency class {residency!r}, and the request does not say where the "
                "result goes.",
                hint="State the region that you read from: region=REGION.",
                view=view,
                residency=residency,
            )
        check(Residency(residency), region)
        if self._home_region is not None:
            check(Residency(residency), self._home_region)


def _find(session: Session, caller: Caller, snapshot: str | None, service: str | None) -> SnapshotRow:
    if snapshot is not None:
        row = find_snapshot(session, caller.workspace_id, snapshot)
        if service not in {None, row.service}:
            raise InvalidInput(f"The snapshot {snapshot} is of {row.service!r}, not of {service!r}.", hint="Name one.")
        return row
    if service is None:
        raise InvalidInput(
            "The request names neither a snapshot nor a service.", hint="Send snapshot=DIGEST or service=NAME."
        )
    find_pinned_service(session, caller.workspace_id, service)
    newest = newest_snapshot(session, caller.workspace_id, service)
    if newest is None:
        raise NotReady(
            f"The service {service!r} has no snapshot that is READY.",
            hint=f"Take one: fairlead features snapshot {service}",
        )
    return newest
