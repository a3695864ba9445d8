"""What an erasure still lacks, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlead.featurestore.erasure_places import storage_locations, writes_before
from fairlead.featurestore.erasure_rows import (
    CLEAN,
    LOG,
    REPLACED,
    VERIFYING,
    WAITING,
    artifacts_of,
    locations_of,
    stores_of,
)
from fairlead.featurestore.erasure_steps import model_with, pending_snapshots

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.featurestore.tables_erasures import ErasureRow

MISSING_MAX = 100


def missing_of(session: Session, erasure: ErasureRow) -> list[str]:
    """What is still to be done, in words, in its order; of much, how much more there is."""
    found = [*_artifacts(session, erasure), *_stores(session, erasure), *_locations(session, erasure)]
    more = len(found) - MISSING_MAX
    return [*found[:MISSING_MAX], f"and {more} more"] if more > 0 else found


def _artifacts(session: Session, erasure: ErasureRow) -> list[str]:
    found: list[str] = []
    for row in artifacts_of(session, erasure):
        if row.state in {WAITING, VERIFYING}:
            what = "looked through" if row.state == WAITING else "read back after it was written anew"
            found.append(f"artifact {row.digest} ({row.residency}) is to be {what}")
        elif row.state == REPLACED and (model := model_with(session, row)):
            found.append(f"artifact {row.digest} is also the file of {model}: delete and release that version")
    found += [f"snapshot {each} is being taken" for each in pending_snapshots(session, erasure)]
    return [*found, *(f"upload {each} is to end" for each in writes_before(session, erasure))]


def _stores(session: Session, erasure: ErasureRow) -> list[str]:
    found: list[str] = []
    for store in stores_of(session, erasure):
        if store.state == WAITING:
            what = "log" if store.service.startswith(LOG) else "online store"
            found.append(f"{what} {store.service.removeprefix(LOG)} in {store.region} is to forget")
    return found


def _locations(session: Session, erasure: ErasureRow) -> list[str]:
    rows = {row.location_id: row for row in locations_of(session, erasure)}
    found: list[str] = []
    for location in storage_locations(session, erasure):
        row = rows.get(location.id)
        if row is None or row.state != CLEAN:
            left = "" if row is None or row.objects is None else f" ({len(row.objects)} objects are to be collected)"
            found.append(f"location {location.name} is to be cleared{left}")
    return found
