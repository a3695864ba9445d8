"""Historical reads: training sets from a snapshot, joined point in time, inside the residency rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from fairlead.core.clock import format_time
from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput, NotReady
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.duck import ArrowTable
from fairlead.featurestore.joins import ViewRows, join_point_in_time, output_names
from fairlead.featurestore.replica_rows import ReplicaRows
from fairlead.featurestore.residency_checks import readable_parts
from fairlead.featurestore.snapshot_views import snapshot_view
from fairlead.featurestore.snapshots import find_snapshot, newest_snapshot
from fairlead.featurestore.tables import SnapshotRow
from fairlead.registry.identity import Caller
from fairlead.sync.scratch import Scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """The entity rows with features, and what they were joined with. `not_in_region` are the columns left out."""

    rows: ArrowTable
    snapshot: str
    service: str
    service_digest: str
    not_in_region: tuple[str, ...] = ()


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
        as_of: datetime | None = None,
        region: str | None = None,
        leave_out: bool = False,
    ) -> TrainingSet:
        """Add a service's features to entity rows: from a snapshot, or else from the newest one of the service.

        With `as_of`, that is the newest one that was taken as of that time or an earlier one. `region` is where the
        result goes. Views under a residency class are read only when it is stated, and inside; with `leave_out`,
        features that may not be there are left out in place of refusing. Features are those of the service's version
        that the snapshot pins.

        Raises:
            InvalidInput: if the entity rows do not fit, or snapshot and service do not name one thing.
            SnapshotNotFound, FeatureServiceNotFound: if there is none.
            NotReady: if the snapshot's data is not there yet.
            ResidencyViolation: before anything is read, if a view may not go to the region or to where this runs.
            ReplicaUnavailable: if no verified replica can be read.
        """
        with self._database.read() as session:
            found = snapshot_view(session, _find(session, caller, snapshot, service, as_of))
        views: dict[str, list[ViewRows]] = {}
        parts = readable_parts(found.parts, region, self._home_region, leave_out=leave_out)
        for part in parts:
            path = self._replicas.fetch(part.artifact, near=region)
            views.setdefault(part.name, []).append(ViewRows(view=part.view, path=path))
        with self._scratch.folder("join-") as folder:
            rows = join_point_in_time(entity_rows, found.pinned.service, views, scratch=folder)
        return TrainingSet(
            rows=rows,
            snapshot=found.digest,
            service=found.pinned.service.name,
            service_digest=found.pinned.digest,
            not_in_region=tuple(
                name for _, _, name in output_names(found.pinned.service) if name not in rows.column_names
            ),
        )


def _find(
    session: Session, caller: Caller, snapshot: str | None, service: str | None, as_of: datetime | None
) -> SnapshotRow:
    if snapshot is not None:
        if as_of is not None:
            raise InvalidInput("The request names a snapshot and a time.", hint="Send snapshot or as_of.")
        row = find_snapshot(session, caller.workspace_id, snapshot)
        if service not in {None, row.service}:
            raise InvalidInput(f"The snapshot {snapshot} is of {row.service!r}, not of {service!r}.", hint="Name one.")
        return row
    if service is None:
        raise InvalidInput(
            "The request names neither a snapshot nor a service.", hint="Send snapshot=DIGEST or service=NAME."
        )
    find_pinned_service(session, caller.workspace_id, service)
    newest = newest_snapshot(session, caller.workspace_id, service, as_of=as_of)
    if newest is None:
        until = "" if as_of is None else f" as of {format_time(as_of)} or before"
        option = "" if as_of is None else f" --as-of {format_time(as_of)}"
        raise NotReady(
            f"The service {service!r} has no snapshot{until} that is READY.",
            hint=f"Take one: fairlead features snapshot {service}{option}",
        )
    return newest
