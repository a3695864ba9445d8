"""The pushed rows of a view, for whoever reads its source: a further relation beside that of the source.

What is read in a region is every segment that has a verified replica there, and what logs on this machine have not
sealed yet; of each log the rows from the first one on without a gap, so that one number (`LogPosition.through`) says
which. A row counts as of the time that it was taken. An event that several logs took counts once: as it was taken
first, by time and then by the log's id.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from fairlead.core.clock import format_time
from fairlead.core.db import Database
from fairlead.featurestore.definitions import DUCKDB_TYPES, Column, ViewDefinition
from fairlead.featurestore.duck import fetch_number, quote_name, quote_text
from fairlead.featurestore.event_log import ACCEPTED, EVENT, OFFLINE, OWN_COLUMNS, SEQUENCE, TO, EventLog, LogRows
from fairlead.featurestore.event_logs import EventLogs
from fairlead.featurestore.log_sealing import view_at
from fairlead.featurestore.log_segments import LogPosition, Segment, segments_of
from fairlead.featurestore.replica_rows import ReplicaRows
from fairlead.featurestore.rows import row_columns
from fairlead.featurestore.tables_streams import FeatureLogRow

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_EXACT = frozenset({"INT32", "INT64", "BOOL"})
"""Types of which a value of another type is one only if nothing is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRelation:
    """Pushed rows on a connection.

    Attributes:
        sql: stands for the rows, with the view's columns and types, in any order.
        positions: up to where the rows of each log are in it.
    """

    sql: str
    positions: tuple[LogPosition, ...]


@dataclass(slots=True)
class _Piece:
    """Rows of one version of a view: segments' files, or else what `sql` stands for."""

    view_digest: str
    files: list[str] = field(default_factory=list[str])
    sql: str = ""

    def __str__(self) -> str:
        return f"read_parquet([{', '.join(map(quote_text, self.files))}])" if self.files else self.sql


@dataclass(slots=True)
class _Log:
    """What can be read of one log here, without gaps."""

    id: str
    region: str
    through: int = 0
    pieces: list[_Piece] = field(default_factory=list[_Piece])

    def add_file(self, path: Path, segment: Segment) -> None:
        """Go on with a segment."""
        if not self.pieces or self.pieces[-1].view_digest != segment.view_digest:
            self.pieces.append(_Piece(segment.view_digest))
        # One relation of many files, rather than many relations: a log has thousands of segments.
        self.pieces[-1].files.append(str(path))
        self.through = segment.last


class LoggedReading:
    """The pushed rows of one view up to one time, for `rows.write_rows`; `positions` says what was read."""

    def __init__(self, read: Callable[[DuckDBPyConnection], LoggedRelation | None]) -> None:
        self._read = read
        self.positions: tuple[LogPosition, ...] = ()

    def __call__(self, connection: DuckDBPyConnection) -> str | None:
        """The relation on this connection, or None where the view has no log."""
        found = self._read(connection)
        self.positions = () if found is None else found.positions
        return None if found is None else found.sql


