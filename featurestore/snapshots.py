"""Snapshots: the data of a feature service as of a time, pinned by one digest.

A snapshot's record is canonical JSON: the service and its version, the time, and for each part (a view's features
under one residency class) an artifact. The sha256 of that record is the *snapshot digest*, which a model version pins.
Taking one commits a row and names, for each part, a region where its class lets it be; a worker there writes the rows
as an artifact and hands it to the same verification and replication as a model. When every part was read back, the
snapshot is READY. What a user has to correct (a missing file or column) makes it FAILED and says why; what passes by
itself is tried again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.canonical import canonical_json
from fairlead.core.clock import format_time
from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput, JsonValue, LocationNotFound, ResidencyViolation, SnapshotNotFound
from fairlead.core.ids import parse_digest, sha256_digest
from fairlead.core.ports import Clock
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.log_positions import Positions, log_regions, positions_of
from fairlead.featurestore.releases import releasable
from fairlead.featurestore.rewritings import Rewriting, rewritings
from fairlead.featurestore.snapshot_checks import require_checks
from fairlead.featurestore.snapshot_regions import RegionLack, lacks, workspace_regions
from fairlead.featurestore.sub_views import sub_views
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from fairlead.registry import audit, work
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller, system_caller
from fairlead.registry.limits import parse_row_id
from fairlead.registry.locations import Location, traffic_locations
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import UploadRow

SNAPSHOT = "snapshot"
"""The work of writing one view's rows; its subject is `part_subject`."""

