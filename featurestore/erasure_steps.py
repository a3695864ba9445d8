"""What an erasure still needs, from what is there: artifacts first, then online stores and logs, then locations.

    artifacts   every part of a snapshot and every segment of a log whose keys can name the subject is looked through,
                and one that holds it is written anew without it; the record then points at the new one. What a writer
                left behind that nothing names is given up whole
    stores      each region's online stores forget the subject, and so does what was pushed there and not sealed yet;
                then the old artifacts are nobody's
    locations   what they alone stood on is taken out of packs that others share, and collected; a location is clean
                once it was listed, and its packs' indexes read, without any of it

New artifacts that turn up meanwhile (a snapshot that was being taken) are looked through like the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.orm import Session

from fairlead.core.clock import format_time
from fairlead.core.ids import Digest, digest_hex
from fairlead.featurestore.concerned import Concerned
from fairlead.featurestore.erasure_places import writes_before
from fairlead.featurestore.erasure_rows import (
    DROPPED,
    ERASE_ROWS,
    LOST,
    REPLACED,
    SNAPSHOT,
    UNTOUCHED,
    VERIFYING,
    WAITING,
    artifacts_of,
    require,
    was_stray,
)
from fairlead.featurestore.online_desired import insert_unless_there
from fairlead.featurestore.replica_rows import ArtifactName, verified_regions
from fairlead.featurestore.strays import find_strays, is_stray_still
from fairlead.featurestore.tables import SnapshotPartRow, SnapshotRow
from fairlead.featurestore.tables_erasures import (
    ErasedArtifactRow,
    ErasedPartRow,
    ErasureRow,
)
from fairlead.featurestore.tables_streams import FeatureLogSegmentRow
from fairlead.registry.location_returns import lost_locations
from fairlead.registry.tables import ArtifactRow, ModelVersionRow, ReplicaRow, UploadRow, WorkRow

_PATIENCE = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A view's artifact that may hold the subject; `as_of` is the time of the first snapshot that has it."""

    artifact: ArtifactName
    kind: str
    view: str
    view_digest: str
    as_of: datetime


def derive_artifacts(session: Session, erasure: ErasureRow, now: datetime) -> None:
    """Look for artifacts that may hold the subject, require the work on them, and switch to those written anew."""
    known = {(row.residency, row.digest): row for row in artifacts_of(session, erasure)}
    made = {(row.residency, row.new_digest) for row in known.values()}
    there: set[tuple[str, str]] = set()
    for held in held_by(session, erasure):
        key = (held.artifact.residency, held.artifact.digest)
        there.add(key)
        if key not in known and key not in made:
            facts = {"view": held.view, "view_digest": held.view_digest, "as_of": format_time(held.as_of)}
            known[key] = _add(session, erasure, key, facts, kind=held.kind, now=now)
    strays = {(each.residency, each.digest): each for each in find_strays(session, erasure.workspace_id)}
    for key in strays.keys() - known.keys() - made:
        known[key] = _add(session, erasure, key, {"as_of": format_time(now)}, kind=strays[key].kind, now=now)
    for key, row in known.items():
        if was_stray(row):
            if key not in strays and not _is_released(session, row):
                # Somebody has it after all, and it is looked through like others.
                session.delete(row)
        elif key not in there and row.state in {WAITING, VERIFYING}:
            # Another erasure replaced it meanwhile; what it was replaced by is looked through.
            _drop(session, row, now)
        elif row.state == VERIFYING:
            _settle_upload(session, row, now)
        elif row.state == REPLACED:
            # A snapshot that was being taken may have come to stand on it again.
            _switch(session, row)
    session.flush()
    _require_next(session, artifacts_of(session, erasure), now)


def _add(
    session: Session, erasure: ErasureRow, key: tuple[str, str], facts: Mapping[str, str], *, kind: str, now: datetime
) -> ErasedArtifactRow:
    values = {
        "workspace_id": erasure.workspace_id,
        "erasure_id": erasure.id,
        "residency": key[0],
        "digest": key[1],
        "kind": kind,
        "state": WAITING,
        "facts": facts,
        "changed_at": now,
    }
    insert_unless_there(session, ErasedArtifactRow, values)
    return session.get_one(ErasedArtifactRow, (erasure.workspace_id, erasure.id, *key))


