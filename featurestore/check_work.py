"""The worker's side of checks: the rows of one part of a snapshot, held to what is expected of them.

A part is checked in the region that read it from its source, where its class lets it be. Of data that may not be where
the record is, the record holds whether an expectation was met and how many rows there are, and no other number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fairlead.catalog import Residency, permits
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.checking import Expected, Finding, PartRows, check_part
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.expectations import expectation_from_json
from fairlead.featurestore.replica_rows import ArtifactName, ReplicaRows
from fairlead.featurestore.snapshot_checks import FAILED, PASSED, WAITING, previous_snapshot
from fairlead.featurestore.snapshot_views import part_view
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from fairlead.featurestore.tables_quality import SnapshotCheckRow
from fairlead.registry import audit, work
from fairlead.registry.identity import system_caller
from fairlead.registry.tables import WorkspaceRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.work import LeasedWork
    from fairlead.sync.scratch import Scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A part of a snapshot as it is stored."""

    view: ViewDefinition
    artifact: ArtifactName
    as_of: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    present: _Part
    previous: _Part | None
    against: str | None
    expected: Sequence[Expected]


class CheckHandler:
    """Checks one part of a snapshot; a handler for work of the kind `check-snapshot`."""

    def __init__(self, database: Database, clock: Clock, *, replicas: ReplicaRows, scratch: Scratch) -> None:
        self._database = database
        self._clock = clock
        self._replicas = replicas
        self._scratch = scratch

    def __call__(self, leased: LeasedWork) -> None:
        """Check the rows and note what was found.

        Raises:
            LeaseLost: if another worker took over.
            ReplicaUnavailable: if the rows cannot be read now; it is tried again, and the snapshot waits.
        """
        task = self._load(leased)
        if task is None:
            return
        present = self._fetch(leased, task.present)
        previous = None if task.previous is None else self._fetch(leased, task.previous)
        with self._scratch.folder("check-") as folder:
            findings = check_part(present, previous, task.expected, scratch=folder)
        self._note(leased, task, findings)

    def _load(self, leased: LeasedWork) -> _Task | None:
        with self._database.write() as session:
            row, snapshot = _find(session, leased)
            if row is None or snapshot is None or row.state != WAITING:
                work.finish(session, leased)
                return None
            present = _find_part(session, snapshot, row)
            assert present is not None  # noqa: S101  (only READY snapshots are checked, and parts stay)
            expected = [_expected(row.view, each) for each in row.expectations]
            before = None
            if any(each.expectation.needs_previous for each in expected):
                before = previous_snapshot(session, snapshot)
            return _Task(
                present=present,
                previous=None if before is None else _find_part(session, before, row),
                against=None if before is None else before.digest,
                expected=expected,
            )

    def _fetch(self, leased: LeasedWork, part: _Part) -> PartRows:
        path = self._replicas.fetch(part.artifact, near=leased.region)
        return PartRows(view=part.view, path=path, as_of=part.as_of)

    def _note(self, leased: LeasedWork, task: _Task, findings: Sequence[Finding]) -> None:
        with self._database.write() as session:
            row, snapshot = _find(session, leased)
            # What is expected may have changed meanwhile; then this piece of work is derived again.
            if row is not None and snapshot is not None and row.state == WAITING and _is_same(row, task.expected):
                jurisdiction = session.get_one(WorkspaceRow, leased.workspace_id).jurisdiction
                if not permits(Residency(row.residency), jurisdiction or ""):
                    findings = [each.without_values() for each in findings]
                failed = [each for each in findings if not each.passed and each.severity == "error"]
                row.results = [each.to_json() for each in findings]
                row.state, row.is_blocking = (FAILED if failed else PASSED), bool(failed)
                row.against, row.checked_at = task.against, self._clock.now()
                audit.record(
                    session,
                    system_caller(leased.workspace_id, "worker"),
                    self._clock,
                    action="snapshot.check",
                    subject=snapshot.id,
                    residency=row.residency,
                    facts={
                        "service": snapshot.service,
                        "digest": snapshot.digest,
                        "view": row.view,
                        "state": row.state,
                        "failed": [f"{each.set}: {each.name}" for each in findings if not each.passed],
                    },
                )
            work.finish(session, leased)


def _expected(view: str, item: Mapping[str, Any]) -> Expected:
    return Expected(set=item["set"], view=view, expectation=expectation_from_json(item["expectation"]))


def _is_same(row: SnapshotCheckRow, expected: Sequence[Expected]) -> bool:
    return [_expected(row.view, each) for each in row.expectations] == list(expected)


def _find(session: Session, leased: LeasedWork) -> tuple[SnapshotCheckRow | None, SnapshotRow | None]:
    snapshot_id, view, residency = leased.subject.split("/")
    row = session.get(SnapshotCheckRow, (leased.workspace_id, snapshot_id, view, residency), with_for_update=True)
    return row, session.get(SnapshotRow, (leased.workspace_id, snapshot_id))


def _find_part(session: Session, snapshot: SnapshotRow, row: SnapshotCheckRow) -> _Part | None:
    """The part of another snapshot that has the same view and class, as it is stored."""
    part = session.get(SnapshotPartRow, (row.workspace_id, snapshot.id, row.view, row.residency))
    if part is None or part.artifact_digest is None:
        return None
    pinned = find_pinned_service(session, row.workspace_id, snapshot.service, snapshot.service_digest)
    artifact = ArtifactName(workspace_id=row.workspace_id, residency=row.residency, digest=part.artifact_digest)
    return _Part(view=part_view(pinned.views[part.view], part), artifact=artifact, as_of=snapshot.as_of)
