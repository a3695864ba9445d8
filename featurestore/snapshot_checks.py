"""Checks of snapshots in the record: required when a snapshot becomes READY, and kept with it.

A snapshot is held to the expectations that there were when it became READY. When they change, the newest snapshot of
each service that they are about is checked anew; meanwhile the answer before counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import or_, select

from fairlead.core.ports import SnapshotFinding
from fairlead.featurestore.expectations import expectation_to_json, from_json
from fairlead.featurestore.releases import releasable
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from fairlead.featurestore.tables_quality import ExpectationsRow, SnapshotCheckRow
from fairlead.registry import work

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.db import Database

CHECK = "check-snapshot"
"""The work of checking one part of a snapshot; its subject is `{snapshot id}/{view}/{residency class}`."""

WAITING, PASSED, FAILED = "WAITING", "PASSED", "FAILED"


def require_checks(session: Session, snapshot: SnapshotRow, now: datetime) -> None:
    """Hold a snapshot that just became READY to what is expected of it now."""
    _require(session, snapshot, now, is_blocking=True)


def check_anew(session: Session, workspace_id: str, documents: Iterable[Mapping[str, Any]], now: datetime) -> None:
    """Hold the newest snapshots that these sets are about to what is expected of them now."""
    views = {document.get("view") for document in documents} - {None}
    services = {document.get("service") for document in documents} - {None}
    newest: dict[str, SnapshotRow] = {}
    query = select(SnapshotRow).where(SnapshotRow.workspace_id == workspace_id, SnapshotRow.state == "READY")
    if not views:
        query = query.where(SnapshotRow.service.in_(sorted(map(str, services))))
    for row in session.scalars(query.order_by(SnapshotRow.as_of, SnapshotRow.id)):
        newest[row.service] = row
    for service, row in newest.items():
        if service in services or views & {part.view for part in _parts(session, row)}:
            _require(session, row, now, is_blocking=False)


def derive_checks(session: Session, now: datetime) -> None:
    """Require the work of every check that waits."""
    for row in session.scalars(select(SnapshotCheckRow).where(SnapshotCheckRow.state == WAITING)).all():
        _require_work(session, row, now)


def snapshot_checks(session: Session, snapshot: SnapshotRow) -> Sequence[SnapshotCheckRow]:
    """The checks of a snapshot, by view and class."""
    query = select(SnapshotCheckRow).where(
        SnapshotCheckRow.workspace_id == snapshot.workspace_id, SnapshotCheckRow.snapshot_id == snapshot.id
    )
    return session.scalars(query.order_by(SnapshotCheckRow.view, SnapshotCheckRow.residency)).all()


def previous_snapshot(session: Session, snapshot: SnapshotRow) -> SnapshotRow | None:
    """The snapshot of the same service before this one: the last that may be served."""
    query = select(SnapshotRow).where(
        SnapshotRow.workspace_id == snapshot.workspace_id,
        SnapshotRow.service == snapshot.service,
        SnapshotRow.state == "READY",
        SnapshotRow.id != snapshot.id,
        or_(
            SnapshotRow.as_of < snapshot.as_of,
            (SnapshotRow.as_of == snapshot.as_of) & (SnapshotRow.id < snapshot.id),
        ),
        releasable(),
    )
    return session.scalars(query.order_by(SnapshotRow.as_of.desc(), SnapshotRow.id.desc()).limit(1)).first()


class SnapshotFindings:
    """Tells the record what checks found: `fairlead.core.ports.SnapshotIndex`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def findings(self, workspace_id: str, snapshot_digest: str) -> Sequence[SnapshotFinding]:
        """What was found of the snapshot. Reads on a connection of its own, so it waits for nobody."""
        with self._database.read() as session:
            query = select(SnapshotRow).where(
                SnapshotRow.workspace_id == workspace_id, SnapshotRow.digest == snapshot_digest
            )
            snapshot = session.scalars(query.order_by(SnapshotRow.id)).first()
            if snapshot is None:
                return []
            return [finding for row in snapshot_checks(session, snapshot) for finding in _told(row)]


def _require(session: Session, snapshot: SnapshotRow, now: datetime, *, is_blocking: bool) -> None:
    """Let each part of a snapshot wait for a check against what is expected of it now."""
    expected = _expected_of(session, snapshot)
    held = {(row.view, row.residency): row for row in snapshot_checks(session, snapshot)}
    for part in _parts(session, snapshot):
        wanted = expected.get((part.view, part.residency), [])
        row = held.get((part.view, part.residency))
        if not wanted:
            if row is not None:
                session.delete(row)
            continue
        if row is None:
            row = SnapshotCheckRow(
                workspace_id=part.workspace_id,
                snapshot_id=part.snapshot_id,
                view=part.view,
                residency=part.residency,
                region=part.region,
                is_blocking=is_blocking,
            )
            session.add(row)
        row.state, row.expectations = WAITING, wanted
        session.flush()
        _require_work(session, row, now)


def _require_work(session: Session, row: SnapshotCheckRow, now: datetime) -> None:
    work.require_work(
        session,
        workspace_id=row.workspace_id,
        residency=row.residency,
        kind=CHECK,
        subject=f"{row.snapshot_id}/{row.view}/{row.residency}",
        region=row.region,
        priority=work.URGENT,
        now=now,
    )


def _expected_of(session: Session, snapshot: SnapshotRow) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What is expected of each part: of a feature where that is, of rows of the first part of their view."""
    parts = _parts(session, snapshot)
    if not parts:
        return {}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    query = select(ExpectationsRow).where(ExpectationsRow.workspace_id == snapshot.workspace_id)
    for row in session.scalars(query.order_by(ExpectationsRow.name)):
        expected = from_json(row.document)
        if expected.service not in {None, snapshot.service}:
            continue
        for each in expected.expectations:
            of_view = [part for part in parts if part.view == (expected.view or each.view)]
            having = [part for part in of_view if part.features is None or each.feature in part.features]
            for part in (having or of_view)[:1]:
                item = {"set": row.name, "expectation": expectation_to_json(each)}
                found.setdefault((part.view, part.residency), []).append(item)
    return found


def _parts(session: Session, snapshot: SnapshotRow) -> Sequence[SnapshotPartRow]:
    query = select(SnapshotPartRow).where(
        SnapshotPartRow.workspace_id == snapshot.workspace_id, SnapshotPartRow.snapshot_id == snapshot.id
    )
    return session.scalars(query.order_by(SnapshotPartRow.view, SnapshotPartRow.residency)).all()


def _told(row: SnapshotCheckRow) -> list[SnapshotFinding]:
    """The findings of a check; of one that waits, that it does."""
    if row.state == WAITING and row.is_blocking:
        return [
            SnapshotFinding(
                name=f"{row.view}: checks",
                measure="state",
                value="waiting",
                limit="checked",
                is_passed=False,
                is_required=True,
                detail="The snapshot has not been checked yet.",
            )
        ]
    return [
        SnapshotFinding(
            name=f"{each['set']}: {each['name']}",
            measure=each["measure"],
            value=each["value"],
            limit=each["limit"],
            is_passed=each["passed"],
            is_required=each["severity"] == "error",
            detail=each["detail"],
        )
        for each in row.results or []
    ]
