"""Alembic's entry: brings one database, on the connection it is given, to a revision."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from alembic import context
from sqlalchemy import text

from fairlead.app.schema import metadata
from fairlead.core.db import POSTGRES_SCHEMA, Database

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def _run(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {POSTGRES_SCHEMA}"))
    context.configure(
        connection=connection,
        target_metadata=metadata(),
        compare_type=True,
        # SQLite cannot alter most things in place.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    # `alembic` typed by a developer: the database comes from the environment, as for the server.
    database = Database(os.environ["FAIRLEAD_DATABASE_URL"])
    with database.engine.connect() as own:
        _run(own)
        own.commit()
    database.close()
