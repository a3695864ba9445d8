"""A view's rows of a snapshot as one Parquet file, for whoever may have them where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fairlead.core.db import Database
from fairlead.core.errors import NotFound, ResidencyViolation
from fairlead.featurestore.merged_rows import fetch_view
from fairlead.featurestore.replica_rows import ReplicaRows
from fairlead.featurestore.residency_checks import readable_parts
from fairlead.featurestore.snapshot_views import snapshot_view
from fairlead.featurestore.snapshots import find_snapshot
from fairlead.registry.identity import Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedRows:
    """The rows of a view as they were pinned. `not_in_region` has the features that were left out."""

    path: Path
    snapshot: str
    view: str
    not_in_region: tuple[str, ...]


class SnapshotExports:
    """Restores the rows of snapshots.

    Args:
        database: the record.
        replicas: brings rows here.
        home_region: where this process runs; None where nothing but the caller's word places it.
    """

    def __init__(self, database: Database, *, replicas: ReplicaRows, home_region: str | None = None) -> None:
        self._database = database
        self._replicas = replicas
        self._home_region = home_region

    def export(
        self, caller: Caller, snapshot: str, view: str, *, region: str | None = None, leave_out: bool = False
    ) -> ExportedRows:
        """The rows of one view of a snapshot, in canonical order, as they were read from its source.

        `region` is where they go. With `leave_out`, features that may not be there are left out.

        Raises:
            SnapshotNotFound, NotFound: if there is no such snapshot, or it has no such view.
            NotReady: if its data is not there yet.
            ResidencyViolation: before anything is read, if something, or with `leave_out` everything, may not go there.
            ReplicaUnavailable: if no verified replica can be read.
        """
        with self._database.read() as session:
            found = snapshot_view(session, find_snapshot(session, caller.workspace_id, snapshot))
        parts = [part for part in found.parts if part.name == view]
        if not parts:
            raise NotFound(
                f"The snapshot {snapshot} has no view {view[:80]!r}.",
                hint=f"It has: {', '.join(sorted({part.name for part in found.parts}))}.",
            )
        taken = readable_parts(parts, region, self._home_region, leave_out=leave_out)
        if not taken:
            raise ResidencyViolation(
                f"Nothing of view {view!r} may be in {region or 'a region that is not stated'}.",
                hint=f"Read it where it lies: fairlead features show-snapshot {snapshot}",
                view=view,
            )
        rows = fetch_view(self._replicas, taken, near=region)
        here = {feature.name for feature in rows.view.features}
        absent = [feature.name for part in parts for feature in part.view.features if feature.name not in here]
        return ExportedRows(path=rows.path, snapshot=found.digest, view=view, not_in_region=tuple(absent))
