"""The schema: up from nothing, down to nothing, as the tables say, and never run on when it is another one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command, op
from alembic.config import Config
from alembic.script import ScriptDirectory

from fairlead.app.schema import check_revision, metadata, newest_revision, upgrade
from fairlead.core.db import Database
from fairlead.core.errors import DatabaseRevisionMismatch
from tests.acceptance.command_line import ROOT, CommandLine


@pytest.fixture
def alembic(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """What a developer's `alembic` reads, with the database from the environment."""
    monkeypatch.setenv("FAIRLEAD_DATABASE_URL", empty_database_url)
    return Config(str(ROOT / "alembic.ini"))


def test_the_schema_goes_up_from_nothing_down_again_and_up(alembic: Config, empty_database_url: str) -> None:
    command.upgrade(alembic, "head")
    made = tables(empty_database_url)
    assert made == {table.name for table in metadata().sorted_tables}
    command.check(alembic)
    command.downgrade(alembic, "base")
    assert tables(empty_database_url) == set()
    command.upgrade(alembic, "head")
    assert tables(empty_database_url) == made
    command.check(alembic)


def test_every_revision_can_be_undone_by_itself(alembic: Config) -> None:
    revisions = [each.revision for each in ScriptDirectory.from_config(alembic).walk_revisions()]
    for revision in reversed(revisions):
        command.upgrade(alembic, revision)
        command.downgrade(alembic, "-1")
        command.upgrade(alembic, revision)
    assert revisions[0] == newest_revision()


def test_upgrading_twice_changes_nothing(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    try:
        assert upgrade(database) == upgrade(database) == newest_revision()
        check_revision(database)
    finally:
        database.close()


def test_an_upgrade_that_fails_half_way_leaves_nothing_behind(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    create_table: Any = op.create_table

    def fail(name: str, *columns: object, **options: object) -> object:
        made.append(name)
        if len(made) > 10:
            raise RuntimeError("the lights went out")
        return create_table(name, *columns, **options)

    database = Database(empty_database_url)
    monkeypatch.setattr(op, "create_table", fail)
    with pytest.raises(RuntimeError, match="the lights"):
        upgrade(database)
    monkeypatch.undo()
    assert tables(empty_database_url) == set()
    try:
        assert upgrade(database) == newest_revision()
    finally:
        database.close()


@pytest.mark.parametrize(("revision", "step"), [(None, "fairlead db upgrade"), ("9999", "install that version")])
def test_another_revision_is_refused_with_the_command_that_mends_it(
    empty_database_url: str, revision: str | None, step: str
) -> None:
    database = Database(empty_database_url)
    try:
        if revision is not None:
            upgrade(database)
            mark(database, revision)
        with pytest.raises(DatabaseRevisionMismatch) as refused:
            check_revision(database)
        assert step in (refused.value.hint or "")
        assert (revision or "none") in refused.value.detail
    finally:
        database.close()


def test_a_server_says_how_to_upgrade_and_starts_after_that(tmp_path: Path, empty_database_url: str) -> None:
    fairlead = CommandLine(home=tmp_path / "home", variables={"FAIRLEAD_DATABASE_URL": empty_database_url})
    refused = fairlead.refused("server", "--port", "0", code=1)
    assert refused["type"] == "urn:fairlead:error:database-revision-mismatch"
    assert refused["hint"] == "Run: fairlead db upgrade"
    assert fairlead.refused("worker", "--region", "aws:us-east-1", code=1)["hint"] == refused["hint"]
    assert newest_revision() in fairlead("db", "upgrade").stderr
    database = Database(empty_database_url)
    try:
        check_revision(database)
    finally:
        database.close()


def tables(url: str) -> set[str]:
    """The tables of Fairlead's that a database has."""
    database = Database(url)
    try:
        schema = "fairlead" if database.engine.dialect.name == "postgresql" else None
        with database.engine.connect() as connection:
            found = sqlalchemy.inspect(connection).get_table_names(schema=schema)
        return set(found) - {"alembic_version"}
    finally:
        database.close()


def mark(database: Database, revision: str) -> None:
    """Pretend that a newer Fairlead has upgraded the database."""
    with database.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
        )


def test_several_that_upgrade_at_once_all_find_it_done(postgres_database: str, tmp_path: Path) -> None:
    environment = os.environ | {"FAIRLEAD_DATABASE_URL": postgres_database, "FAIRLEAD_HOME": str(tmp_path)}
    command_line = [sys.executable, "-m", "fairlead.cli.main", "db", "upgrade"]
    running = [subprocess.Popen(command_line, env=environment, stderr=subprocess.PIPE) for _ in range(3)]
    told = [each.communicate(timeout=60)[1].decode() for each in running]
    assert [each.returncode for each in running] == [0, 0, 0], told
    assert all(newest_revision() in each for each in told)
