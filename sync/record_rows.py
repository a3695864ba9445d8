"""The record as rows of plain JSON, each with the residency class that says where a copy of it may lie, and back.

What is copied is what serving and restoring need. Tokens, webhooks, uploads, work, the audit log and the ledger are
not: they hold secrets, pass by, or are made anew.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import LargeBinary, Table, select
from sqlalchemy.orm import Session

from fairlead.core.clock import format_time, parse_time
from fairlead.core.db import Base, UtcDateTime
from fairlead.core.ids import Digest, digest_hex
from fairlead.registry.locations import to_location
from fairlead.registry.tables import (
    AliasMoveRow,
    AliasRow,
    ApprovalRow,
    ArtifactRow,
    EnvironmentRow,
    LocationRow,
    ModelTagRow,
    ModelVersionRow,
    PromotionRow,
    RegisteredModelRow,
    ReplicaRow,
    VersionTagRow,
    WorkspaceRow,
)
from fairlead.registry.tables_bytes import BudgetRow, EncryptionKeyRow, ReplicaPolicyRow
from fairlead.registry.tables_governance import (
    EvaluationRow,
    IssuerRow,
    PromotionPolicyRow,
    RoleBindingRow,
    TrackingServerRow,
)
from fairlead.registry.tables_lifecycle import ModelCardRow, RetentionPolicyRow
from fairlead.registry.tables_losses import LostLocationRow
from fairlead.registry.tables_signatures import SignerRow, VersionSignatureRow

MODEL, SETTINGS = "model", "settings"
ADDRESSES = "addresses"
"""In the settings: how clients reach each location. No table: it is derived, and not restored."""

_UNRESTRICTED = "unrestricted"
# They change with every copy that is made, and a copy does not say of itself that it was made.
_NOT_COPIED = frozenset({"published_refs_revision", "published_record_sequence", "refs_revision", "record_base"})
_OF_MODELS = (
    ModelTagRow,
    ModelVersionRow,
    VersionTagRow,
    AliasRow,
    AliasMoveRow,
    PromotionRow,
    EvaluationRow,
    ModelCardRow,
    VersionSignatureRow,
)
_OF_SETTINGS = (
    WorkspaceRow,
    EnvironmentRow,
    PromotionPolicyRow,
    ReplicaPolicyRow,
    RetentionPolicyRow,
    SignerRow,
    RoleBindingRow,
    IssuerRow,
    TrackingServerRow,
    BudgetRow,
    LocationRow,
    LostLocationRow,
    EncryptionKeyRow,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRow:
    """One row: its columns by name, the residency class it is under, and the document (kind and name) it belongs to."""

    kind: str
    name: str
    table: str
    residency: str
    row: Mapping[str, Any]


RecordSource = Callable[[Session, str], Iterable[RecordedRow]]
"""The rows that one package has of a workspace, in the order of their keys. Reads only."""


def registry_rows(session: Session, workspace_id: str) -> Iterator[RecordedRow]:
    """The rows of models, environments, policies, locations, keys and artifacts."""
    models = {row["id"]: row for row in rows_of(session, RegisteredModelRow, workspace_id)}

    def of_model(table: type[Base], row: Mapping[str, Any], model_id: str) -> RecordedRow:
        model = models[model_id]
        return RecordedRow(
            kind=MODEL, name=model["name"], table=table.__tablename__, residency=model["residency"], row=row
        )

    for model_id, row in models.items():
        yield of_model(RegisteredModelRow, row, model_id)
    users: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    promoted: dict[str, str] = {}
    for table in _OF_MODELS:
        for row in rows_of(session, table, workspace_id):
            yield of_model(table, row, row["model_id"])
            if table is ModelVersionRow and row["artifact_digest"] is not None:
                users[row["residency"], row["artifact_digest"]].add(row["model_id"])
            elif table is PromotionRow:
                promoted[row["id"]] = row["model_id"]
    for row in rows_of(session, ApprovalRow, workspace_id):
        yield of_model(ApprovalRow, row, promoted[row["promotion_id"]])
    for table in (ArtifactRow, ReplicaRow):
        column = "digest" if table is ArtifactRow else "artifact_digest"
        for row in rows_of(session, table, workspace_id):
            used_by = users.get((row["residency"], row[column]))
            for model_id in sorted(used_by or ()):
                yield of_model(table, row, model_id)
            if not used_by:
                yield _of_artifacts(table, row, row[column])
    yield from _settings(session, workspace_id)


def rows_of(session: Session, table: type[Base], workspace_id: str) -> list[dict[str, Any]]:
    """The rows of a workspace in a table, as plain JSON, in the order of their keys."""
    columns = cast("Table", table.__table__)
    query = select(columns).where(columns.c.workspace_id == workspace_id).order_by(*columns.primary_key.columns)
    return [
        {name: _to_json(value) for name, value in row.items() if name not in _NOT_COPIED}
        for row in session.execute(query).mappings()
    ]


def to_values(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's columns as the database takes them. What the table has no column for (any more) is left out."""
    return {name: _from_json(table.columns[name].type, value) for name, value in row.items() if name in table.columns}


def tables_in_order() -> Sequence[Table]:
    """Every table, those that others refer to first."""
    return Base.metadata.sorted_tables


def _settings(session: Session, workspace_id: str) -> Iterator[RecordedRow]:
    for table in _OF_SETTINGS:
        for row in rows_of(session, table, workspace_id):
            yield _of_settings(table.__tablename__, row)
    query = select(LocationRow).where(LocationRow.workspace_id == workspace_id).order_by(LocationRow.name)
    for location in map(to_location, session.scalars(query)):
        address = {
            "id": location.id,
            "name": location.name,
            "region": location.region,
            "url": location.url,
            "options": location.client_options,
            "kind": location.kind,
            "state": location.state,
        }
        yield _of_settings(ADDRESSES, address)


def _of_settings(table: str, row: Mapping[str, Any]) -> RecordedRow:
    return RecordedRow(kind=SETTINGS, name=SETTINGS, table=table, residency=_UNRESTRICTED, row=row)


def _of_artifacts(table: type[Base], row: Mapping[str, Any], digest: str) -> RecordedRow:
    """What no model version has: snapshots, bundles, uploads that nobody registered; in 16 documents."""
    return RecordedRow(
        kind="artifacts",
        name=f"artifacts-{digest_hex(Digest(digest))[0]}",
        table=table.__tablename__,
        residency=row["residency"],
        row=row,
    )


def _to_json(value: object) -> object:
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def _from_json(kind: object, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(kind, UtcDateTime):
        return parse_time(value)
    if isinstance(kind, LargeBinary):
        return base64.b64decode(value)
    return value
