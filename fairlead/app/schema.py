"""The database's schema revision: bring it up, and refuse to run on another one.

Alembic is loaded where there is something to bring up: a server that starts finds that there is nothing without it.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

import fairlead.migrations
from fairlead.core.db import Base, Database
from fairlead.core.errors import DatabaseRevisionMismatch

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

_TABLES = (
    "registry.tables",
    "registry.tables_bytes",
    "registry.tables_governance",
    "registry.tables_lifecycle",
    "registry.tables_losses",
    "registry.tables_signatures",
    "registry.tables_webhooks",
    "featurestore.tables",
    "featurestore.tables_quality",
    "featurestore.tables_feast",
    "featurestore.tables_erasures",
    "featurestore.tables_streams",
    "featurestore.tables_agents",
    "featurestore.tables_servers",
    "featurestore.tables_online",
    "serving.tables",
    "serving.tables_catalog",
    "serving.tables_targets",
    "serving.tables_bundles",
    "serving.tables_images",
)
# Any number will do that nobody else of this database's users locks.
_UPGRADE_LOCK = 0x666169726C656164


def metadata() -> MetaData:
    """All tables of all packages."""
    for module in _TABLES:
        # A module of tables adds them to the base when it is imported.
        import_module(f"fairlead.{module}")
    return Base.metadata


def upgrade(database: Database) -> str:
    """Bring a database to the newest revision, in one transaction; answers that revision.

    Of several that try at once, one does it and the others find it done.
    """
    newest = newest_revision()
    with database.engine.connect() as connection:
        if _present_revision(connection) == newest:
            return newest
    from alembic import command
    from alembic.config import Config

    config = Config()
    # A percent sign in a path would be read as an interpolation.
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with database.engine.connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return newest


def check_revision(database: Database) -> None:
    """Refuse a database at another revision than this code's.

    Raises:
        DatabaseRevisionMismatch: with the command that mends it.
    """
    with database.engine.connect() as connection:
        present = _present_revision(connection)
    newest = newest_revision()
    if present == newest:
        return
    if present is None or present in _revisions():
        raise DatabaseRevisionMismatch(
            f"The database is at revision {present or 'none'}, this version needs {newest}.",
            hint="Run: fairlead db upgrade",
        )
    raise DatabaseRevisionMismatch(
        f"The database is at revision {present}, which this version does not know.",
        hint="A newer Fairlead has upgraded it: install that version.",
    )


def newest_revision() -> str:
    """The revision that this code needs."""
    return max(_revisions())


def upgrade_configured() -> None:
    """`fairlead db upgrade`: upgrade the database that the settings name."""
    import sys

    from fairlead.app.settings import ServerSettings

    database = ServerSettings.read().open_database()
    try:
        sys.stderr.write(f"The database is at revision {upgrade(database)}.\n")
    finally:
        database.close()


def _present_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _revisions() -> set[str]:
    """Every revision that this code knows: each is a file that begins with its number."""
    return {file.name.partition("_")[0] for file in (_folder() / "versions").glob("[0-9]*_*.py")}


def _folder() -> Path:
    return Path(fairlead.migrations.__file__).resolve().parent
