"""Sets of expectations in the record: applied, shown, removed, and found for a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import ExpectationsNotFound, FeatureViewNotFound, JsonValue
from fairlead.core.ids import parse_name
from fairlead.core.ports import Clock
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.definitions import VIEW, ViewDefinition, view_from_content
from fairlead.featurestore.expectations import ExpectationSet, check_features, check_set, from_json, to_json
from fairlead.featurestore.snapshot_checks import check_anew
from fairlead.featurestore.tables import FeatureDefinitionRow, FeatureVersionRow
from fairlead.featurestore.tables_quality import ExpectationsRow
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.revisions import require_revision


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedExpectations:
    """A set of expectations and its revision."""

    name: str
    expected: ExpectationSet
    revision: int
    updated_by: str
    updated_at: datetime


class ExpectationSets:
    """Applies, shows and removes sets of expectations. The newest snapshots that they are about are checked anew."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def list(self, caller: Caller, page: PageRequest) -> Page[AppliedExpectations]:
        """Sets by name."""
        query = select(ExpectationsRow).where(ExpectationsRow.workspace_id == caller.workspace_id)
        listing = ("feature-expectations", caller.workspace_id)
        with self._database.read() as session:
            return page.fetch(session, query, [ExpectationsRow.name], listing=listing).map(_to_applied)

    def get(self, caller: Caller, name: str) -> AppliedExpectations:
        """One set.

        Raises:
            ExpectationsNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            return _to_applied(_find(session, caller, name))

    def put(
        self, caller: Caller, name: str, expected: ExpectationSet, *, expected_revision: int | None
    ) -> AppliedExpectations:
        """Apply a set: create it or replace it. One that is there already, word for word, keeps its revision.

        Raises:
            InvalidInput: if it could not be checked, or the features are not there.
            FeatureServiceNotFound, FeatureViewNotFound: if what it is about is not there.
            StaleRevision: if it is not at the expected revision (0: not there).
        """
        parse_name(name, what="set of expectations")
        check_set(expected)
        document = to_json(expected)
        with self._database.write() as session:
            _check_features(session, caller.workspace_id, expected)
            row = session.get(ExpectationsRow, (caller.workspace_id, name), with_for_update=True)
            before = None if row is None else dict(row.document)
            _check_revision(name, 0 if row is None else row.revision, expected_revision)
            if row is not None and before == document:
                return _to_applied(row)
            if row is None:
                row = ExpectationsRow(workspace_id=caller.workspace_id, name=name, revision=0)
                session.add(row)
            row.document, row.revision = document, row.revision + 1
            row.updated_by, row.updated_at = caller.principal, self._clock.now()
            session.flush()
            self._record(session, caller, "expectations.apply", name, {"before": before, "after": document})
            check_anew(session, caller.workspace_id, [each for each in (before, document) if each], row.updated_at)
            return _to_applied(row)

    def delete(self, caller: Caller, name: str, *, expected_revision: int | None) -> None:
        """Remove a set; what it asked for is asked for no longer.

        Raises:
            ExpectationsNotFound: if there is none of that name.
            StaleRevision: if it is not at the expected revision.
        """
        with self._database.write() as session:
            row = _find(session, caller, name, lock=True)
            _check_revision(name, row.revision, expected_revision)
            before = dict(row.document)
            session.delete(row)
            session.flush()
            self._record(session, caller, "expectations.delete", name, {"before": before})
            check_anew(session, caller.workspace_id, [before], self._clock.now())

    def _record(self, session: Session, caller: Caller, action: str, name: str, facts: Mapping[str, JsonValue]) -> None:
        audit.record(session, caller, self._clock, action=action, subject=name, facts=facts)


def _check_features(session: Session, workspace_id: str, expected: ExpectationSet) -> None:
    if expected.view is not None:
        check_features(expected, {expected.view: _find_view(session, workspace_id, expected.view)})
    else:
        check_features(expected, find_pinned_service(session, workspace_id, expected.service or "").views)


def _find_view(session: Session, workspace_id: str, name: str) -> ViewDefinition:
    present = session.get(FeatureDefinitionRow, (workspace_id, VIEW, name))
    if present is None:
        raise FeatureViewNotFound(
            f"There is no feature view {name[:80]!r}.", hint="Apply it: fairlead features apply PATH"
        )
    version = session.get_one(FeatureVersionRow, (workspace_id, VIEW, name, present.digest))
    return view_from_content(version.content, present.residency, present.home)


def _find(session: Session, caller: Caller, name: str, *, lock: bool = False) -> ExpectationsRow:
    key = (caller.workspace_id, parse_name(name, what="set of expectations"))
    row = session.get(ExpectationsRow, key, with_for_update=lock or None)
    if row is None:
        raise ExpectationsNotFound(
            f"There is no set of expectations {name[:80]!r}.", hint="See: fairlead features expect list"
        )
    return row


def _check_revision(name: str, actual: int, expected: int | None) -> None:
    hint = f"Look at it and try again: fairlead features expect show {name}"
    require_revision(f"The set of expectations {name!r}", actual, expected, hint=hint)


def _to_applied(row: ExpectationsRow) -> AppliedExpectations:
    return AppliedExpectations(
        name=row.name,
        expected=from_json(row.document),
        revision=row.revision,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )
