"""What the copy of the record has of features: definitions, snapshots and what is wanted online."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fairlead.featurestore.definitions import SERVICE
from fairlead.featurestore.tables import (
    FeatureDefinitionRow,
    FeatureVersionRow,
    OnlineIntentRow,
    SnapshotPartRow,
    SnapshotRow,
)
from fairlead.featurestore.tables_streams import FeatureLogRow, FeatureLogSegmentRow, SnapshotLogRow
from fairlead.sync.record_rows import RecordedRow, rows_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.db import Base

FEATURES = "features"


def feature_rows(session: Session, workspace_id: str) -> Iterator[RecordedRow]:
    """The rows of definitions, snapshots, segments and online intents; each under the class of what it tells of."""
    definitions = rows_of(session, FeatureDefinitionRow, workspace_id)
    residency = {(row["kind"], row["name"]): row["residency"] for row in definitions}

    def recorded(table: type[Base], row: Mapping[str, Any], under: str) -> RecordedRow:
        return RecordedRow(kind=FEATURES, name=FEATURES, table=table.__tablename__, residency=under, row=row)

    for row in rows_of(session, FeatureVersionRow, workspace_id):
        yield recorded(FeatureVersionRow, row, residency.get((row["kind"], row["name"]), "unrestricted"))
    for row in definitions:
        yield recorded(FeatureDefinitionRow, row, row["residency"])
    services: dict[str, str] = {name: under for (kind, name), under in residency.items() if kind == SERVICE}
    snapshots: dict[str, str] = {}
    for row in rows_of(session, SnapshotRow, workspace_id):
        snapshots[row["id"]] = services.get(row["service"], "unrestricted")
        yield recorded(SnapshotRow, row, snapshots[row["id"]])
    for row in rows_of(session, SnapshotPartRow, workspace_id):
        yield recorded(SnapshotPartRow, row, row["residency"])
    for table in (FeatureLogRow, FeatureLogSegmentRow, SnapshotLogRow):
        for row in rows_of(session, table, workspace_id):
            yield recorded(table, row, row["residency"])
    for row in rows_of(session, OnlineIntentRow, workspace_id):
        yield recorded(OnlineIntentRow, row, services.get(row["service"], "unrestricted"))