def _require_next(session: Session, rows: Iterable[ErasedArtifactRow], now: datetime) -> None:
    """Require the work on artifacts, of one part's snapshots in the order of time.

    So each is written anew as what the one before it was written anew as, with a delta, as they were taken.
    """
    at_work: set[tuple[str, ...]] = set()
    for row in sorted(rows, key=lambda row: (row.state != VERIFYING, time_of(row), row.digest)):
        facts: Mapping[str, Any] = row.facts or {}
        is_alone = row.kind != SNAPSHOT or was_stray(row)
        line = (row.residency, facts.get("view", ""), facts.get("view_digest", ""), row.digest if is_alone else "")
        if row.state == WAITING and line not in at_work:
            _require_rows(session, row, now)
        if row.state in {WAITING, VERIFYING}:
            at_work.add(line)


def time_of(row: ErasedArtifactRow) -> str:
    """The time of the first snapshot that an artifact is of."""
    return str((row.facts or {})["as_of"])


def rewritten_before(session: Session, row: ErasedArtifactRow) -> ArtifactName | None:
    """What the artifact of the snapshot before was written anew as, for the next of the same part to stand upon."""
    query = select(ErasedArtifactRow).where(
        ErasedArtifactRow.workspace_id == row.workspace_id,
        ErasedArtifactRow.erasure_id == row.erasure_id,
        ErasedArtifactRow.residency == row.residency,
        ErasedArtifactRow.kind == SNAPSHOT,
        ErasedArtifactRow.state == REPLACED,
    )
    of_part = [
        each
        for each in session.scalars(query)
        if all((each.facts or {})[name] == (row.facts or {})[name] for name in ("view", "view_digest"))
        and time_of(each) <= time_of(row)
    ]
    found = max(of_part, key=lambda each: (time_of(each), each.digest), default=None)
    if row.kind != SNAPSHOT or found is None or found.new_digest is None:
        return None
    return ArtifactName(workspace_id=row.workspace_id, residency=row.residency, digest=found.new_digest)


def held_by(session: Session, erasure: ErasureRow) -> Iterator[Held]:
    """The artifacts of snapshots, failed ones too, and of logs, of views whose keys can name the subject."""
    concerned = Concerned(session, erasure)
    parts = (
        select(
            SnapshotPartRow.residency,
            SnapshotPartRow.artifact_digest,
            SnapshotPartRow.view,
            SnapshotPartRow.view_digest,
            func.min(SnapshotRow.as_of),
        )
        .join(
            SnapshotRow,
            (SnapshotRow.workspace_id == SnapshotPartRow.workspace_id)
            & (SnapshotRow.id == SnapshotPartRow.snapshot_id),
        )
        .where(
            SnapshotPartRow.workspace_id == erasure.workspace_id,
            SnapshotPartRow.artifact_digest.is_not(None),
            SnapshotRow.state != "PENDING",
            exists().where(
                ArtifactRow.workspace_id == SnapshotPartRow.workspace_id,
                ArtifactRow.residency == SnapshotPartRow.residency,
                ArtifactRow.digest == SnapshotPartRow.artifact_digest,
            ),
        )
        .group_by(
            SnapshotPartRow.residency,
            SnapshotPartRow.artifact_digest,
            SnapshotPartRow.view,
            SnapshotPartRow.view_digest,
        )
    )
    segments = (
        select(
            FeatureLogSegmentRow.residency,
            FeatureLogSegmentRow.artifact_digest,
            FeatureLogSegmentRow.view,
            FeatureLogSegmentRow.view_digest,
            func.min(FeatureLogSegmentRow.sealed_at),
        )
        .where(FeatureLogSegmentRow.workspace_id == erasure.workspace_id)
        .group_by(
            FeatureLogSegmentRow.residency,
            FeatureLogSegmentRow.artifact_digest,
            FeatureLogSegmentRow.view,
            FeatureLogSegmentRow.view_digest,
        )
    )
    for kind, query in ((SNAPSHOT, parts), ("feature-log", segments)):
        for residency, digest, view, view_digest, as_of in session.execute(query).all():
            if concerned.view(view, view_digest):
                artifact = ArtifactName(workspace_id=erasure.workspace_id, residency=residency, digest=digest or "")
                yield Held(artifact=artifact, kind=kind, view=view, view_digest=view_digest, as_of=as_of)


def is_settled(session: Session, erasure: ErasureRow) -> bool:
    """Whether every artifact there is was looked through and, where it held the subject, replaced."""
    rows = artifacts_of(session, erasure)
    known = {(row.residency, digest) for row in rows for digest in (row.digest, row.new_digest)}
    return (
        all(row.state in {UNTOUCHED, REPLACED, DROPPED, LOST} for row in rows)
        and not writes_before(session, erasure)
        and all((each.residency, each.digest) in known for each in find_strays(session, erasure.workspace_id))
        and not any(row.state == REPLACED and model_with(session, row) for row in rows)
        and not pending_snapshots(session, erasure)
        and all((held.artifact.residency, held.artifact.digest) in known for held in held_by(session, erasure))
    )


def _settle_upload(session: Session, row: ErasedArtifactRow, now: datetime) -> None:
    upload = session.get(UploadRow, (row.workspace_id, row.upload_id))
    if upload is None or upload.state in {"FAILED", "EXPIRED"}:
        row.state, row.upload_id, row.new_digest, row.changed_at = WAITING, None, None, now
    elif upload.state == "READY":
        row.state, row.changed_at = REPLACED, now
        _switch(session, row)


def _switch(session: Session, row: ErasedArtifactRow) -> None:
    """Point whatever has the old artifact at the new one."""
    facts: Mapping[str, Any] = row.facts or {}
    assert row.new_digest is not None  # noqa: S101  (it is written anew)
    parts = select(SnapshotPartRow).where(
        SnapshotPartRow.workspace_id == row.workspace_id,
        SnapshotPartRow.residency == row.residency,
        SnapshotPartRow.artifact_digest == row.digest,
    )
    for part in session.scalars(parts.with_for_update()).all():
        # Of one that is still being taken, nobody knows another digest than that of what it has now.
        has_digest = session.get_one(SnapshotRow, (part.workspace_id, part.snapshot_id)).digest is not None
        values = {
            "workspace_id": row.workspace_id,
            "erasure_id": row.erasure_id,
            "snapshot_id": part.snapshot_id,
            "view": part.view,
            "residency": part.residency,
            "old_digest": row.digest,
            "new_digest": row.new_digest,
            "old_rows_digest": part.rows_digest,
            "rows_digest": facts.get("rows_digest"),
            "rows_removed": (part.row_count or 0) - facts["rows"],
        }
        if has_digest:
            insert_unless_there(session, ErasedPartRow, values)
        left_out = (part.statistics or {}).get("left_out", 0)
        part.artifact_digest, part.upload_id = row.new_digest, row.upload_id
        part.row_count, part.rows_digest, part.delta_count = facts["rows"], facts.get("rows_digest"), facts["deltas"]
        part.statistics = {**facts["statistics"], "left_out": left_out}
    session.execute(
        update(FeatureLogSegmentRow)
        .where(
            FeatureLogSegmentRow.workspace_id == row.workspace_id,
            FeatureLogSegmentRow.residency == row.residency,
            FeatureLogSegmentRow.artifact_digest == row.digest,
        )
        .values(artifact_digest=row.new_digest, upload_id=row.upload_id, row_count=facts["rows"])
    )


def release_artifacts(session: Session, erasure: ErasureRow, now: datetime) -> None:
    """Let nobody want the old artifacts any more; until stores forget, the subject is found by what they hold."""
    for row in artifacts_of(session, erasure):
        if (row.state in {REPLACED, LOST} and model_with(session, row) is None) or (
            row.state == DROPPED and is_stray_still(session, row)
        ):
            _release(session, row, row.digest, now)


