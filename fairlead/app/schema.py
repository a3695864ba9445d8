"""The database's schema revision: bring it up, and refuse to run on another one."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import fairlead.migrations
from fairlead.core.db import Base, Database
from fairlead.core.errors import DatabaseRevisionMismatch

if TYPE_CHECKING:
    from sqlalchemy import MetaData

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
    config = _config()
    with database.engine.connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return newest_revision()


def check_revision(database: Database) -> None:
    """Refuse a database at another revision than this code's.

    Raises:
        DatabaseRevisionMismatch: with the command that mends it.
    """
    with database.engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    newest = newest_revision()
    if present == newest:
        return
    known = {revision.revision for revision in ScriptDirectory.from_config(_config()).walk_revisions()}
    if present is None or present in known:
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
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def upgrade_configured() -> None:
    """`fairlead db upgrade`: upgrade the database that the settings name."""
    import sys

    from fairlead.app.settings import ServerSettings

    database = ServerSettings.read().open_database()
    try:
        sys.stderr.write(f"The database is at revision {upgrade(database)}.\n")
    finally:
        database.close()


def _config() -> Config:
    config = Config()
    # A percent sign in a path would be read as an interpolation.
    folder = str(Path(fairlead.migrations.__file__).resolve().parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
