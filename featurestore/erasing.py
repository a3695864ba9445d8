"""Drives erasures: each step once the one before it is done, and in the end a certificate."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import or_, select, true

from fairlead.core.certificates import sign_certificate
from fairlead.core.clock import format_time
from fairlead.core.errors import JsonValue
from fairlead.core.ids import Digest, digest_hex
from fairlead.featurestore.erasure_locations import is_look_due
from fairlead.featurestore.erasure_places import derive_locations, derive_stores, storage_locations, writes_before
from fairlead.featurestore.erasure_rows import (
    CLEAN,
    DONE,
    DROPPED,
    GIVEN_UP,
    LOG,
    LOST,
    REPLACED,
    RUNNING,
    artifacts_of,
    locations_of,
    parts_of,
    stores_of,
)
from fairlead.featurestore.erasure_steps import derive_artifacts, is_settled, release_artifacts
from fairlead.featurestore.erasures import trained_models
from fairlead.featurestore.lost_regions import losses_of
from fairlead.featurestore.strays import ROW_KINDS
from fairlead.featurestore.tables import SnapshotRow
from fairlead.featurestore.tables_erasures import ErasedArtifactRow, ErasedStoreRow, ErasureRow
from fairlead.registry import audit
from fairlead.registry.identity import system_caller
from fairlead.registry.locations import get_location
from fairlead.registry.tables import ArtifactRow, UploadRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.ports import Clock
    from fairlead.featurestore.served_log import ServedFolder
    from fairlead.sync.scratch import Scratch

_SWEPT_FOR = timedelta(days=7)
_ON_THEIR_WAY = timedelta(minutes=1)
_NAME_DIGITS = 32
_STEM = re.compile(f"[0-9a-f]{{{_NAME_DIGITS},}}")

NOT_REACHED: tuple[str, ...] = (
    "sources of feature views, and what is read from them without a snapshot: whoever has them takes the subject out",
    "rows that name the subject by something else than these join keys",
    "models: one that was trained on the subject is listed and not trained again",
    "training sets, exports, Feast repositories and other files that somebody took out of Fairlead",
    "caches of clients and edge caches: they hold blocks of old artifacts until they need the room",
    "backups of databases and buckets",
    "the last few copies of the record: they hold the least and greatest values of columns as they were",
    "answers that were logged outside of Fairlead",
)
"""What an erasure does not touch, as its certificate says."""


class Erasing:
    """The deriver of erasures. `signing_key` is an Ed25519 private key, as its 32 raw bytes."""

    def __init__(self, clock: Clock, *, signing_key: bytes) -> None:
        self._clock = clock
        self._signing_key = signing_key

    def __call__(self, session: Session, now: datetime) -> None:
        """Bring every running erasure as far as what is recorded lets it go."""
        running = select(ErasureRow).where(ErasureRow.state == RUNNING).order_by(ErasureRow.id)
        unsettled: set[str] = set()
        for erasure in session.scalars(running.with_for_update(skip_locked=True)).all():
            if erasure.workspace_id in unsettled:
                # One after the other: what one writes anew must not bring back what another took out. An earlier one
                # may still replace what a later one has begun to look through, where a snapshot of before turns up
                # late; so `derive_artifacts` also drops what it finds replaced, which this order does not spare it.
                continue
            derive_artifacts(session, erasure, now)
            session.flush()
            if not is_settled(session, erasure):
                unsettled.add(erasure.workspace_id)
                continue
            derive_stores(session, erasure, now)
            is_forgotten = all(row.state in {DONE, GIVEN_UP} for row in stores_of(session, erasure))
            if not is_forgotten or writes_before(session, erasure):
                continue
            release_artifacts(session, erasure, now)
            derive_locations(session, erasure, is_look_due, now)
            cleared = {row.location_id for row in locations_of(session, erasure) if row.state == CLEAN}
            if {each.id for each in storage_locations(session, erasure)} <= cleared:
                self._finish(session, erasure, now)

    def sign(self, session: Session, erasure: ErasureRow) -> None:
        """Make the certificate of an erasure that is done, from what is recorded now."""
        erasure.certificate = sign_certificate(statement_of(session, erasure), self._signing_key)

    def _finish(self, session: Session, erasure: ErasureRow, now: datetime) -> None:
        erasure.state, erasure.finished_at = DONE, now
        self.sign(session, erasure)
        audit.record(
            session,
            system_caller(erasure.workspace_id, "worker"),
            self._clock,
            action="erasure.done",
            subject=erasure.id,
            facts={"rows_removed": sum(row.rows_removed or 0 for row in artifacts_of(session, erasure))},
        )


class SweptRows:
    """A deriver for the machine that keeps copies of rows: those of artifacts that nobody has any more go.

    What was erased while the machine was away goes when it is back, and so does what a process that died was at.
    """

    def __init__(self, folder: Path, scratch: Scratch) -> None:
        self._folder = folder
        self._scratch = scratch
        self._has_swept_all = False

    def __call__(self, session: Session, now: datetime) -> None:
        """Delete what lies here of artifacts that the record does not have, or has released."""
        is_recent = or_(ErasureRow.state == RUNNING, ErasureRow.finished_at > now - _SWEPT_FOR)
        erasures = select(ErasureRow.workspace_id).where(is_recent if self._has_swept_all else true()).distinct()
        self._has_swept_all = True
        for workspace_id in session.scalars(erasures).all():
            self._scratch.sweep()
            for folder in (self._folder / workspace_id).glob("*"):
                kept = _kept(session, workspace_id, folder.name)
                for path in folder.iterdir():
                    if not {stem[:_NAME_DIGITS] for stem in _STEM.findall(path.name)} <= kept:
                        _remove(path)


def _kept(session: Session, workspace_id: str, residency: str) -> set[str]:
    """What the names of copies begin with, of artifacts that somebody has, or that are just read back."""
    artifacts = select(ArtifactRow.digest).where(
        ArtifactRow.workspace_id == workspace_id,
        ArtifactRow.residency == residency,
        ArtifactRow.kind.in_(ROW_KINDS),
        ArtifactRow.released_at.is_(None),
    )
    handed = select(UploadRow.artifact_digest).where(
        UploadRow.workspace_id == workspace_id,
        UploadRow.residency == residency,
        UploadRow.kind.in_(ROW_KINDS),
        UploadRow.state == "VERIFYING",
    )
    digests = [*session.scalars(artifacts), *session.scalars(handed)]
    return {digest_hex(Digest(digest))[:_NAME_DIGITS] for digest in digests if digest is not None}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class SweptSamples:
    """A deriver for the machine of a region's feature server: samples of what was served before go.

    They hold no keys, so whose rows they are of cannot be told: all of a service go in which the subject can have been.
    """

    def __init__(self, served: ServedFolder) -> None:
        self._served = served

    def __call__(self, session: Session, _now: datetime) -> None:
        """Delete samples from before the online store forgot, and of answers that were on their way then."""
        query = (
            select(ErasedStoreRow)
            .join(
                ErasureRow,
                (ErasureRow.workspace_id == ErasedStoreRow.workspace_id) & (ErasureRow.id == ErasedStoreRow.erasure_id),
            )
            .where(ErasureRow.state == RUNNING, ErasedStoreRow.state == DONE, ~ErasedStoreRow.service.startswith(LOG))
        )
        for row in session.scalars(query).all():
            for path in self._served.files(row.region, row.workspace_id, row.service):
                if path.stat().st_mtime <= (row.changed_at + _ON_THEIR_WAY).timestamp():
                    path.unlink(missing_ok=True)


def statement_of(session: Session, erasure: ErasureRow) -> dict[str, JsonValue]:
    """What the certificate of an erasure states."""
    artifacts = artifacts_of(session, erasure)
    return {
        "workspace": erasure.workspace_id,
        "erasure": erasure.id,
        "keys": [*erasure.keys],
        "salt": erasure.salt,
        "subject_hash": erasure.subject_hash,
        "event_times_until": format_time(erasure.until),
        "reason": erasure.reason,
        "requested_by": erasure.requested_by,
        "requested_at": format_time(erasure.requested_at),
        "finished_at": None if erasure.finished_at is None else format_time(erasure.finished_at),
        "rows_removed": sum(row.rows_removed or 0 for row in artifacts),
        "artifacts_looked_through": len(artifacts),
        "artifacts": [_artifact(row) for row in artifacts if row.state == REPLACED],
        "strays": _named(artifacts, DROPPED),
        "snapshots": _snapshots(session, erasure),
        "locations": _locations(session, erasure),
        "given_up": losses_of(session, erasure),
        "lost": _named(artifacts, LOST),
        "stores": [
            {
                "region": row.region,
                **({"given_up": True} if row.state == GIVEN_UP else {}),
                "log" if row.service.startswith(LOG) else "service": row.service.removeprefix(LOG),
                **(row.facts or {}),
            }
            for row in stores_of(session, erasure)
        ],
        "models": [
            {
                "model": each.model,
                "version": each.version,
                "snapshot": each.snapshot,
                "environments": [*each.environments],
            }
            for each in trained_models(session, erasure)
        ],
        "not_reached": [*NOT_REACHED],
    }


def _artifact(row: ErasedArtifactRow) -> dict[str, JsonValue]:
    facts: Mapping[str, JsonValue] = row.facts or {}
    return {
        "kind": row.kind,
        "view": facts["view"],
        "residency": row.residency,
        "old_digest": row.digest,
        "new_digest": row.new_digest,
        "rows_removed": row.rows_removed,
        "rows": facts["rows"],
    }


def _named(artifacts: Sequence[ErasedArtifactRow], state: str) -> list[JsonValue]:
    return [
        {"kind": row.kind, "residency": row.residency, "digest": row.digest} for row in artifacts if row.state == state
    ]


def _snapshots(session: Session, erasure: ErasureRow) -> list[JsonValue]:
    found: list[JsonValue] = []
    for part in parts_of(session, erasure):
        snapshot = session.get_one(SnapshotRow, (part.workspace_id, part.snapshot_id))
        found.append(
            {
                "snapshot": snapshot.digest,
                "service": snapshot.service,
                "as_of": format_time(snapshot.as_of),
                "view": part.view,
                "residency": part.residency,
                "old_digest": part.old_digest,
                "new_digest": part.new_digest,
                "old_rows_digest": part.old_rows_digest,
                "rows_digest": part.rows_digest,
                "rows_removed": part.rows_removed,
            }
        )
    return found


def _locations(session: Session, erasure: ErasureRow) -> list[JsonValue]:
    found: list[JsonValue] = []
    for row in locations_of(session, erasure):
        if row.state == GIVEN_UP:
            continue
        location = get_location(session, row.workspace_id, row.location_id)
        found.append(
            {
                "location": location.name,
                "region": location.region,
                "objects_deleted": row.objects_deleted,
                "checked_at": None if row.checked_at is None else format_time(row.checked_at),
            }
        )
    return found
