"""Prepared statements: the same rows, errors and transactions as a session's own."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime

import pytest
from sqlalchemy import bindparam, delete, insert, select, text

from fairlead.core.db import Base, Database, dry_run
from fairlead.core.errors import AlreadyExists, Conflict
from fairlead.core.prepared import WATCHED, Prepared, find_together, run_together
from fairlead.registry.tables import EnvironmentRow, WorkspaceRow

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROW = {
    "workspace_id": "default",
    "name": "production",
    "rank": 30,
    "policy": {"gates": ["a", None]},
    "revision": 1,
    "updated_by": "ana",
    "updated_at": NOW,
}
INSERT = Prepared(insert(EnvironmentRow.__table__), columns=tuple(ROW))  # pyright: ignore[reportArgumentType]  (a table)
FIND = Prepared(
    select(EnvironmentRow.name, EnvironmentRow.policy, EnvironmentRow.updated_at).where(
        EnvironmentRow.name == bindparam("called")
    )
)
DELETE = Prepared(delete(EnvironmentRow).where(EnvironmentRow.name == bindparam("called")))


@pytest.fixture
def database(empty_database_url: str) -> Generator[Database]:
    """A database with a workspace that is waiting to be sent with the first statement."""
    database = Database(empty_database_url)
    with database.engine.begin() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS fairlead")
        Base.metadata.create_all(connection)
    with database.write() as session:
        session.add(WorkspaceRow(workspace_id="default", created_at=NOW))
        INSERT.run(session, ROW, {**ROW, "name": "staging"})
    yield database
    database.close()


@pytest.mark.parametrize("is_watched", [False, True])
def test_rows_come_back_as_they_went_in_whichever_way_they_are_sent(database: Database, *, is_watched: bool) -> None:
    with database.write() as session:
        if is_watched:
            session.info[WATCHED] = object()
        INSERT.run(session, {**ROW, "name": "dev"})
        DELETE.run(session, {"called": "staging"})
        row = FIND.first(session, called="dev")
        assert FIND.first(session, called="staging") is None
    assert (row.name, row.policy, row.updated_at) == ("dev", ROW["policy"], NOW)
    assert database.first(FIND, called="dev").updated_at == NOW
    assert database.first(FIND, called="nothing") is None


@pytest.mark.parametrize("is_watched", [False, True])
def test_what_is_sent_together_runs_in_its_order(database: Database, *, is_watched: bool) -> None:
    with database.write() as session:
        if is_watched:
            session.info[WATCHED] = object()
        run_together(
            session, (INSERT, {**ROW, "name": "dev"}), (DELETE, {"called": "dev"}), (INSERT, {**ROW, "name": "qa"})
        )
        found = find_together(session, *((FIND, {"called": name}) for name in ("qa", "dev", "staging")))
        assert [row and row.name for row in found] == ["qa", None, "staging"]
        assert found[0].policy == ROW["policy"]
        assert {row.name for name in ("qa", "dev") for row in FIND.all(session, called=name)} == {"qa"}


def test_one_that_fails_takes_back_all_that_was_sent_with_it(database: Database) -> None:
    with pytest.raises(AlreadyExists), database.write() as session:
        run_together(session, (INSERT, {**ROW, "name": "dev"}), (INSERT, ROW), (INSERT, {**ROW, "name": "qa"}))
    with pytest.raises(Conflict), database.write() as session:
        run_together(session, (INSERT, {**ROW, "name": "dev"}), (INSERT, {**ROW, "workspace_id": "nowhere"}))
    assert [database.first(FIND, called=name) for name in ("dev", "qa")] == [None, None]


def test_reading_lets_postgresql_keep_what_is_prepared(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite's driver keeps what it has prepared by itself")
    with database.read() as session:
        FIND.first(session, called="staging")
    with database.read() as session:
        kept = session.scalars(text("SELECT statement FROM pg_prepared_statements")).all()
    assert any("environments" in each for each in kept)


def test_what_a_dry_run_or_an_error_ends_is_not_kept(database: Database) -> None:
    with dry_run(), database.write() as session:
        INSERT.run(session, {**ROW, "name": "dev"})
    with pytest.raises(AlreadyExists), database.write() as session:
        INSERT.run(session, {**ROW, "name": "dev"}, ROW)
    assert database.first(FIND, called="dev") is None


def test_a_broken_constraint_is_told_as_a_session_tells_it(database: Database) -> None:
    with pytest.raises(AlreadyExists), database.write() as session:
        INSERT.run(session, ROW)
    with pytest.raises(Conflict), database.write() as session:
        INSERT.run(session, {**ROW, "workspace_id": "nowhere"})
