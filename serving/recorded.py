"""What the copy of the record has of serving: which bundle was built for which version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy import select

from fairlead.registry.tables import RegisteredModelRow
from fairlead.serving.tables import BundleRow
from fairlead.sync.record_rows import MODEL, RecordedRow, rows_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def bundle_rows(session: Session, workspace_id: str) -> Iterator[RecordedRow]:
    """The rows of bundles, with their models."""
    models = select(RegisteredModelRow.id, RegisteredModelRow.name).where(
        RegisteredModelRow.workspace_id == workspace_id
    )
    names = dict(session.execute(models).all())
    for row in rows_of(session, BundleRow, workspace_id):
        yield RecordedRow(
            kind=MODEL,
            name=names[row["model_id"]],
            table=BundleRow.__tablename__,
            residency=row["residency"],
            row=row,
        )
