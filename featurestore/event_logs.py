"""The logs of pushed rows that this machine has: found below one folder, each known to the record before its first row.

A view may have several logs, in one region or in many: each machine that takes rows begins its own, so none waits for
another. What they hold together is made one where it is read (see `logged_rows`).
"""

from __future__ import annotations

import hashlib
import logging
import threading
from datetime import datetime
from pathlib import Path

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import FairleadError
from fairlead.core.ports import Clock
from fairlead.featurestore.definitions import VIEW, ViewDefinition
from fairlead.featurestore.event_log import EventLog, LogState
from fairlead.featurestore.tables import FeatureDefinitionRow
from fairlead.featurestore.tables_streams import FeatureLogRow
from fairlead.registry import audit
from fairlead.registry.identity import Caller, system_caller

_SUFFIX = ".log.sqlite"
_NAME_BYTES_MAX = 200
_logger = logging.getLogger(__name__)


class EventLogs:
    """Opens logs below `{folder}/{region, ":" as "_"}/{workspace}/{view}.log.sqlite`, each once."""

    def __init__(self, database: Database, clock: Clock, *, folder: Path) -> None:
        self._database = database
        self._clock = clock
        self._folder = folder
        self._open: dict[Path, EventLog] = {}
        self._known: set[Path] = set()
        self._guard = threading.Lock()

    def for_push(self, caller: Caller, view: ViewDefinition, region: str) -> EventLog:
        """The log that takes a view's rows in a region; it is begun, and said to be, at the first push."""
        path = self._path(caller.workspace_id, view.name, region)
        with self._guard:
            log = self._open.get(path)
            if log is None:
                log = EventLog.open(path, workspace_id=caller.workspace_id, view=view.name, region=region)
                self._open[path] = log
            # No row may be in a log that the record does not know of.
            self._register(caller, log, view.residency)
            return log

    def register(self, log: EventLog) -> None:
        """Have the record know a log of this machine, also one that was restored from a copy of before the log."""
        with self._guard:
            if log.path in self._known:
                return
            with self._database.read() as session:
                view = session.get(FeatureDefinitionRow, (log.workspace_id, VIEW, log.view))
            if view is not None:
                self._register(system_caller(log.workspace_id, "worker"), log, view.residency)

    def local(self) -> list[EventLog]:
        """Every log that lies on this machine; one that cannot be read is left out, and holds up no other."""
        logs: list[EventLog] = []
        for path in sorted(self._folder.glob(f"*/*/*{_SUFFIX}")):
            try:
                logs += self._reopen(path)
            except FairleadError as error:
                _logger.warning("the log %s: %s", path, error)
        return logs

    def of_view(self, workspace_id: str, view: str) -> list[EventLog]:
        """The logs of a view that lie on this machine.

        Raises:
            Unavailable: if one of them cannot be read.
        """
        paths = [folder / _file_of(view) for folder in sorted(self._folder.glob(f"*/{workspace_id}"))]
        return [log for path in paths if path.exists() for log in self._reopen(path)]

    def close(self) -> None:
        """Close every file."""
        with self._guard:
            for log in self._open.values():
                log.close()
            self._open.clear()

    def _reopen(self, path: Path) -> list[EventLog]:
        with self._guard:
            log = self._open.get(path) or EventLog.reopen(path)
            if log is None:
                return []
            self._open[path] = log
            return [log]

    def _path(self, workspace_id: str, view: str, region: str) -> Path:
        return self._folder / region.replace(":", "_") / workspace_id / _file_of(view)

    def _register(self, caller: Caller, log: EventLog, residency: str) -> None:
        if log.path in self._known:
            return
        now = self._clock.now()
        with self._database.write() as session:
            if _insert(session, log, residency, now):
                audit.record(
                    session,
                    caller,
                    self._clock,
                    action="feature-log.begin",
                    subject=log.id,
                    residency=residency,
                    facts={"view": log.view, "region": log.region},
                )
        self._known.add(log.path)


def _file_of(view: str) -> str:
    # A name may be longer than those of files, which have bytes; the file itself says whose it is.
    is_long = len(view.encode()) > _NAME_BYTES_MAX
    return (hashlib.sha256(view.encode()).hexdigest() if is_long else view) + _SUFFIX


def report(session: Session, log: EventLog, state: LogState, now: datetime) -> None:
    """Tell the record where a log stands."""
    row = session.get(FeatureLogRow, (log.workspace_id, log.id), with_for_update=True)
    if row is not None and row.last_sequence <= state.last:
        row.last_sequence, row.unsealed_rows = state.last, state.unsealed_rows
        row.oldest_unsealed_at, row.reported_at = state.oldest_unsealed_at, now


def _insert(session: Session, log: EventLog, residency: str, now: datetime) -> bool:
    """Make the row of a log unless it is there; another process of this machine may be doing that too."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    statement = dialect.insert(FeatureLogRow).values(
        workspace_id=log.workspace_id,
        id=log.id,
        view=log.view,
        residency=residency,
        region=log.region,
        last_sequence=0,
        unsealed_rows=0,
        created_at=now,
        reported_at=now,
    )
    inserted = session.execute(statement.on_conflict_do_nothing().returning(FeatureLogRow.id))
    return inserted.scalar_one_or_none() is not None
