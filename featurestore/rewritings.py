"""What erasures took out of a snapshot: its digest stays, because models pin it, and it says what it was before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from fairlead.featurestore.tables_erasures import ErasedPartRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.featurestore.tables import SnapshotRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriting:
    """That an erasure took rows out of a part, whose artifact was `old_digest` and whose rows `old_rows_digest` before.

    With these of the first erasure, and its rows and all that were removed, the snapshot's digest can be computed.
    """

    erasure: str
    old_digest: str
    old_rows_digest: str | None
    rows_removed: int


def rewritings(session: Session, snapshot: SnapshotRow) -> Mapping[tuple[str, str], tuple[Rewriting, ...]]:
    """What was taken out of each part of a snapshot, by view and class, the earliest first."""
    query = select(ErasedPartRow).where(
        ErasedPartRow.workspace_id == snapshot.workspace_id, ErasedPartRow.snapshot_id == snapshot.id
    )
    found: dict[tuple[str, str], tuple[Rewriting, ...]] = {}
    for row in session.scalars(query.order_by(ErasedPartRow.erasure_id)):
        each = Rewriting(
            erasure=row.erasure_id,
            old_digest=row.old_digest,
            old_rows_digest=row.old_rows_digest,
            rows_removed=row.rows_removed,
        )
        found[row.view, row.residency] = (*found.get((row.view, row.residency), ()), each)
    return found