def _drop(session: Session, row: ErasedArtifactRow, now: datetime) -> None:
    """Forget an artifact that nothing has any more, and what was made of it; a worker that is at it notes nothing."""
    if row.state == VERIFYING and row.new_digest is not None:
        upload = session.get(UploadRow, (row.workspace_id, row.upload_id))
        if upload is not None and upload.state in {"OPEN", "VERIFYING"}:
            return
        _release(session, row, row.new_digest, now)
    session.delete(row)


def _is_released(session: Session, row: ErasedArtifactRow) -> bool:
    artifact = session.get(ArtifactRow, (row.workspace_id, row.residency, row.digest))
    return artifact is None or artifact.released_at is not None


def _release(session: Session, row: ErasedArtifactRow, digest: str, now: datetime) -> None:
    artifact = session.get(ArtifactRow, (row.workspace_id, row.residency, digest), with_for_update=True)
    if artifact is None or artifact.released_at is not None:
        return
    artifact.released_at = now
    session.execute(
        update(ReplicaRow)
        .where(
            ReplicaRow.workspace_id == row.workspace_id,
            ReplicaRow.residency == row.residency,
            ReplicaRow.artifact_digest == digest,
        )
        .values(is_wanted=False, updated_at=now)
    )


def model_with(session: Session, row: ErasedArtifactRow) -> str | None:
    """A model version whose own file the old artifact is, which nobody but its owners gives up."""
    query = select(ModelVersionRow.model_id, ModelVersionRow.version).where(
        ModelVersionRow.workspace_id == row.workspace_id,
        ModelVersionRow.residency == row.residency,
        ModelVersionRow.artifact_digest == row.digest,
        ModelVersionRow.released_at.is_(None),
    )
    found = session.execute(query.limit(1)).first()
    return None if found is None else f"model {found[0]}, version {found[1]}"


def pending_snapshots(session: Session, erasure: ErasureRow) -> Iterable[str]:
    """Snapshots that may come to stand on an old artifact: begun before the last one was replaced."""
    moments = [row.changed_at for row in artifacts_of(session, erasure) if row.state == REPLACED]
    query = select(SnapshotRow.id).where(
        SnapshotRow.workspace_id == erasure.workspace_id,
        SnapshotRow.state == "PENDING",
        or_(*(SnapshotRow.created_at <= each for each in [erasure.requested_at, *moments])),
    )
    return session.scalars(query.order_by(SnapshotRow.id)).all()


def _is_lost(session: Session, row: ErasedArtifactRow) -> bool:
    """Whether no location has bytes of an artifact, since one that had is lost."""
    bytes_of = select(ReplicaRow.location_id).where(
        ReplicaRow.workspace_id == row.workspace_id,
        ReplicaRow.residency == row.residency,
        ReplicaRow.artifact_digest == row.digest,
        ReplicaRow.layout_key.is_not(None),
    )
    return bool(lost_locations(session, row.workspace_id)) and session.scalar(bytes_of.limit(1)) is None


def _require_rows(session: Session, row: ErasedArtifactRow, now: datetime) -> None:
    name = ArtifactName(workspace_id=row.workspace_id, residency=row.residency, digest=row.digest)
    regions = sorted(verified_regions(session, name))
    if not regions:
        if was_stray(row):
            row.state, row.changed_at = DROPPED, now
        elif _is_lost(session, row):
            row.state, row.changed_at = LOST, now
        return
    if row.region not in regions:
        row.region, row.changed_at = regions[0], now
    elif row.changed_at + _PATIENCE <= now:
        # A region that is away holds up none of what another one can do.
        row.region, row.changed_at = regions[(regions.index(row.region) + 1) % len(regions)], now
    subject = f"{row.erasure_id}/{row.residency}/{digest_hex(Digest(row.digest))}"
    require(session, row, ERASE_ROWS, subject, now, region=row.region)
    session.execute(
        update(WorkRow)
        .where(WorkRow.workspace_id == row.workspace_id, WorkRow.kind == ERASE_ROWS, WorkRow.subject == subject)
        .where(WorkRow.region != row.region, WorkRow.lease_holder.is_(None))
        .values(region=row.region)
    )
