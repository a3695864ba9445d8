"""Single statements that are asked all the time: written once, sent on connections of their own, without a session.

What a session and its transaction cost is many times what such a read costs the database. A statement is a moment by
itself, so it needs no transaction either. It runs on the event loop: SQLite answers in less time than another thread
takes to begin, and PostgreSQL is awaited.

A quick read may decline for any reason (a lock, a lost connection): whoever asked then asks the usual way, which waits,
tries again and explains. So nothing here has to.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from fairlead.core.prepared import Compiled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import SimpleNamespace

    from sqlalchemy import Select

    from fairlead.core.db import Database

CONNECTIONS = 8
"""How many connections to PostgreSQL one process keeps for quick reads."""

READ_ONLY = "-cdefault_transaction_read_only=on"


class QuickReads:
    """A process's connections for quick reads. Used on one event loop; closed by whoever closes the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sqlite: Any = None
        self._idle: list[Any] = []
        self._free = asyncio.Semaphore(CONNECTIONS)

    def prepare(self, statement: Select[*tuple[Any, ...]]) -> QuickRead:
        """A statement that is written once, for this database's dialect."""
        return QuickRead(self, Compiled(statement, self._database.engine.dialect))

    async def fetch(self, sql: str, parameters: Any) -> Sequence[Any] | None:
        """The first row of what a statement finds, if any.

        Raises:
            Exception: the driver's `Error`, where the database does not answer at once.
        """
        if self._database.is_sqlite:
            return self._open_sqlite().execute(sql, parameters).fetchone()
        async with self._free:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                found = await (await connection.execute(sql, parameters, prepare=True)).fetchone()
            except BaseException:
                # Nobody knows what state it is in.
                with contextlib.suppress(self.error):
                    await connection.close()
                raise
            self._idle.append(connection)
            return found

    @property
    def error(self) -> type[Exception]:
        """What the driver raises."""
        return self._database.engine.dialect.loaded_dbapi.Error

    def close(self) -> None:
        """Let go of every connection; the loop that used them has ended."""
        if self._sqlite is not None:
            self._sqlite.close()
            self._sqlite = None
        for connection in self._idle:
            connection.pgconn.finish()
        self._idle.clear()

    def _open_sqlite(self) -> Any:
        if self._sqlite is None:
            arguments, options = self._database.connect_arguments()
            options |= {"check_same_thread": False, "isolation_level": None, "timeout": 0}
            connection = self._database.engine.dialect.loaded_dbapi.connect(*arguments, **options)
            connection.execute("PRAGMA query_only=ON")
            self._sqlite = connection
        return self._sqlite

    async def _connect(self) -> Any:
        from psycopg import AsyncConnection

        arguments, options = self._database.connect_arguments()
        options["options"] = f"{options.get('options', '')} {READ_ONLY}".strip()
        return await AsyncConnection.connect(*arguments, **options, autocommit=True)


class QuickRead:
    """One statement; its rows have an attribute for each column."""

    def __init__(self, reads: QuickReads, statement: Compiled) -> None:
        self._reads = reads
        self._statement = statement

    async def first(self, **values: Any) -> SimpleNamespace | None:
        """The first row that is found, if any.

        Raises:
            Exception: the driver's `Error` (`QuickReads.error`), where the database does not answer at once.
        """
        row = await self._reads.fetch(self._statement.sql, self._statement.parameters(values))
        return None if row is None else self._statement.row(row)
