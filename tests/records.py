"""An empty metadata database with all tables and one workspace."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import create_mock_engine

from fairlead.core.db import POSTGRES_SCHEMA, Base, Database
from fairlead.registry.tables import WorkspaceRow

WORKSPACE = "acme"


@contextlib.contextmanager
def open_record(url: str) -> Generator[Database]:
    """Create the tables in the empty database at `url`, with the workspace `acme`."""
    database = Database(url)
    try:
        with database.write() as session:
            script = _script(session.get_bind().dialect.name, frozenset(Base.metadata.tables))
            cursor: Any = session.connection().connection.cursor()
            for part in script:
                cursor.execute(part)
            cursor.close()
            session.add(WorkspaceRow(workspace_id=WORKSPACE, created_at=datetime.now(UTC)))
        yield database
    finally:
        database.close()


@cache
def _script(dialect: str, tables: frozenset[str]) -> tuple[str, ...]:
    """What creates these tables, compiled once: asking for each whether it is there costs more than creating it."""
    statements: list[str] = []

    def collect(statement: Any, *_: Any, **__: Any) -> None:
        statements.append(str(statement.compile(dialect=engine.dialect)))

    engine: Any = create_mock_engine(f"{dialect}+psycopg://" if dialect == "postgresql" else f"{dialect}://", collect)
    known = Base.metadata.tables
    Base.metadata.create_all(engine, tables=[known[name] for name in sorted(tables)], checkfirst=False)
    if dialect == "postgresql":
        return (";\n".join([f"CREATE SCHEMA IF NOT EXISTS {POSTGRES_SCHEMA}", *statements]),)
    return tuple(statements)
