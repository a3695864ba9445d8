"""Comparing two versions of features, however they are named: by a view, a service, a snapshot or a model.

`cells` (a service as it is now), `cells:2` (its second version), `view:cells:2`, a snapshot's digest or id, or a model
version (`churn/3`, `churn@production`) with what it pins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.clock import format_time
from fairlead.core.db import Database
from fairlead.core.errors import FeatureServiceNotFound, InvalidInput, NotFound
from fairlead.core.ids import parse_name
from fairlead.featurestore.definitions import SERVICE, VIEW
from fairlead.featurestore.differences import Difference, service_differences, snapshot_differences, view_differences
from fairlead.featurestore.on_demand import ON_DEMAND
from fairlead.featurestore.snapshots import SnapshotPart, find_snapshot, to_snapshot
from fairlead.featurestore.tables import FeatureDefinitionRow, FeatureVersionRow, SnapshotRow
from fairlead.registry.identity import Caller
from fairlead.registry.versions import Versions

_NOUNS = {"view": VIEW, "service": SERVICE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a comparison: what was named, the version of the view or service, and the snapshot, if any."""

    reference: str
    kind: str
    name: str
    digest: str
    version: int
    snapshot: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sides and what differs; nothing differs where they are the same."""

    before: Side
    after: Side
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    side: Side
    content: Mapping[str, Any]
    views: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Any] | None


class Comparisons:
    """Compares versions of features."""

    def __init__(self, database: Database, versions: Versions) -> None:
        self._database = database
        self._versions = versions

    def compare(self, caller: Caller, before: str, after: str) -> Comparison:
        """What is different between two versions of a view or service, or what two snapshots or models pin.

        Raises:
            InvalidInput: if one is a view and the other is not, or a model pins no features.
            NotFound: if there is no such thing.
        """
        one, other = self._find(caller, before), self._find(caller, after)
        if one.side.kind != other.side.kind:
            raise InvalidInput(
                f"{before!r} is a {one.side.kind} and {after!r} a {other.side.kind}.",
                hint="Compare two views, or two services, snapshots or models.",
            )
        if one.side.kind == VIEW:
            found = view_differences(one.content, other.content)
        else:
            found = service_differences(one.content, other.content, one.views, other.views)
        if one.data is not None and other.data is not None:
            found += snapshot_differences(one.data, other.data)
        return Comparison(before=one.side, after=other.side, differences=tuple(found))

    def _find(self, caller: Caller, reference: str) -> _Found:
        if "/" in reference or "@" in reference:
            return self._find_model(caller, reference)
        with self._database.read() as session:
            noun, separator, rest = reference.partition(":")
            if noun == "snapshot" and separator:
                return _of_snapshot(session, caller, reference, find_snapshot(session, caller.workspace_id, rest))
            if noun == "sha256" or _is_row_id(reference):
                return _of_snapshot(session, caller, reference, find_snapshot(session, caller.workspace_id, reference))
            kind = _NOUNS.get(noun) if separator else None
            name, _, version = (rest if kind else reference).partition(":")
            row = _find_version(session, caller.workspace_id, kind or SERVICE, name, version)
            return _of_version(session, reference, row, None)

    def _find_model(self, caller: Caller, reference: str) -> _Found:
        version = self._versions.resolve(caller, reference).version
        if version.feature_service is None or version.feature_service_digest is None:
            raise InvalidInput(
                f"{reference} pins no features.", hint="Name a feature service or a snapshot in its place."
            )
        with self._database.read() as session:
            if version.snapshot_digest is not None:
                snapshot = find_snapshot(session, caller.workspace_id, version.snapshot_digest)
                return _of_snapshot(session, caller, reference, snapshot)
            row = session.get(
                FeatureVersionRow,
                (caller.workspace_id, SERVICE, version.feature_service, version.feature_service_digest),
            )
            if row is None:
                raise FeatureServiceNotFound(f"The features that {reference} pins were never applied here.")
            return _of_version(session, reference, row, None)


def _is_row_id(text: str) -> bool:
    return len(text) == 36 and text.count("-") == 4


def _find_version(session: Session, workspace_id: str, kind: str, name: str, version: str) -> FeatureVersionRow:
    query = select(FeatureVersionRow).where(
        FeatureVersionRow.workspace_id == workspace_id,
        FeatureVersionRow.kind == kind,
        FeatureVersionRow.name == parse_name(name, what="feature view" if kind == VIEW else "feature service"),
    )
    if version.isascii() and version.isdigit() and len(version) < 10:
        query = query.where(FeatureVersionRow.number == int(version))
    elif version:
        query = query.where(FeatureVersionRow.digest == version)
    else:
        present = session.get(FeatureDefinitionRow, (workspace_id, kind, name))
        query = query.where(FeatureVersionRow.digest == ("" if present is None else present.digest))
    row = session.scalars(query).one_or_none()
    if row is None:
        what = "feature view" if kind == VIEW else "feature service"
        asked = f" with the version {version[:80]!r}" if version else ""
        raise NotFound(
            f"There is no {what} {name!r}{asked}.",
            hint="Write SERVICE, SERVICE:NUMBER, view:NAME:NUMBER, a snapshot's digest, MODEL/VERSION or MODEL@ALIAS.",
        )
    return row


def _of_version(session: Session, reference: str, row: FeatureVersionRow, snapshot: str | None) -> _Found:
    views: dict[str, Mapping[str, Any]] = {}
    if row.kind == SERVICE:
        for kind, member in ((VIEW, "views"), (ON_DEMAND, "on_demand")):
            for each in row.content.get(member, []):
                key = (row.workspace_id, kind, each["view"], each["view_digest"])
                views[each["view"]] = session.get_one(FeatureVersionRow, key).content
    side = Side(
        reference=reference, kind=row.kind, name=row.name, digest=row.digest, version=row.number, snapshot=snapshot
    )
    return _Found(side, row.content, views, None)


def _part_key(part: SnapshotPart, parts: Sequence[SnapshotPart]) -> str:
    return part.view if [each.view for each in parts].count(part.view) == 1 else f"{part.view} under {part.residency}"


def _of_snapshot(session: Session, caller: Caller, reference: str, row: SnapshotRow) -> _Found:
    snapshot = to_snapshot(session, row)
    key = (caller.workspace_id, SERVICE, snapshot.service, snapshot.service_digest)
    found = _of_version(session, reference, session.get_one(FeatureVersionRow, key), snapshot.digest or snapshot.id)
    data = {
        "as_of": format_time(snapshot.as_of),
        "parts": {
            _part_key(part, snapshot.artifacts): {
                "digest": part.rows_digest or part.digest,
                "rows": part.rows,
                "statistics": part.statistics,
            }
            for part in snapshot.artifacts
        },
    }
    return _Found(found.side, found.content, found.views, data)