SnapshotState = Literal["PENDING", "READY", "FAILED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPart:
    """A view's rows with the features of one class. `region` is where they are read from the source.

    Digests, counts and statistics come with the rows. `rows_digest` is equal for equal rows, however they are stored:
    the artifact holds a base and `deltas` upon it, and `sent_bytes` of it went over the wire. `rewritten` names each
    erasure that took rows out of it, with the artifact that it had before. `logs` says up to which row of each log of
    pushed rows it holds them.
    """

    view: str
    view_digest: str
    residency: str
    region: str
    features: tuple[str, ...] | None
    digest: str | None
    rows_digest: str | None
    rows: int | None
    deltas: int | None
    sent_bytes: int | None
    statistics: Mapping[str, Any] | None
    rewritten: tuple[Rewriting, ...] = ()
    logs: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A service's data as of a time; `digest` is set once it is READY. `lacks` is what regions may not hold of it."""

    id: str
    service: str
    service_digest: str
    as_of: datetime
    state: SnapshotState
    digest: str | None
    artifacts: tuple[SnapshotPart, ...]
    error_code: str | None
    error_detail: str | None
    created_by: str
    created_at: datetime
    ready_at: datetime | None
    lacks: tuple[RegionLack, ...] = ()


class Snapshots:
    """Takes and shows snapshots."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def take(
        self, caller: Caller, service: str, *, as_of: datetime | None = None, key: IdempotencyKey | None = None
    ) -> Snapshot:
        """Ask for the service's data as of a time (now by default); the answer is PENDING, and a worker goes on.

        Raises:
            FeatureServiceNotFound: if there is no such service.
            InvalidInput: if the time has not come yet.
            LocationNotFound: if the workspace has no location.
            ResidencyViolation: if a view's class forbids every location there is.
        """
        now = self._clock.now()
        moment = as_of or now
        if moment > now:
            raise InvalidInput(
                f"{format_time(moment)} has not come yet, so its data is not known.", hint="Leave as_of out for now."
            )
        with self._database.write() as session:
            return run_once(
                session,
                caller,
                self._clock,
                key,
                result_type=Snapshot,
                action=lambda: self._take(session, caller, service, moment, now),
            )

    def get(self, caller: Caller, reference: str) -> Snapshot:
        """A snapshot by its id or digest.

        Raises:
            SnapshotNotFound: if there is none.
        """
        with self._database.read() as session:
            return to_snapshot(session, find_snapshot(session, caller.workspace_id, reference))

    def list(
        self, caller: Caller, page: PageRequest, *, service: str | None = None, until: datetime | None = None
    ) -> Page[Snapshot]:
        """Snapshots, those that were asked for last first; `until`: as of no later time."""
        query = select(SnapshotRow).where(SnapshotRow.workspace_id == caller.workspace_id)
        if service is not None:
            query = query.where(SnapshotRow.service == service)
        if until is not None:
            query = query.where(SnapshotRow.as_of <= until)
        listing = ("snapshots", caller.workspace_id, service, None if until is None else format_time(until))
        with self._database.read() as session:
            regions = workspace_regions(session, caller.workspace_id)
            page_of_rows = page.fetch(session, query, [SnapshotRow.id], listing=listing, descending=True)
            return page_of_rows.map(lambda row: to_snapshot(session, row, regions))

    def _take(self, session: Session, caller: Caller, name: str, as_of: datetime, now: datetime) -> Snapshot:
        pinned = find_pinned_service(session, caller.workspace_id, name)
        locations = traffic_locations(session, caller.workspace_id)
        parts = [part for view in pinned.views.values() for part in sub_views(view).values()]
        logged = log_regions(session, caller.workspace_id)
        regions = [_choose_region(part, locations, logged.get(part.name)) for part in parts]
        row = SnapshotRow(
            workspace_id=caller.workspace_id,
            service=name,
            service_digest=pinned.digest,
            as_of=as_of,
            state="PENDING",
            created_by=caller.principal,
            created_at=now,
        )
        session.add(row)
        session.flush()
        for view, region in zip(parts, regions, strict=True):
            part = SnapshotPartRow(
                workspace_id=caller.workspace_id,
                snapshot_id=row.id,
                view=view.name,
                view_digest=pinned.view_digests[view.name],
                residency=view.residency,
                region=region,
                features=[feature.name for feature in view.features],
            )
            session.add(part)
            session.flush()
            _require_part(session, part, now)
        audit.record(
            session,
            caller,
            self._clock,
            action="snapshot.take",
            subject=row.id,
            facts={"service": name, "service_digest": pinned.digest, "as_of": format_time(as_of)},
        )
        return to_snapshot(session, row)


def derive_snapshots(session: Session, clock: Clock) -> None:
    """Require the parts that pending snapshots lack, and settle those whose parts were all read back."""
    now = clock.now()
    # Locked, so that two derivers do not settle one snapshot twice.
    pending = select(SnapshotRow).where(SnapshotRow.state == "PENDING").with_for_update(skip_locked=True)
    for snapshot in session.scalars(pending).all():
        parts = _parts(session, snapshot)
        uploads = [_upload(session, part) for part in parts]
        failed = next((upload for upload in uploads if upload and upload.state in {"FAILED", "EXPIRED"}), None)
        if failed is not None:
            code = failed.error_code or "lease-lost"
            fail_snapshot(session, clock, snapshot, code, failed.error_detail or "Its bytes could not be read back.")
        elif all(upload is not None and upload.state == "READY" for upload in uploads):
            _settle(session, clock, snapshot, parts)
        else:
            for part in parts:
                if part.upload_id is None:
                    _require_part(session, part, now)


def fail_snapshot(session: Session, clock: Clock, snapshot: SnapshotRow, code: str, detail: str) -> None:
    """Give a snapshot up, with the reason."""
    if snapshot.state != "PENDING":
        return
    snapshot.state, snapshot.error_code, snapshot.error_detail = "FAILED", code, detail
    audit.record(
        session,
        system_caller(snapshot.workspace_id, "worker"),
        clock,
        action="snapshot.fail",
        subject=snapshot.id,
        facts={"service": snapshot.service, "error": code},
    )


def record_of(
    snapshot: SnapshotRow, parts: Sequence[SnapshotPartRow], logs: Mapping[tuple[str, str], Positions] | None = None
) -> dict[str, JsonValue]:
    """The record whose sha256 is the snapshot digest; `logs` says what parts hold of pushed rows."""
    read = {key: [dict(each) for each in positions] for key, positions in (logs or {}).items()}
    # What was written before rows had a digest of their own keeps its name.
    is_whole = all(part.rows_digest is not None for part in parts)
    return {
        "version": 2 if is_whole else 1,
        "service": snapshot.service,
        "service_digest": snapshot.service_digest,
        "as_of": format_time(snapshot.as_of),
        "artifacts": [
            {
                "view": part.view,
                "view_digest": part.view_digest,
                "residency": part.residency,
                "digest": part.artifact_digest,
                "rows": part.row_count,
                **({"features": [*sorted(part.features or ())], "rows_digest": part.rows_digest} if is_whole else {}),
                **({"logs": [*found]} if (found := read.get((part.view, part.residency))) else {}),
            }
            for part in sorted(parts, key=lambda part: (part.view, part.residency))
        ],
    }


def find_snapshot(session: Session, workspace_id: str, reference: str) -> SnapshotRow:
    """A snapshot's row by id or digest; of several with one digest, which are the same data, the first.

    Raises:
        SnapshotNotFound: if there is none.
    """
    query = select(SnapshotRow).where(SnapshotRow.workspace_id == workspace_id)
    if reference.startswith("sha256:"):
        query = query.where(SnapshotRow.digest == parse_digest(reference))
    else:
        query = query.where(SnapshotRow.id == parse_row_id(reference, SnapshotNotFound, what="snapshot"))
    row = session.scalars(query.order_by(SnapshotRow.id)).first()
    if row is None:
        raise SnapshotNotFound(
            f"There is no snapshot {reference}.",
            hint="Take one: fairlead features snapshot SERVICE",
            snapshot=reference,
        )
    return row


def newest_snapshot(
    session: Session, workspace_id: str, service: str, *, as_of: datetime | None = None
) -> SnapshotRow | None:
    """The READY snapshot of a service with the latest time (up to `as_of`) of those that may be served, or None."""
    query = (
        select(SnapshotRow)
        .where(SnapshotRow.workspace_id == workspace_id, SnapshotRow.service == service, SnapshotRow.state == "READY")
        .where(releasable())
        .order_by(SnapshotRow.as_of.desc(), SnapshotRow.id.desc())
        .limit(1)
    )
    if as_of is not None:
        query = query.where(SnapshotRow.as_of <= as_of)
    return session.scalars(query).first()


def snapshot_parts(session: Session, snapshot: SnapshotRow) -> Sequence[SnapshotPartRow]:
    """The parts of a snapshot, by view and class."""
    return _parts(session, snapshot)


def part_subject(part: SnapshotPartRow) -> str:
    """The subject of the work of writing one part."""
    return f"{part.snapshot_id}/{part.view}/{part.residency}"


def to_snapshot(session: Session, row: SnapshotRow, regions: Sequence[str] | None = None) -> Snapshot:
    """The record of a row; `regions` are those of the workspace, if they are known."""
    parts = _parts(session, row)
    rewritten = rewritings(session, row)
    logs = positions_of(session, row)
    return Snapshot(
        id=row.id,
        service=row.service,
        service_digest=row.service_digest,
        as_of=row.as_of,
        state=cast("SnapshotState", row.state),
        digest=row.digest,
        artifacts=tuple(
            SnapshotPart(
                view=part.view,
                view_digest=part.view_digest,
                residency=part.residency,
                region=part.region,
                features=None if part.features is None else tuple(part.features),
                digest=part.artifact_digest,
                rows_digest=part.rows_digest,
                rows=part.row_count,
                deltas=part.delta_count,
                sent_bytes=part.sent_bytes,
                statistics=part.statistics,
                rewritten=rewritten.get((part.view, part.residency), ()),
                logs=tuple(logs.get((part.view, part.residency), ())),
            )
            for part in parts
        ),
        error_code=row.error_code,
        error_detail=row.error_detail,
        created_by=row.created_by,
        created_at=row.created_at,
        ready_at=row.ready_at,
        lacks=lacks(workspace_regions(session, row.workspace_id) if regions is None else regions, parts),
    )


def _settle(session: Session, clock: Clock, snapshot: SnapshotRow, parts: Sequence[SnapshotPartRow]) -> None:
    snapshot.digest = sha256_digest(canonical_json(record_of(snapshot, parts, positions_of(session, snapshot))))
    now = clock.now()
    snapshot.state, snapshot.ready_at = "READY", now
    require_checks(session, snapshot, now)
    audit.record(
        session,
        system_caller(snapshot.workspace_id, "worker"),
        clock,
        action="snapshot.ready",
        subject=snapshot.id,
        facts={"service": snapshot.service, "digest": snapshot.digest, "as_of": format_time(snapshot.as_of)},
    )


def _parts(session: Session, snapshot: SnapshotRow) -> Sequence[SnapshotPartRow]:
    query = select(SnapshotPartRow).where(
        SnapshotPartRow.workspace_id == snapshot.workspace_id, SnapshotPartRow.snapshot_id == snapshot.id
    )
    return session.scalars(query.order_by(SnapshotPartRow.view, SnapshotPartRow.residency)).all()


def _upload(session: Session, part: SnapshotPartRow) -> UploadRow | None:
    return None if part.upload_id is None else session.get(UploadRow, (part.workspace_id, part.upload_id))


def _require_part(session: Session, part: SnapshotPartRow, now: datetime) -> None:
    work.require_work(
        session,
        workspace_id=part.workspace_id,
        residency=part.residency,
        kind=SNAPSHOT,
        subject=part_subject(part),
        region=part.region,
        priority=work.URGENT,
        now=now,
    )


def _choose_region(view: ViewDefinition, locations: Sequence[Location], logged: str | None) -> str:
    """A region where the class of a view's part lets it be.

    It is the view's home; or else the one that takes most of its pushed rows, which has them first; or else that of the
    first location by name.
    """
    if not locations:
        raise LocationNotFound(
            "The workspace has no location yet.", hint="Add one: fairlead location add NAME --region REGION --url URL"
        )
    lawful = [location.region for location in locations if location.permits(view.residency, None)]
    if not lawful:
        raise ResidencyViolation(
            f"No location may hold {view.features[0].name!r} of view {view.name!r}, whose residency class is "
            f"{view.residency!r}.",
            hint="Add a location inside: fairlead location add NAME --region REGION --url URL",
            view=view.name,
            residency=view.residency,
        )
    return next((region for region in (view.home, logged) if region in lawful), lawful[0])
