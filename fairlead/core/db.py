"""The metadata database: one engine, two dialects, the same rules on both.

A write is one transaction: opened, committed and closed inside `Database.write`, before any answer exists. On SQLite
it begins IMMEDIATE behind a fair in-process lock (deferred ones collide, and SQLite's own waiting is not fair); on
PostgreSQL concurrent writers meet at row locks. No transaction is held across network I/O.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections import deque
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import JSON, URL, DateTime, MetaData, String, create_engine, event, make_url
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

from fairlead.core.clock import format_time
from fairlead.core.errors import AlreadyExists, Conflict, FairleadError, InvalidInput, StorageFull, Unavailable
from fairlead.core.ids import NAME_MAX_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from fairlead.core.prepared import Prepared

POSTGRES_SCHEMA = "fairlead"
REST_SECONDS = 1.0
"""A connection that was used more lately than this is taken without asking whether it lives."""

_POSTGRES_OPTIONS = {"options": f"-csearch_path={POSTGRES_SCHEMA} -ctimezone=UTC"}
_WRITES, _READS, _USED_AT = "fairlead_writes", "fairlead_reads", "fairlead_used_at"
_is_dry_run: ContextVar[bool] = ContextVar("is_dry_run", default=False)
_watchers: list[Callable[[Session], None]] = []

# Names of SQLite's result codes, and SQLSTATEs of PostgreSQL.
_UNIQUE = {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID", "23505"}
_FOREIGN_KEY = {"SQLITE_CONSTRAINT_FOREIGNKEY", "23503"}
_DEADLOCK = {"40001", "40P01"}
_FULL = {"SQLITE_FULL", "53100"}
_NO_ANSWER = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_READONLY", "08", "53", "57P")


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC with microseconds: timestamptz on PostgreSQL, fixed-width text on SQLite (text order is time order)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Text on SQLite, which has no type for time."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(27))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse a naive time: nobody knows what it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError("a naive datetime reached the database")
        return format_time(value) if dialect.name == "sqlite" else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Always aware, always UTC."""
        if value is None:
            return None
        return datetime.fromisoformat(value) if dialect.name == "sqlite" else value.astimezone(UTC)


