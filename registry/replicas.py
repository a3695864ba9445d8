"""Replicas: where each artifact should be, where it is, and the work that closes the gap.

What should be true follows from two facts that never change for an artifact: its residency class, and the regions it
was wanted in (None: all). Every location that both permit gets a replica row, also a location that is added later, and
also a row that was lost. A row that is not VERIFIED asks for a copy; only a VERIFIED one is ever read.

    PENDING -> COPYING -> VERIFIED -> CORRUPT -> COPYING -> VERIFIED ...
                  `-> FAILED (tried again) ---------^
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from sqlalchemy import ColumnElement, Select, and_, exists, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import ArtifactNotFound, IntegrityError, InvalidInput, NotReady, error_classes
from fairlead.core.ids import digest_hex, parse_digest
from fairlead.core.ports import Clock
from fairlead.registry import audit, work
from fairlead.registry.identity import Caller
from fairlead.registry.locations import FILLED_STATES, Location, filled_locations, find_location, get_location
from fairlead.registry.tables import ArtifactRow, LocationRow, ReplicaRow, WorkRow, WorkspaceRow
from fairlead.registry.tables_bytes import ReplicaPolicyRow

REPLICATE = "replicate"
"""The work of making a replica VERIFIED; its subject is `replica_subject`."""

VERIFY_REPLICA = "verify-replica"
"""The work of reading a VERIFIED replica's bytes again; the same subject."""

