"""The papers of a bundle: its lock, the SBOM that lies in it too, and the signed statement of where it is from."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.serving.tables import BundleRow
from fairlead.serving.tables_bundles import BundlePaperRow

LOCK, SBOM, PROVENANCE = "lock", "sbom", "provenance"


def keep_paper(session: Session, bundle: BundleRow, kind: str, content: str, now: datetime) -> None:
    """Keep a paper in the place of an earlier one of its kind."""
    row = session.get(BundlePaperRow, (bundle.workspace_id, bundle.id, kind))
    if row is None:
        row = BundlePaperRow(workspace_id=bundle.workspace_id, bundle_id=bundle.id, kind=kind, model_id=bundle.model_id)
        session.add(row)
    row.content, row.created_at = content, now


def papers_of(session: Session, bundle: BundleRow) -> tuple[str, ...]:
    """The kinds of papers that a bundle has."""
    query = select(BundlePaperRow.kind).where(
        BundlePaperRow.workspace_id == bundle.workspace_id, BundlePaperRow.bundle_id == bundle.id
    )
    return tuple(sorted(session.scalars(query)))


def read_paper(session: Session, bundle: BundleRow, kind: str) -> str | None:
    """A paper, or None where there is none (yet)."""
    row = session.get(BundlePaperRow, (bundle.workspace_id, bundle.id, kind))
    return None if row is None else row.content