class LoggedRows:
    """Finds the pushed rows of views.

    Args:
        database: the record.
        logs: the logs of this machine.
        replicas: brings segments to this machine.
    """

    def __init__(self, database: Database, *, logs: EventLogs, replicas: ReplicaRows) -> None:
        self._database = database
        self._logs = logs
        self._replicas = replicas

    def relation(
        self, connection: DuckDBPyConnection, workspace_id: str, view: ViewDefinition, *, as_of: datetime, region: str
    ) -> LoggedRelation | None:
        """The rows of a view, or of a sub-view, that were pushed until `as_of`, as they can be read in a region.

        None where the view has no log.

        Raises:
            ReplicaUnavailable: if a segment cannot be read; it is mended by itself.
            Unavailable: if a log cannot be read now.
        """
        logs = self._find(connection, workspace_id, view, region)
        if not logs:
            return None
        versions: dict[str, ViewDefinition] = {}
        with self._database.read() as session:
            for digest in {piece.view_digest for log in logs for piece in log.pieces}:
                versions[digest] = view_at(session, workspace_id, view.name, digest)
        parts: list[str] = []
        positions: list[LogPosition] = []
        for log in logs:
            rows = " UNION ALL ".join(_as_view(view, versions[piece.view_digest], str(piece)) for piece in log.pieces)
            through = _last_until(connection, rows, as_of, log.through) if rows else log.through
            positions.append(LogPosition(log=log.id, region=log.region, through=through))
            if rows:
                is_meant = f"{SEQUENCE} <= {through} AND {TO} & {OFFLINE} > 0"
                parts.append(f"SELECT *, {quote_text(log.id)} AS __log FROM ({rows}) WHERE {is_meant}")  # noqa: S608
        columns = [quote_name(column.name) for column in row_columns(view)]
        return LoggedRelation(sql=_once(parts, columns) or _none_of(view), positions=tuple(positions))

    def reading(self, workspace_id: str, view: ViewDefinition, *, as_of: datetime, region: str) -> LoggedReading:
        """What `relation` gives, to be asked for later."""
        return LoggedReading(
            lambda connection: self.relation(connection, workspace_id, view, as_of=as_of, region=region)
        )

    def file(self, segment: Segment, region: str) -> Path:
        """The Parquet file of a segment, from its replica in a region.

        Raises:
            ReplicaUnavailable: if it cannot be read there.
        """
        return self._replicas.fetch(segment.artifact, near=region, only=region)

    def _find(self, connection: DuckDBPyConnection, workspace_id: str, view: ViewDefinition, region: str) -> list[_Log]:
        # What is in a file of this machine is looked at first: what leaves it then is in a segment.
        unsealed = {log.id: unsealed_rows(log) for log in self._logs.of_view(workspace_id, view.name)}
        query = select(FeatureLogRow).where(FeatureLogRow.workspace_id == workspace_id, FeatureLogRow.view == view.name)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(FeatureLogRow.id)).all()
            logs = {row.id: _Log(row.id, row.region) for row in rows}
            segments = segments_of(session, workspace_id, view.name, readable_in=region)
            own = {
                (each.log, each.first)
                for each in segments_of(session, workspace_id, view.name)
                if each.artifact.residency == view.residency
            }
        for segment in segments:
            log = logs[segment.log]
            # Of before the view had features under this class, another one's segment has the keys and times.
            is_meant = segment.artifact.residency == view.residency or (segment.log, segment.first) not in own
            if is_meant and segment.first == log.through + 1:
                log.add_file(self.file(segment, region), segment)
        for name, log in logs.items():
            for batch in unsealed.get(name, ()) if log.region == region else ():
                if batch.first <= log.through + 1 <= batch.last:
                    table = f"pushed_{os.urandom(4).hex()}"
                    connection.register(table, batch.rows)
                    rest = f"(SELECT * FROM {table} WHERE {SEQUENCE} > {log.through})"  # noqa: S608
                    log.pieces.append(_Piece(batch.view_digest, sql=rest))
                    log.through = batch.last
        return list(logs.values())


def unsealed_rows(log: EventLog) -> list[LogRows]:
    """The rows of a log that lie here and in no segment, a batch at a time."""
    found: list[LogRows] = []
    after = 0
    while (batch := log.read(after=after)) is not None:
        found.append(batch)
        after = batch.last
    return found


def _as_view(view: ViewDefinition, version: ViewDefinition, piece: str) -> str:
    """Rows of one version of a view as those of another: a feature that it did not have yet is missing."""
    kinds = {column.name: column.type for column in row_columns(version)}
    columns = ", ".join(_as_column(column, kinds.get(column.name)) for column in row_columns(view))
    return f"SELECT {', '.join(OWN_COLUMNS)}, {columns} FROM {piece}"  # noqa: S608  (every name is quoted)


def _as_column(column: Column, was: str | None) -> str:
    name, kind = quote_name(column.name), DUCKDB_TYPES[column.type]
    if was == column.type:
        return name
    value = f"TRY_CAST({'NULL' if was is None else name} AS {kind})"
    if was is not None and column.type.removesuffix("_LIST") in _EXACT:
        # DuckDB would make 2 of 1.5, and true of 7.
        value = f"CASE WHEN TRY_CAST({value} AS {DUCKDB_TYPES[was]}) = {name} THEN {value} END"
    return f"{value} AS {name}"


def _last_until(connection: DuckDBPyConnection, rows: str, as_of: datetime, through: int) -> int:
    """The sequence before that of the first row that was taken later."""
    moment = f"TIMESTAMPTZ {quote_text(format_time(as_of))}"
    query = f"SELECT coalesce(min({SEQUENCE}) - 1, {through}) FROM ({rows}) WHERE {ACCEPTED} > {moment}"  # noqa: S608
    return fetch_number(connection, query)


def _once(parts: list[str], columns: list[str]) -> str | None:
    if not parts:
        return None
    rows = " UNION ALL ".join(parts)
    if len(parts) > 1:
        # Within one log an event is there once.
        first = f"row_number() OVER (PARTITION BY {EVENT} ORDER BY {ACCEPTED}, __log) = 1"
        rows = f"SELECT * FROM ({rows}) QUALIFY {first}"  # noqa: S608
    return f"(SELECT {', '.join(columns)} FROM ({rows}))"  # noqa: S608


def _none_of(view: ViewDefinition) -> str:
    columns = (
        f"CAST(NULL AS {DUCKDB_TYPES[column.type]}) AS {quote_name(column.name)}" for column in row_columns(view)
    )
    return f"(SELECT {', '.join(columns)} WHERE false)"
