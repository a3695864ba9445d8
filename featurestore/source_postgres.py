"""Rows out of PostgreSQL: streamed as Arrow, in one read-only transaction, within a time limit.

Nothing that the server or the driver says is repeated to the caller but an SQLSTATE: their texts hold addresses, users
and pieces of the query.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import (
    FairleadError,
    FeatureSourceInvalid,
    MissingExtra,
    PermissionDenied,
    Unavailable,
)
from fairlead.featurestore.source_queries import Needs, check_distinct, select_needed, stage, table_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from fairlead.featurestore.source_definitions import PostgresRows

_NOT_FOUND = {"42P01": "table", "3F000": "schema", "42703": "column", "42883": "function", "3D000": "database"}
_MAY_NOT = ("28", "42501")
_PASSES = ("08", "53", "57", "40")
"""Classes of SQLSTATE: no connection, no resources, somebody intervened, collided."""

_TIMED_OUT = "57014"

# What fails on the way in, or in the midst of an answer, has no SQLSTATE, only what the server said.
_KEPT_OUT = re.compile(r'FATAL: +(password authentication failed|no pg_hba\.conf entry|role ".*" )')
_FAILED = re.compile(r"\bERROR: ")
_INTERRUPTED = re.compile(r"terminating connection|canceling statement|conflict with recovery|could not serialize")
_NO_DATABASE = re.compile(r'FATAL: +database ".*" does not exist')

_TYPE = b"POSTGRESQL:type"
_TIMES = frozenset({b"timestamp", b"timestamptz", b"date"})


def postgres_relation(
    connection: DuckDBPyConnection,
    place: PostgresRows,
    *,
    address: str,
    timestamp_field: str,
    needs: Needs,
    timeout: timedelta,
    view: str,
) -> str:
    """The rows as a temporary table of `connection`; its name. `address` is a URI, or keywords, as libpq takes them.

    Raises:
        FeatureSourceInvalid: if the table, the query or one of its columns is wrong, or takes too long.
        PermissionDenied: if the server does not let the connection's user in, or to the table.
        MissingExtra: without `fairlead[postgres-sources]`.
        Unavailable: if the server does not answer.
    """
    relation = table_sql(place.table, place.query)
    with _errors(view, place.connection, timeout), closing(_connect(address)) as database:
        with closing(database.cursor()) as cursor:
            cursor.execute(f"SET statement_timeout = {max(1, int(timeout / timedelta(milliseconds=1)))}")
            cursor.execute("SET default_transaction_read_only = on")
            cursor.execute("SET TIME ZONE 'UTC'")
        with closing(database.cursor()) as cursor:
            # The statement is the whole transaction, so its rows are of one moment.
            schema: Any = cursor.adbc_execute_schema(f"SELECT * FROM {relation}")  # noqa: S608  (the definition's own)
            check_distinct(schema.names, view)
            times: set[str] = {field.name for field in schema if (field.metadata or {}).get(_TYPE) in _TIMES}
            cursor.execute(select_needed(relation, schema.names, times, timestamp_field=timestamp_field, needs=needs))
            return stage(connection, cursor.fetch_record_batch())


def _connect(address: str) -> Any:
    try:
        driver: Any = import_module("adbc_driver_postgresql.dbapi")
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Reading PostgreSQL needs a library that is not installed.",
            hint="Run: pip install 'fairlead[postgres-sources]'",
        ) from error
    return driver.connect(address, autocommit=True)


@contextmanager
def _errors(view: str, connection: str, timeout: timedelta) -> Generator[None]:
    """What the server or the driver says, as errors of ours."""
    try:
        yield
    except FairleadError:
        raise
    except Exception as error:
        # The driver's errors are not importable without it; errors in the midst of a stream have only a text.
        if not type(error).__module__.startswith(("adbc_driver_manager", "builtins", "_duckdb", "duckdb", "pyarrow")):
            raise
        raise _translate(error, view, connection, timeout) from None


def _translate(error: Exception, view: str, connection: str, timeout: timedelta) -> FairleadError:
    state, text = str(getattr(error, "sqlstate", None) or ""), str(error)
    if state == _TIMED_OUT or "statement timeout" in text:
        return FeatureSourceInvalid(
            f"The source of view {view!r} did not answer within {timeout.total_seconds():g} seconds.",
            hint="Make its query cheaper, or raise the workers' setting FAIRLEAD_FEATURE_QUERY_TIMEOUT.",
            view=view,
        )
    if state.startswith(_MAY_NOT) or (not state and _KEPT_OUT.search(text)):
        return PermissionDenied(
            f"The connection {connection!r} may not read the source of view {view!r}.",
            hint="Correct its user and password in the workers' setting FAIRLEAD_FEATURE_CONNECTIONS, or grant SELECT.",
            view=view,
        )
    if state in _NOT_FOUND or (not state and _NO_DATABASE.search(text)):
        noun = _NOT_FOUND.get(state, "database")
        return FeatureSourceInvalid(
            f"The source of view {view!r} names a {noun} that the connection {connection!r} does not have.",
            hint="Correct its table or query, or the connection, and take another snapshot.",
            view=view,
        )
    fails = not state.startswith(_PASSES) if state else _FAILED.search(text) and not _INTERRUPTED.search(text)
    if fails:
        at = f" with the SQLSTATE {state[:5]}" if state else " while it runs"
        return FeatureSourceInvalid(
            f"The query of the source of view {view!r} fails{at}.",
            hint="Try it in psql as the connection's user, and correct it.",
            view=view,
        )
    return Unavailable(
        f"The connection {connection!r} of the source of view {view!r} does not answer.",
        hint="It is tried again by itself; check the server, and the workers' setting FAIRLEAD_FEATURE_CONNECTIONS.",
    )
