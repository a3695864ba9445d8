"""An empty metadata database with all tables and one workspace."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from datetime import UTC, datetime

from sqlalchemy import text

from fairlead.core.db import POSTGRES_SCHEMA, Base, Database
from fairlead.registry.tables import WorkspaceRow

WORKSPACE = "acme"


@contextlib.contextmanager
def open_record(url: str) -> Generator[Database]:
    """Create the tables in the database at `url`, with the workspace `acme`."""
    database = Database(url)
    try:
        with database.write() as session:
            if not database.is_sqlite:
                session.execute(text(f"CREATE SCHEMA IF NOT EXISTS {POSTGRES_SCHEMA}"))
            Base.metadata.create_all(session.connection())
            session.add(WorkspaceRow(workspace_id=WORKSPACE, created_at=datetime.now(UTC)))
        yield database
    finally:
        database.close()
