"""An empty metadata database with all tables and one workspace."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Generator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_mock_engine, make_url

from fairlead.app.schema import upgrade
from fairlead.core.db import POSTGRES_SCHEMA, Base, Database
from fairlead.registry.tables import WorkspaceRow
from tests.servers.postgres import PostgresServer

WORKSPACE = "acme"


@contextlib.contextmanager
def open_record(url: str) -> Generator[Database]:
    """Have all tables in the database at `url`, empty but for the workspace `acme`.

    The database is a new one, or a PostgreSQL database that an earlier test left: making it anew takes a hundred times
    as long as emptying it.
    """
    tables = frozenset(Base.metadata.tables)
    if url.startswith("postgresql"):
        _provide_postgres(url, tables)
    else:
        path = make_url(url).database
        assert path is not None
        Path(path).write_bytes(_sqlite_file(tables))
    database = Database(url)
    try:
        with database.write() as session:
            session.add(WorkspaceRow(workspace_id=WORKSPACE, created_at=datetime.now(UTC)))
        yield database
    finally:
        database.close()


def _provide_postgres(url: str, tables: frozenset[str]) -> None:
    # Emptying in replica mode runs no trigger: foreign keys and the audit log's rule would refuse it.
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [POSTGRES_SCHEMA])
        statements = [f"SET search_path = {POSTGRES_SCHEMA}"]
        if frozenset(str(name) for (name,) in found) == tables:
            statements += ["SET session_replication_role = replica", *(f"DELETE FROM {name}" for name in tables)]
        else:
            statements = [
                f"DROP SCHEMA IF EXISTS {POSTGRES_SCHEMA} CASCADE",
                f"CREATE SCHEMA {POSTGRES_SCHEMA}",
                *statements,
                *_script("postgresql+psycopg", tables),
            ]
        connection.execute(";\n".join(statements).encode())


@contextlib.contextmanager
def migrated_database(request: pytest.FixtureRequest, folder: Path) -> Generator[str]:
    """The SQLAlchemy URL of a database at the newest revision, without rows, of the kind that the fixture asks for."""
    if request.param == "sqlite":
        (folder / "migrated.db").write_bytes(migrated_sqlite_file())
        yield f"sqlite:///{folder / 'migrated.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.new_database(template=request.getfixturevalue("migrated_template")) as url:
        yield url


@cache
def migrated_sqlite_file() -> bytes:
    """An SQLite database as the newest revision has it, without rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fairlead.db"
        database = Database(f"sqlite:///{path}")
        upgrade(database)
        with database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        return path.read_bytes()


@cache
def _sqlite_file(tables: frozenset[str]) -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(";\n".join(_script("sqlite", tables)))
        return connection.serialize()


@cache
def _script(dialect: str, tables: frozenset[str]) -> tuple[str, ...]:
    """What creates these tables, compiled once: asking for each whether it is there costs more than creating it."""
    statements: list[str] = []

    def collect(statement: Any, *_: Any, **__: Any) -> None:
        statements.append(str(statement.compile(dialect=engine.dialect)))

    engine: Any = create_mock_engine(f"{dialect}://", collect)
    known = Base.metadata.tables
    Base.metadata.create_all(engine, tables=[known[name] for name in sorted(tables)], checkfirst=False)
    return tuple(statements)
