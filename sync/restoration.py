"""Restoring: a workspace's record made again from its copies at locations.

Copies of several locations are put together: what may not lie at one of them is in another's. The newest copy that has
a row says what it is. Nothing is believed that a copy says about bytes: replicas come back as waiting to be read, and
are VERIFIED, and their blocks in the index, when a worker has read them. What a copy does not hold is told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ForeignKeyConstraint, Table, insert

from fairlead.core.db import is_dry_run
from fairlead.core.errors import AlreadyExists, JsonValue
from fairlead.registry import audit
from fairlead.registry.identity import system_caller
from fairlead.registry.tables import WorkspaceRow
from fairlead.sync.record_rows import tables_in_order, to_values

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.sync.store.record import RecordCopy

Rows = dict[str, dict[tuple[Any, ...], dict[str, Any]]]
"""Rows by table and primary key."""

_LOST = (
    "API tokens and webhooks: the server makes the owner's token at its first start; make the others anew.",
    "The audit log and the ledger: they begin anew. Exports that were made of them stay valid.",
    "Deployments and placements: ask for them again.",
    "Uploads that were open: run the same commands again.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """What was restored: rows by table, as of when; what was not, in words; and the audit anchor of the copy."""

    workspace: str
    sequence: int
    as_of: datetime
    anchor: str | None
    rows: Mapping[str, int]
    lost: tuple[str, ...]


def restore_record(database: Database | None, clock: Clock, copies: Sequence[RecordCopy]) -> Restoration:
    """Make a workspace again in a database that has none of its name; without a database, only say what would be.

    `copies` are of one workspace. Nothing is restored unless all of it is.

    Raises:
        AlreadyExists: if the database has the workspace.
        CorruptObject, ObjectNotFound: if a document of a copy is damaged or missing; use another location's.
    """
    newest_first = sorted(copies, key=lambda copy: copy.index.sequence, reverse=True)
    index = newest_first[0].index
    rows = _collect(newest_first)
    lost = [*_LOST, *_settle(rows)]
    orphans = _drop_orphans(rows)
    lost += [f"{count} rows of {table}, which refer to what is in no copy." for table, count in sorted(orphans.items())]
    counts = {table: len(found) for table, found in rows.items() if found}
    if database is not None and not is_dry_run():
        _insert(database, clock, newest_first, rows)
    return Restoration(
        workspace=index.workspace,
        sequence=index.sequence,
        as_of=index.issued_at,
        anchor=index.anchor,
        rows=dict(sorted(counts.items())),
        lost=tuple(lost),
    )


def _collect(newest_first: Sequence[RecordCopy]) -> Rows:
    found: Rows = defaultdict(dict)
    known = {table.name: table for table in tables_in_order()}
    for copy in newest_first:
        for document in (*copy.workspace().values(), *copy.models()):
            for name, rows in document.rows.items():
                if name in known:
                    for row in rows:
                        key = _key(known[name], row)
                        found[name].setdefault(key, dict(row))
    return found


def _settle(rows: Rows) -> list[str]:
    """Bring what was under way to a state that a new server can go on from; what that loses, in words."""
    for replica in rows.get("replicas", {}).values():
        # With its layout, so that reading it again is enough if it is whole.
        replica |= {
            "state": "PENDING",
            "error_code": None,
            "verified_at": None,
            "planned_source_location_id": None,
            "planned_bytes": None,
            "planned_usd": None,
        }
    lost: list[str] = []
    unread = [row for row in rows.get("model_versions", {}).values() if row["state"] == "PENDING"]
    for version in unread:
        detail = "The server was lost before every byte was read back."
        version |= {"state": "FAILED", "error_code": "not-ready", "error_detail": detail}
    if unread:
        lost.append(f"{len(unread)} versions that were not READY yet: register them again.")
    for snapshot in rows.get("snapshots", {}).values():
        if snapshot["state"] == "PENDING":
            snapshot |= {"state": "FAILED", "error_code": "not-ready", "error_detail": "The server was lost before."}
    for bundle in rows.get("bundles", {}).values():
        if bundle["state"] != "READY":
            bundle |= {"state": "PENDING", "upload_id": None}
    return lost


def _drop_orphans(rows: Rows) -> Counter[str]:
    """Leave out rows that refer to rows that are in no copy; how many there were, by table."""
    dropped: Counter[str] = Counter()
    for table in tables_in_order():
        found = rows.get(table.name)
        if not found:
            continue
        for constraint in table.foreign_key_constraints:
            target = constraint.referred_table
            if target.name == WorkspaceRow.__tablename__:
                continue
            wanted = _referable(rows.get(target.name, {}), constraint)
            for key in [key for key, row in found.items() if not _refers(row, constraint, wanted)]:
                del found[key]
                dropped[table.name] += 1
    return dropped


def _insert(database: Database, clock: Clock, copies: Sequence[RecordCopy], rows: Rows) -> None:
    index = copies[0].index
    with database.write() as session:
        if session.get(WorkspaceRow, index.workspace) is not None:
            raise AlreadyExists(
                f"The database has a workspace {index.workspace!r} already.",
                hint="Restore into an empty database: --database-url sqlite:///FILE or postgresql+psycopg://...",
                workspace=index.workspace,
            )
        for table in tables_in_order():
            values = [to_values(table, row) for row in rows.get(table.name, {}).values()]
            if table.name == WorkspaceRow.__tablename__:
                # The next copy and the next refs go on from those that lie at the locations.
                gone_on = {"refs_revision": index.refs_revision + 1, "record_base": index.sequence}
                values = [value | gone_on for value in values]
            if table.name == "locations":
                fresh = {"published_refs_revision": -1, "published_record_sequence": -1}
                values = [value | fresh for value in values]
            if values:
                session.execute(insert(table), _same_columns(table, values))
        facts: dict[str, JsonValue] = {
            "sequence": index.sequence,
            "anchor": index.anchor,
            "signed_by": [copy.public_key.hex() for copy in copies],
        }
        caller = system_caller(index.workspace, "restore")
        audit.record(session, caller, clock, action="record.restore", subject=index.workspace, facts=facts)


def _same_columns(table: Table, values: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that all have the same columns: what an older copy lacks gets the column's default."""
    defaults: dict[str, Any] = {}
    for column in table.columns:
        default = cast("Any", column.default)
        if default is not None:
            defaults[column.name] = default.arg(None) if default.is_callable else default.arg
        elif column.nullable:
            defaults[column.name] = None
    return [defaults | value for value in values]


def _key(table: Table, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in table.primary_key.columns)


def _referable(
    rows: Mapping[tuple[Any, ...], Mapping[str, Any]], constraint: ForeignKeyConstraint
) -> set[tuple[Any, ...]]:
    names = [element.column.name for element in constraint.elements]
    return {tuple(row[name] for name in names) for row in rows.values()}


def _refers(row: Mapping[str, Any], constraint: ForeignKeyConstraint, wanted: set[tuple[Any, ...]]) -> bool:
    values = tuple(row.get(column.name) for column in constraint.columns)
    return None in values or values in wanted
