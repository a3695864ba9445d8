"""What the record has of an erasure: the states, the kinds of work, and the rows of what it goes through."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import UNRESTRICTED
from fairlead.featurestore.tables_erasures import (
    ErasedArtifactRow,
    ErasedLocationRow,
    ErasedPartRow,
    ErasedStoreRow,
    ErasureRow,
)
from fairlead.registry import work

ERASE_ROWS = "erase-rows"
"""The work of looking through one artifact; its subject is `{erasure}/{residency class}/{digest, hexadecimal}`."""

ERASE_STORE = "erase-store"
"""The work of having a service's online stores in a region forget; its subject is `{erasure}/{region}/{service}`."""

ERASE_LOCATION = "erase-location"
"""The work of clearing one location, or of reading whether it is clear; its subject is `{erasure}/{location}`."""

RUNNING, DONE = "RUNNING", "DONE"
WAITING, UNTOUCHED, VERIFYING, REPLACED = "WAITING", "UNTOUCHED", "VERIFYING", "REPLACED"
DROPPED = "DROPPED"
"""The state of a stray whose blocks are known: it is taken away as it is."""
LOST = "LOST"
"""The state of an artifact whose only bytes were at a location that is lost."""
GIVEN_UP = "GIVEN_UP"
"""The state of a location that is lost, and of a store or log in a region that is."""
CLEARING, CLEAN = "CLEARING", "CLEAN"
SNAPSHOT = "snapshot"
"""The kind of an artifact that holds a part of a snapshot; of the other kind are segments of logs."""
LOG = "log/"
"""What the name of a log begins with, among the online stores of an erasure."""


def artifacts_of(session: Session, erasure: ErasureRow) -> Sequence[ErasedArtifactRow]:
    """The artifacts of an erasure, by class and digest."""
    query = select(ErasedArtifactRow).where(
        ErasedArtifactRow.workspace_id == erasure.workspace_id, ErasedArtifactRow.erasure_id == erasure.id
    )
    return session.scalars(query.order_by(ErasedArtifactRow.residency, ErasedArtifactRow.digest)).all()


def parts_of(session: Session, erasure: ErasureRow) -> Sequence[ErasedPartRow]:
    """The parts of snapshots that an erasure rewrote."""
    query = select(ErasedPartRow).where(
        ErasedPartRow.workspace_id == erasure.workspace_id, ErasedPartRow.erasure_id == erasure.id
    )
    return session.scalars(query.order_by(ErasedPartRow.snapshot_id, ErasedPartRow.view, ErasedPartRow.residency)).all()


def stores_of(session: Session, erasure: ErasureRow) -> Sequence[ErasedStoreRow]:
    """The online stores and logs of an erasure."""
    query = select(ErasedStoreRow).where(
        ErasedStoreRow.workspace_id == erasure.workspace_id, ErasedStoreRow.erasure_id == erasure.id
    )
    return session.scalars(query.order_by(ErasedStoreRow.region, ErasedStoreRow.service)).all()


def locations_of(session: Session, erasure: ErasureRow) -> Sequence[ErasedLocationRow]:
    """The locations of an erasure."""
    query = select(ErasedLocationRow).where(
        ErasedLocationRow.workspace_id == erasure.workspace_id, ErasedLocationRow.erasure_id == erasure.id
    )
    return session.scalars(query.order_by(ErasedLocationRow.location_id)).all()


def was_stray(row: ErasedArtifactRow) -> bool:
    """Whether nothing named an artifact when it was found; so of whose view it is, nobody knows."""
    return "view" not in (row.facts or {})


def require(
    session: Session,
    row: ErasedArtifactRow | ErasedStoreRow | ErasedLocationRow,
    kind: str,
    subject: str,
    now: datetime,
    *,
    region: str | None = None,
) -> None:
    """Require work on something that is not as an erasure wants it."""
    work.require_work(
        session,
        workspace_id=row.workspace_id,
        residency=row.residency if isinstance(row, ErasedArtifactRow) else UNRESTRICTED,
        kind=kind,
        subject=subject,
        region=region or (row.region if isinstance(row, ErasedStoreRow) else ""),
        priority=work.URGENT,
        now=now,
    )
