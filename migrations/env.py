"""Alembic's entry: brings one database, on the connection it is given, to a revision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from alembic import context
from sqlalchemy import String, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from fairlead.app.schema import metadata
from fairlead.app.settings import ServerSettings
from fairlead.core.db import POSTGRES_SCHEMA, UtcDateTime

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from sqlalchemy.engine import Connection


def render_type(kind: str, item: object, rendering: AutogenContext) -> str | Literal[False]:
    """Write a column's type in a new revision as the tables write it; False leaves it to Alembic."""
    if kind != "type" or not isinstance(item, TypeEngine):
        return False
    rendering.imports.add("from fairlead.core.db import JsonType, UtcDateTime, name_type")
    if isinstance(item, UtcDateTime):
        return "UtcDateTime()"
    on_postgresql = cast("object", item.dialect_impl(postgresql.dialect()))
    if isinstance(on_postgresql, postgresql.JSONB):
        return "JsonType"
    if isinstance(on_postgresql, String) and on_postgresql.collation == "C":
        return f"name_type({on_postgresql.length})"
    return False


def run(connection: Connection) -> None:
    """Run the revisions that were asked for, in the transaction of the connection."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {POSTGRES_SCHEMA}"))
    context.configure(
        connection=connection,
        target_metadata=metadata(),
        render_item=render_type,
        compare_type=True,
        # SQLite cannot alter most things in place.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    # `alembic` typed by a developer: the database comes from the environment, as for the server.
    database = ServerSettings.read().open_database()
    with database.engine.connect() as own:
        run(own)
        own.commit()
    database.close()
