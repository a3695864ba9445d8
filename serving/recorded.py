"""What the copy of the record has of serving: which bundle was built for which version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy import select

from fairlead.registry.tables import RegisteredModelRow
from fairlead.serving.bundle_papers import PROVENANCE
from fairlead.serving.tables import BundleRow
from fairlead.serving.tables_bundles import BundlePaperRow, BundlePolicyRow, BundleTestRow
from fairlead.sync.record_rows import MODEL, RecordedRow, rows_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def bundle_rows(session: Session, workspace_id: str) -> Iterator[RecordedRow]:
    """The rows of bundles with what is nowhere else: where each is from, its tests, and the policies, by model."""
    of_models = select(RegisteredModelRow.id, RegisteredModelRow.name, RegisteredModelRow.residency).where(
        RegisteredModelRow.workspace_id == workspace_id
    )
    models = {model_id: (name, residency) for model_id, name, residency in session.execute(of_models)}
    for table in (BundleRow, BundlePaperRow, BundleTestRow, BundlePolicyRow):
        for row in rows_of(session, table, workspace_id):
            # The other papers lie in the bundle too.
            if table is not BundlePaperRow or row["kind"] == PROVENANCE:
                name, residency = models[row["model_id"]]
                yield RecordedRow(kind=MODEL, name=name, table=table.__tablename__, residency=residency, row=row)