def name_type(length: int = NAME_MAX_LENGTH) -> String:
    """Text that sorts and compares by code point on both databases (collation "C" on PostgreSQL)."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


JsonType = JSON().with_variant(postgresql.JSONB(), "postgresql")


class Base(DeclarativeBase):
    """The base of all tables; constraints are named by one rule everywhere, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class FairLock:
    """A mutual-exclusion lock that serves waiting threads in the order they came.

    A thread that asks for it twice would wait for itself: that raises RuntimeError.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._is_held = False
        self._holder: int | None = None

    def __enter__(self) -> None:
        if self._holder == threading.get_ident():
            raise RuntimeError("a write was begun inside a write of the same thread")
        turn = threading.Event()
        with self._guard:
            if self._is_held:
                self._waiting.append(turn)
            else:
                self._is_held = True
                turn.set()
        try:
            turn.wait()
        except BaseException:  # an interrupted thread leaves the queue, or passes on the turn it was given
            with self._guard:
                if turn.is_set():
                    self._pass_on()
                else:
                    self._waiting.remove(turn)
            raise
        self._holder = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._holder = None
        with self._guard:
            self._pass_on()

    @property
    def waiting_count(self) -> int:
        """How many threads wait for it now."""
        return len(self._waiting)

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._is_held = False


@contextmanager
def dry_run() -> Generator[None]:
    """Let every write of this context do all that it does, and keep none of it."""
    token = _is_dry_run.set(True)
    try:
        yield
    finally:
        _is_dry_run.reset(token)


def is_dry_run() -> bool:
    """Whether the writes of this context are rolled back; then nothing outside the database is touched either."""
    return _is_dry_run.get()


def watch_sessions(watcher: Callable[[Session], None]) -> None:
    """Have every session shown to a watcher before anybody uses it."""
    _watchers.append(watcher)


class Database:
    """A SQLite file or a PostgreSQL database that holds Fairlead's record.

    Raises:
        InvalidInput: if the URL is of neither kind, or names a database in memory.
    """

    def __init__(self, url: str, *, pool_size: int = 20) -> None:
        parsed = _parse_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            # What is hidden does not reach a log: a row may be of data that must stay elsewhere.
            self.engine = create_engine(parsed, pool_size=pool_size, max_overflow=48, hide_parameters=True)
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            self.engine = create_engine(
                parsed,
                pool_size=pool_size,
                max_overflow=12,
                # The connection that was used last has most statements prepared.
                pool_use_lifo=True,
                hide_parameters=True,
                connect_args=_POSTGRES_OPTIONS,
            )
            event.listen(self.engine, "checkin", _note_use)
            event.listen(self.engine, "checkout", self._ping_after_rest)
        # All that one reader reads is of one moment, as it is on SQLite anyway.
        self._read_engine = (
            self.engine.execution_options(**{_READS: True})
            if self.is_sqlite
            else self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        )
        self._write_engine = self.engine.execution_options(**{_WRITES: True})
        self._write_lock = FairLock()

    @contextmanager
    def read(self) -> Generator[Session]:
        """A session for reading: all it sees is of one moment, and the database refuses what would change it."""
        with _translated_errors(), Session(self._read_engine, expire_on_commit=False) as session:
            for watcher in _watchers:
                watcher(session)
            yield session
            if not self.is_sqlite and session.is_active:
                # At a rollback the driver forgets what it has prepared. There is nothing to commit.
                session.expunge_all()
                session.commit()

    @contextmanager
    def write(self) -> Generator[Session]:
        """One transaction: committed when the block ends, rolled back when it raises, or in a dry run.

        Raises:
            AlreadyExists: if a unique constraint is broken (by a writer who was first).
            Conflict: if a row refers to one that is not there (any more), or two writers waited for each other.
            StorageFull: if the disk is full; nothing was kept.
            Unavailable: if the database does not answer; whether a commit happened is then unknown.
        """
        lock = self._write_lock if self.is_sqlite else nullcontext()
        with (
            _translated_errors(),
            lock,
            Session(self._write_engine, expire_on_commit=False) as session,
            session.begin() as transaction,
        ):
            for watcher in _watchers:
                watcher(session)
            yield session
            if is_dry_run():
                # All that the database would have said against it has been said; what was read stays readable.
                session.flush()
                session.expunge_all()
                transaction.rollback()

    def first(self, statement: Prepared, **values: Any) -> Any:
        """The first row that a statement finds now, None without any: a read that needs no other beside it."""
        compiled = statement.compiled(self.engine.dialect)
        with _translated_errors():
            connection = self.engine.raw_connection()
            try:
                driver = cast("Any", connection.driver_connection)
                if not self.is_sqlite:
                    driver.autocommit = True
                found = compiled.execute(driver, values).fetchone()
                if not self.is_sqlite:
                    driver.autocommit = False
            except compiled.error as error:
                connection.invalidate()
                raise compiled.translate(error) from error
            finally:
                connection.close()
        return None if found is None else compiled.row(found)

    def connect_arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """What the driver's `connect` wants, for whoever needs a connection of their own."""
        arguments, options = self.engine.dialect.create_connect_args(self.engine.url)
        return [*arguments], {**options, **({} if self.is_sqlite else _POSTGRES_OPTIONS)}

    def _ping_after_rest(self, connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        """Find a connection that died while nobody used it before a transaction begins, not in the middle of one."""
        if time.monotonic() - record.info.get(_USED_AT, math.inf) < REST_SECONDS:
            return
        try:
            self.engine.dialect.do_ping(connection)
        except self.engine.dialect.loaded_dbapi.Error as error:
            # The pool takes the next one instead, or a new one.
            raise DisconnectionError("a connection died while nobody used it") from error

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _parse_url(url: str) -> URL:
    hint = "Set FAIRLEAD_DATABASE_URL to sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME."
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password.
        raise InvalidInput("The URL of the metadata database cannot be read.", hint=hint) from None
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    kind = parsed.get_backend_name()
    if kind not in {"sqlite", "postgresql"}:
        raise InvalidInput(f"Fairlead keeps its record in SQLite or PostgreSQL, not {kind}.", hint=hint)
    if kind == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise InvalidInput("Fairlead's record cannot live in memory: it has to outlast the process.", hint=hint)
    return parsed


def _prepare_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # The driver's own implicit BEGIN would be deferred; ours comes from `_begin_sqlite`.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        # With NORMAL, WAL loses acknowledged commits at power loss.
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=10000",
        # LIKE then means what it means on PostgreSQL.
        "case_sensitive_like=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    is_read_only = bool(options.get(_READS))
    # Said to the driver itself: SQLAlchemy's own way costs more than the statement.
    driver = cast("sqlite3.Connection", connection.connection.driver_connection)
    begin = "BEGIN IMMEDIATE" if options.get(_WRITES) else "BEGIN"
    try:
        if connection.info.get(_READS) is not is_read_only:
            driver.execute(f"PRAGMA query_only={'ON' if is_read_only else 'OFF'}")
            connection.info[_READS] = is_read_only
        driver.execute(begin)
    except sqlite3.Error as error:
        raise OperationalError(begin, None, error) from error


def _note_use(_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    record.info[_USED_AT] = time.monotonic()


@contextmanager
def _translated_errors() -> Generator[None]:
    # What reaches a user holds no SQL and no path of ours.
    try:
        yield
    except PoolTimeoutError as error:
        raise _no_answer() from error
    except DBAPIError as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: DBAPIError) -> FairleadError | None:
    """The error that a user should see; None for a mistake of ours, such as a broken check or a missing table."""
    # SQLite's own name of the error, or the SQLSTATE; a connection that never came about has neither.
    code = str(getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None) or "")
    if code in _UNIQUE:
        return AlreadyExists("Another writer was first.", hint="Read the present state and try again.")
    if code in _FOREIGN_KEY:
        return Conflict("It refers to something that is gone.", hint="Read the present state and try again.")
    if code in _DEADLOCK:
        return Conflict("Two writers waited for each other, and this one gave way.", hint="Try again.")
    if code in _FULL:
        return StorageFull("The disk of the metadata database is full.", hint="Free some space and repeat the command.")
    if code.startswith(_NO_ANSWER) or (not code and isinstance(error, OperationalError)):
        return _no_answer()
    return None


def _no_answer() -> Unavailable:
    return Unavailable(
        "The metadata database does not answer.", hint="Check FAIRLEAD_DATABASE_URL and that the database is up."
    )
