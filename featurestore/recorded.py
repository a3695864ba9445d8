"""What the copy of the record has of features: definitions, snapshots and what is wanted online."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fairlead.catalog import UNRESTRICTED
from fairlead.featurestore.definitions import SERVICE, VIEW
from fairlead.featurestore.erasure_rows import CLEAN, DONE, GIVEN_UP
from fairlead.featurestore.tables import (
    FeatureDefinitionRow,
    FeatureVersionRow,
    OnlineIntentRow,
    SnapshotPartRow,
    SnapshotRow,
)
from fairlead.featurestore.tables_erasures import (
    ErasedArtifactRow,
    ErasedLocationRow,
    ErasedPartRow,
    ErasedStoreRow,
    ErasureRow,
)
from fairlead.featurestore.tables_quality import ExpectationsRow, SnapshotCheckRow
from fairlead.featurestore.tables_streams import FeatureLogRow, FeatureLogSegmentRow, SnapshotLogRow
from fairlead.sync.record_rows import RecordedRow, rows_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.db import Base

FEATURES = "features"


def feature_rows(session: Session, workspace_id: str) -> Iterator[RecordedRow]:
    """The rows of all that is defined, taken, expected and erased; each under the class of what it tells of."""
    definitions = rows_of(session, FeatureDefinitionRow, workspace_id)
    residency = {(row["kind"], row["name"]): row["residency"] for row in definitions}

    for row in rows_of(session, FeatureVersionRow, workspace_id):
        yield _recorded(FeatureVersionRow, row, residency.get((row["kind"], row["name"]), "unrestricted"))
    for row in definitions:
        yield _recorded(FeatureDefinitionRow, row, row["residency"])
    services: dict[str, str] = {name: under for (kind, name), under in residency.items() if kind == SERVICE}
    for row in rows_of(session, SnapshotRow, workspace_id):
        yield _recorded(SnapshotRow, row, services.get(row["service"], "unrestricted"))
    for row in rows_of(session, SnapshotPartRow, workspace_id):
        yield _recorded(SnapshotPartRow, row, row["residency"])
    yield from _erasure_rows(session, workspace_id, residency)
    for row in rows_of(session, ExpectationsRow, workspace_id):
        yield _recorded(ExpectationsRow, row, "unrestricted")
    for table in (SnapshotCheckRow, FeatureLogRow, FeatureLogSegmentRow, SnapshotLogRow):
        for row in rows_of(session, table, workspace_id):
            yield _recorded(table, row, row["residency"])
    for row in rows_of(session, OnlineIntentRow, workspace_id):
        yield _recorded(OnlineIntentRow, row, services.get(row["service"], "unrestricted"))


def _recorded(table: type[Base], row: Mapping[str, Any], under: str) -> RecordedRow:
    return RecordedRow(kind=FEATURES, name=FEATURES, table=table.__tablename__, residency=under, row=row)


def _erasure_rows(
    session: Session, workspace_id: str, residency: Mapping[tuple[str, str], str]
) -> Iterator[RecordedRow]:
    classes: dict[str, str] = {}
    for row in rows_of(session, ErasureRow, workspace_id):
        # Or who was erased would be in the snapshots of a registry that was restored.
        classes[row["id"]] = _class_of_keys(session, workspace_id, row["keys"], residency)
        yield _recorded(ErasureRow, row, classes[row["id"]])
    # Without the artifacts nobody would know which objects of a location are still to be looked for.
    for table in (ErasedArtifactRow, ErasedPartRow):
        for row in rows_of(session, table, workspace_id):
            yield _recorded(table, row, row["residency"])
    for table in (ErasedLocationRow, ErasedStoreRow):
        for row in rows_of(session, table, workspace_id):
            # What was given up is cleared when it comes back, and the certificate then tells the rest again.
            if row["state"] in {CLEAN, DONE, GIVEN_UP}:
                yield _recorded(table, row, classes[row["erasure_id"]])


def _class_of_keys(
    session: Session, workspace_id: str, keys: Sequence[str], residency: Mapping[tuple[str, str], str]
) -> str:
    """The class under which values of join keys are known: of the views that have them, one that permits the most."""
    classes = {
        residency.get((VIEW, row["name"]), UNRESTRICTED)
        for row in rows_of(session, FeatureVersionRow, workspace_id)
        if row["kind"] == VIEW and set(keys) <= {key["name"] for key in row["content"]["keys"]}
    }
    return UNRESTRICTED if UNRESTRICTED in classes else min(classes, default=UNRESTRICTED)