ReplicaState = Literal["PENDING", "COPYING", "VERIFIED", "CORRUPT", "FAILED"]
_CORRUPTION_CODES = frozenset(
    {code for code, cls in error_classes().items() if issubclass(cls, IntegrityError)} | {"object-not-found"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaKey:
    """One artifact at one location."""

    workspace_id: str
    residency: str
    artifact_digest: str
    location_id: str

    @property
    def subject(self) -> str:
        """The subject of this replica's work."""
        return f"{self.residency}/{digest_hex(parse_digest(self.artifact_digest))}/{self.location_id}"

    @staticmethod
    def from_subject(workspace_id: str, subject: str) -> ReplicaKey:
        """The key that a piece of work is about."""
        residency, digits, location_id = subject.split("/")
        return ReplicaKey(
            workspace_id=workspace_id,
            residency=residency,
            artifact_digest=f"sha256:{digits}",
            location_id=location_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """An artifact at a location. Sizes are in bytes: stored there, and moved to make it so."""

    location: Location
    residency: str
    key_id: str
    state: ReplicaState
    layout_key: str | None
    stored_bytes: int | None
    moved_bytes: int | None
    source_region: str | None
    verified_at: datetime | None
    error_code: str | None
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What travels under one digest, and where it is. `residency` is the least strict class that it is held under."""

    digest: str
    kind: str
    residency: str
    size_bytes: int
    file_count: int
    created_at: datetime
    replicas: tuple[Replica, ...]


class Artifacts:
    """Shows artifacts with their replicas, and takes word of damaged ones."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def get(self, caller: Caller, digest: str) -> Artifact:
        """An artifact and its replicas, by location.

        Raises:
            InvalidDigest: if it is no digest.
            ArtifactNotFound: if the workspace has none of this name.
        """
        with self._database.read() as session:
            rows = _find_artifacts(session, caller.workspace_id, digest)
            replicas = _replicas_of(session, rows)
        least_strict = min(rows, key=lambda row: (row.residency != "unrestricted", row.residency))
        return Artifact(
            digest=least_strict.digest,
            kind=least_strict.kind,
            residency=least_strict.residency,
            size_bytes=least_strict.size_bytes,
            file_count=least_strict.file_count,
            created_at=least_strict.created_at,
            replicas=tuple(replicas),
        )

    def report(self, caller: Caller, digest: str, *, location: str, code: str) -> None:
        """Take a reader's word that a replica's bytes are wrong: it is not served until it was read back or mended.

        Reporting it again changes nothing.

        Raises:
            ArtifactNotFound, LocationNotFound: if there is no such replica.
            InvalidInput: if the code is not one of damaged or missing bytes.
        """
        if code not in _CORRUPTION_CODES:
            raise InvalidInput(
                f"{code[:60]!r} does not mean damaged bytes.",
                hint=f"Use one of: {', '.join(sorted(_CORRUPTION_CODES))}.",
            )
        now = self._clock.now()
        with self._database.write() as session:
            rows = _find_artifacts(session, caller.workspace_id, digest)
            place = find_location(session, caller.workspace_id, location)
            for row in rows:
                key = _key(row, place.id)
                replica = lock_replica(session, key)
                if replica is None or replica.state != "VERIFIED":
                    continue
                mark_corrupt(session, replica, place.region, code, now)
                audit.record(
                    session,
                    caller,
                    self._clock,
                    action="replica.report",
                    subject=row.digest,
                    residency=row.residency,
                    facts={"location": place.name, "region": place.region, "code": code},
                )

    def verify(self, caller: Caller, digest: str, *, location: str | None = None) -> Artifact:
        """Have every byte of an artifact's VERIFIED replicas (or of the one at a location) read again, as work.

        Raises:
            ArtifactNotFound, LocationNotFound: if there is no such artifact or location.
            NotReady: if there is no VERIFIED replica to read.
        """
        now = self._clock.now()
        with self._database.write() as session:
            rows = _find_artifacts(session, caller.workspace_id, digest)
            only = None if location is None else find_location(session, caller.workspace_id, location)
            asked = [
                require_replica_work(
                    session, VERIFY_REPLICA, _key(row, replica.location.id), replica.location.region, now
                )
                for row in rows
                for replica in _replicas_of(session, [row])
                if replica.state == "VERIFIED" and (only is None or replica.location.id == only.id)
            ]
        if not asked:
            where = "anywhere" if location is None else f"at {location}"
            raise NotReady(f"No replica of {digest} is VERIFIED {where}.", hint="See what is where: fairlead work")
        return self.get(caller, digest)


ArtifactKey = tuple[str, str, str]
"""Workspace, residency class and digest of an artifact, in which order they are swept."""


def next_artifacts(session: Session, after: ArtifactKey | None, count: int) -> Sequence[ArtifactKey]:
    """The keys of the artifacts that follow one, at most `count`."""
    key = (ArtifactRow.workspace_id, ArtifactRow.residency, ArtifactRow.digest)
    query = select(*key).order_by(*key).limit(count)
    if after is not None:
        query = query.where(tuple_(*key) > tuple_(*after))
    return [(workspace, residency, digest) for workspace, residency, digest in session.execute(query).all()]


def derive_replicas(session: Session, now: datetime, among: Sequence[ArtifactKey] | None = None) -> int:
    """Insert the replica rows that should exist and do not; how many there were.

    Reads every artifact's key, or those that lie between the first and the last of `among`. What makes a replica wanted
    (a verified upload, a new location) calls it, or `want_replicas`, itself; so it finds only what was lost. Workspaces
    with replica policies are left to `replica_policies.PolicySweep`.
    """
    key = tuple_(ArtifactRow.workspace_id, ArtifactRow.residency, ArtifactRow.digest)
    is_meant = [] if among is None else [key >= tuple_(*among[0]), key <= tuple_(*among[-1])]
    inserted = 0
    for workspace_id in session.scalars(select(WorkspaceRow.workspace_id).where(~_has_policies())).all():
        for location in filled_locations(session, workspace_id):
            is_there = exists().where(
                ReplicaRow.workspace_id == ArtifactRow.workspace_id,
                ReplicaRow.residency == ArtifactRow.residency,
                ReplicaRow.artifact_digest == ArtifactRow.digest,
                ReplicaRow.location_id == location.id,
            )
            missing = session.scalars(
                select(ArtifactRow).where(
                    ArtifactRow.workspace_id == workspace_id, ArtifactRow.released_at.is_(None), ~is_there, *is_meant
                )
            )
            for artifact in missing.all():
                inserted += _want(session, artifact, location, now)
    return inserted


def want_replicas(session: Session, artifact: ArtifactRow, now: datetime) -> None:
    """Insert the rows of every replica that one artifact should have, where no policy has a word in that."""
    if session.scalar(select(WorkspaceRow.workspace_id).where(_has_policies(artifact.workspace_id)).limit(1)):
        return
    for location in filled_locations(session, artifact.workspace_id):
        _want(session, artifact, location, now)


def derive_replications(session: Session, now: datetime) -> None:
    """Require the copies that are lacking: every permitted replica that is not VERIFIED and has no work yet."""
    subject = ReplicaRow.residency + "/" + _hex_of_digest() + "/" + ReplicaRow.location_id
    has_work = exists().where(
        WorkRow.workspace_id == ReplicaRow.workspace_id, WorkRow.kind == REPLICATE, WorkRow.subject == subject
    )
    query: Select[ReplicaRow, LocationRow] = (
        select(ReplicaRow, LocationRow)
        .join(
            LocationRow,
            and_(LocationRow.workspace_id == ReplicaRow.workspace_id, LocationRow.id == ReplicaRow.location_id),
        )
        .where(
            ReplicaRow.state != "VERIFIED",
            ReplicaRow.is_wanted,
            LocationRow.state.in_(FILLED_STATES),
            ReplicaRow.error_code.is_distinct_from("residency-violation"),
            ~has_work,
        )
    )
    for replica, location in session.execute(query).all():
        require_replica_work(
            session, REPLICATE, key_of(replica), location.region, now, is_urgent=replica.state == "CORRUPT"
        )


def require_replica_work(
    session: Session, kind: str, key: ReplicaKey, region: str, now: datetime, *, is_urgent: bool = False
) -> bool:
    """Require work on one replica in its region; True if it was not required yet."""
    return work.require_work(
        session,
        workspace_id=key.workspace_id,
        residency=key.residency,
        kind=kind,
        subject=key.subject,
        region=region,
        priority=work.URGENT if is_urgent else work.USUAL,
        now=now,
    )


def ensure_replica(session: Session, key: ReplicaKey, now: datetime) -> ReplicaRow:
    """The row of a replica, inserted as PENDING unless it is there, and locked until the transaction ends."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    insert = dialect.insert(ReplicaRow).values(
        workspace_id=key.workspace_id,
        residency=key.residency,
        artifact_digest=key.artifact_digest,
        location_id=key.location_id,
        state="PENDING",
        updated_at=now,
    )
    session.execute(insert.on_conflict_do_nothing())
    row = lock_replica(session, key)
    assert row is not None  # noqa: S101  (it was just inserted, or was there)
    return row


def lock_replica(session: Session, key: ReplicaKey) -> ReplicaRow | None:
    """The row of a replica, locked until the transaction ends, or None."""
    primary_key = (key.workspace_id, key.residency, key.artifact_digest, key.location_id)
    return session.get(ReplicaRow, primary_key, with_for_update=True)


def mark_corrupt(session: Session, replica: ReplicaRow, region: str, code: str, now: datetime) -> None:
    """Take a replica out of service and require, urgently, that it is mended."""
    replica.state = "CORRUPT"
    replica.error_code = code
    replica.updated_at = now
    key = key_of(replica)
    require_replica_work(session, REPLICATE, key, region, now, is_urgent=True)
    work.hasten(session, workspace_id=key.workspace_id, kind=REPLICATE, subject=key.subject, now=now)


def mark_verified(
    session: Session,
    replica: ReplicaRow,
    *,
    layout_key: str,
    stored_bytes: int,
    moved_bytes: int | None,
    source_location_id: str | None,
    now: datetime,
) -> None:
    """Put a replica into service: its own bytes were just read back, through this layout.

    Copies of the same artifact that wait, perhaps for want of a source, are tried at once. `moved_bytes` is None where
    the bytes were there before; what failed on those, though they are whole, is left to its back-off. Where the
    artifact has moved to another key since its bytes were written, nothing changes: they are to be written again, under
    that key.
    """
    artifact = session.get_one(ArtifactRow, (replica.workspace_id, replica.residency, replica.artifact_digest))
    if not layout_key.startswith(f"{replica.workspace_id}/{replica.residency}/{artifact.key_id}/"):
        return
    replica.state = "VERIFIED"
    replica.layout_key = layout_key
    replica.stored_bytes = stored_bytes
    replica.error_code = None
    replica.verified_at = now
    replica.updated_at = now
    if moved_bytes is None:
        return
    replica.moved_bytes = moved_bytes
    replica.source_location_id = source_location_id
    siblings = select(ReplicaRow).where(
        ReplicaRow.workspace_id == replica.workspace_id,
        ReplicaRow.residency == replica.residency,
        ReplicaRow.artifact_digest == replica.artifact_digest,
        ReplicaRow.state != "VERIFIED",
    )
    for sibling in session.scalars(siblings).all():
        work.hasten(
            session, workspace_id=sibling.workspace_id, kind=REPLICATE, subject=key_of(sibling).subject, now=now
        )


def move_to_key(session: Session, artifact: ArtifactRow, key_id: str, now: datetime) -> None:
    """Keep an artifact under another encryption key from now on: every replica is to be written again, under that one.

    What lies under the former key is nobody's from then on, and is collected. The artifact's row is locked.
    """
    if artifact.key_id == key_id:
        return
    artifact.key_id = key_id
    session.execute(
        update(ReplicaRow)
        .where(
            ReplicaRow.workspace_id == artifact.workspace_id,
            ReplicaRow.residency == artifact.residency,
            ReplicaRow.artifact_digest == artifact.digest,
        )
        .values(state="PENDING", layout_key=None, stored_bytes=None, verified_at=None, error_code=None, updated_at=now)
    )
    # Signed refs say where an artifact's objects lie.
    session.execute(
        update(WorkspaceRow)
        .where(WorkspaceRow.workspace_id == artifact.workspace_id)
        .values(refs_revision=WorkspaceRow.refs_revision + 1)
    )


def key_of(replica: ReplicaRow) -> ReplicaKey:
    """The key of a row."""
    return ReplicaKey(
        workspace_id=replica.workspace_id,
        residency=replica.residency,
        artifact_digest=replica.artifact_digest,
        location_id=replica.location_id,
    )


def _want(session: Session, artifact: ArtifactRow, location: Location, now: datetime) -> bool:
    if not location.permits(artifact.residency, artifact.regions):
        return False
    key = _key(artifact, location.id)
    if lock_replica(session, key) is not None:
        return False
    ensure_replica(session, key, now)
    return True


def _has_policies(workspace_id: str | None = None) -> ColumnElement[bool]:
    whose = WorkspaceRow.workspace_id if workspace_id is None else workspace_id
    return exists().where(ReplicaPolicyRow.workspace_id == whose)


def _hex_of_digest() -> ColumnElement[str]:
    return func.substr(ReplicaRow.artifact_digest, len("sha256:") + 1)


def _find_artifacts(session: Session, workspace_id: str, digest: str) -> Sequence[ArtifactRow]:
    query = select(ArtifactRow).where(
        ArtifactRow.workspace_id == workspace_id, ArtifactRow.digest == parse_digest(digest)
    )
    rows = session.scalars(query.order_by(ArtifactRow.residency)).all()
    if not rows:
        raise ArtifactNotFound(
            f"There is no artifact {digest}.", hint="See a model's: fairlead model show NAME", digest=digest
        )
    return rows


def _replicas_of(session: Session, artifacts: Sequence[ArtifactRow]) -> list[Replica]:
    found: list[Replica] = []
    for artifact in artifacts:
        query = select(ReplicaRow).where(
            ReplicaRow.workspace_id == artifact.workspace_id,
            ReplicaRow.residency == artifact.residency,
            ReplicaRow.artifact_digest == artifact.digest,
        )
        found.extend(_to_replica(session, row, artifact.key_id) for row in session.scalars(query).all())
    return sorted(found, key=lambda replica: (replica.location.name, replica.residency))


def _to_replica(session: Session, row: ReplicaRow, key_id: str) -> Replica:
    source = row.source_location_id
    return Replica(
        location=get_location(session, row.workspace_id, row.location_id),
        residency=row.residency,
        key_id=key_id,
        state=cast("ReplicaState", row.state),
        layout_key=row.layout_key,
        stored_bytes=row.stored_bytes,
        moved_bytes=row.moved_bytes,
        source_region=None if source is None else get_location(session, row.workspace_id, source).region,
        verified_at=row.verified_at,
        error_code=row.error_code,
        updated_at=row.updated_at,
    )


def _key(artifact: ArtifactRow, location_id: str) -> ReplicaKey:
    return ReplicaKey(
        workspace_id=artifact.workspace_id,
        residency=artifact.residency,
        artifact_digest=artifact.digest,
        location_id=location_id,
    )
