"""From logs into online stores: at once where the rows were taken, elsewhere as soon as their segment is there.

How far each store has read each log is in the record. A store that is made anew, or serves another snapshot, is read to
again from where that snapshot ends, so that no row is missing beside it; a row that is put there twice changes nothing.
What this process has put there itself it remembers until the next round, so that a push costs no transaction more.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog, Residency, permits
from fairlead.core.errors import FairleadError, InvalidInput, Unavailable
from fairlead.featurestore.applied import find_pinned_service
from fairlead.featurestore.duck import ArrowTable, load_arrow
from fairlead.featurestore.event_log import ONLINE, OWN_COLUMNS, SEQUENCE, TO, Appended, EventLog
from fairlead.featurestore.event_logs import EventLogs
from fairlead.featurestore.log_positions import Positions
from fairlead.featurestore.log_segments import Segment, segments_of
from fairlead.featurestore.online_engines import OnlineStoreReader, StoreName
from fairlead.featurestore.online_reader import OnlineStoreError
from fairlead.featurestore.snapshots import find_snapshot
from fairlead.featurestore.tables import OnlineStateRow
from fairlead.featurestore.tables_streams import FeatureLogReaderRow, FeatureLogRow, SnapshotLogRow

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.featurestore.online_choice import OnlineEngines
    from fairlead.featurestore.replica_rows import ReplicaRows

_KEPT = timedelta(seconds=1)
_ROWS_AT_ONCE = 10_000
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Store:
    """An online store that serves: which snapshot, since when, and the views of it."""

    name: StoreName
    snapshot: str
    since: datetime
    views: frozenset[str]


_ReaderKey = tuple[StoreName, str]


class OnlineFollower:
    """Puts pushed rows into online stores.

    Args:
        database: the record.
        clock: the time.
        catalog: the regions.
        engines: what keeps each region's stores.
        logs: the logs of this machine.
        replicas: brings segments to this machine.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        catalog: Catalog,
        engines: OnlineEngines,
        logs: EventLogs,
        replicas: ReplicaRows,
    ) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._engines = engines
        self._logs = logs
        self._replicas = replicas
        self._kept: tuple[datetime, list[_Store]] | None = None
        self._views: dict[tuple[str, str], frozenset[str]] = {}
        self._put: dict[_ReaderKey, tuple[datetime, int]] = {}
        self._readers: dict[StoreName, OnlineStoreReader] = {}
        self._guard = threading.Lock()

    def apply(self, log: EventLog, taken: Appended) -> bool:
        """Put rows that a log of this machine has just taken into the stores of its region.

        Whether there is a store that serves the view there, and all that do hold the rows; without one, they come with
        its first snapshot.

        Raises:
            FairleadError: what an engine met; the rows come with the next round.
        """
        # Where none is known to serve the view, one may since a moment ago.
        stores = self._stores_of(log) or self._stores_of(log, is_fresh=True)
        has_all = bool(stores)
        if taken.first is None or taken.last is None:
            # They came again: they are there if all of the log is.
            return has_all and all(self._has_read(store, log) for store in stores)
        rows = _online_rows(taken.rows)
        if rows.num_rows:
            for store in stores:
                has_all &= self._push(store, log.view, rows)
                self._advance(store, log.id, taken.first - 1, taken.last)
        return has_all

    def follow(self, regions: Collection[str] | None) -> None:
        """Bring the stores of some regions (None: of all) up to what can be read of every log there."""
        with self._database.read() as session:
            logs = session.scalars(select(FeatureLogRow).order_by(FeatureLogRow.id)).all()
        if not logs:
            return
        local = {log.id: log for log in self._logs.local()}
        for store in self._stores(is_fresh=True):
            if (regions is not None and store.name.region not in regions) or not self._is_here(store):
                continue
            for row in logs:
                if row.workspace_id == store.name.workspace_id and row.view in store.views:
                    try:
                        self._follow(store, row, local.get(row.id) if row.region == store.name.region else None)
                    except FairleadError as error:
                        _logger.warning(
                            "log %s is put into the store of %s in %s later: %s",
                            row.id,
                            store.name.service,
                            store.name.region,
                            error,
                        )

    def _stores_of(self, log: EventLog, *, is_fresh: bool = False) -> list[_Store]:
        """The stores that serve the log's view in its region, and can be reached from here."""
        return [
            store
            for store in self._stores(is_fresh=is_fresh)
            if (store.name.workspace_id, store.name.region) == (log.workspace_id, log.region)
            and log.view in store.views
            and self._is_here(store)
        ]

    def _is_here(self, store: _Store) -> bool:
        """Whether this process reaches the store: an embedded one is on the machine of the region's worker alone."""
        try:
            reader = self._readers.get(store.name)
            if reader is None:
                reader = self._readers[store.name] = self._engines.of(store.name.region).reader(store.name)
            return bool(reader.meta)
        except (FileNotFoundError, FairleadError, OnlineStoreError):
            return False

    def _follow(self, store: _Store, row: FeatureLogRow, log: EventLog | None) -> None:
        known, position = self._position(store, row)
        for rows, last in self._rows(store, row, log, position):
            self._push(store, row.view, _online_rows(rows))
            position = last
        if position != known:
            self._note(store, row.id, position)

    def _rows(
        self, store: _Store, row: FeatureLogRow, log: EventLog | None, position: int
    ) -> Iterator[tuple[ArrowTable, int]]:
        """What follows a position, as it can be read in the store's region, each with the last sequence of it."""
        while True:
            found = None if log is None else log.read(after=position, limit=_ROWS_AT_ONCE)
            if found is not None and found.first == position + 1:
                position = found.last
                yield found.rows, position
                continue
            segments = self._next_segments(store, row, position)
            if not segments:
                return
            after, position = position, segments[0].last
            yield self._read(segments, store.name.region, after), position

    def _next_segments(self, store: _Store, row: FeatureLogRow, position: int) -> list[Segment]:
        """The segments, one for each class, that hold the row after a position, if all that may be here are here."""
        region, jurisdiction = store.name.region, self._catalog.region(store.name.region).jurisdiction
        with self._database.read() as session:

            def holding(readable_in: str | None) -> list[Segment]:
                found = segments_of(
                    session, row.workspace_id, row.view, logs=[row.id], readable_in=readable_in, holding=position + 1
                )
                return [each for each in found if permits(Residency(each.artifact.residency), jurisdiction)]

            here = holding(region)
            return here if len(here) == len(holding(None)) else []

    def _read(self, segments: Sequence[Segment], region: str, after: int) -> ArrowTable:
        arrow = load_arrow()
        whole: Any = None
        for segment in segments:
            # Each class has the same rows in the same order.
            part = arrow.parquet.read_table(self._replicas.fetch(segment.artifact, near=region, only=region))
            for name in part.column_names:
                whole = part if whole is None else whole
                if name not in whole.column_names:
                    whole = whole.append_column(name, part.column(name))
        return whole.filter(arrow.compute.greater(whole.column(SEQUENCE), after))

    def _push(self, store: _Store, view: str, rows: ArrowTable) -> bool:
        """Put rows into a store; whether it can hold them.

        Raises:
            FairleadError: if the store cannot be written now.
        """
        engine, fits = self._engines.of(store.name.region), True
        for start in range(0, rows.num_rows, _ROWS_AT_ONCE):
            try:
                engine.push(store.name, view, rows.slice(start, _ROWS_AT_ONCE).to_pylist())
            except InvalidInput as error:
                # Rows of another version of the view, which the one that is served cannot hold: they never will fit.
                _logger.warning("rows of view %r fit no store of %s: %s", view, store.name.service, error)
                fits = False
            except (sqlite3.Error, OSError, OnlineStoreError) as error:
                # The engine's own trouble, such as a full disk.
                raise Unavailable(f"The online store of {store.name.service!r} cannot be written now.") from error
        return fits

    def _has_read(self, store: _Store, log: EventLog) -> bool:
        with self._guard:
            since, position = self._put.get((store.name, log.id), (store.since, -1))
        return since == store.since and position >= log.state().last

    def _advance(self, store: _Store, log: str, before: int, last: int) -> None:
        """Remember what this process has put there, if nothing is missing before it."""
        with self._guard:
            since, position = self._put.get((store.name, log), (store.since, -1))
            if since == store.since and position == before:
                self._put[store.name, log] = (since, last)

    def _position(self, store: _Store, row: FeatureLogRow) -> tuple[int, int]:
        """Up to where the record says that a store has read a log, and up to where it has."""
        key = (row.workspace_id, store.name.service, store.name.region, row.id)
        with self._database.read() as session:
            reader = session.get(FeatureLogReaderRow, key)
            is_current = reader is not None and reader.snapshot_digest == store.snapshot
            if reader is not None and is_current and reader.updated_at >= store.since:
                known = position = reader.sequence
            else:
                known, position = -1, _end_of(session, store, row)
        with self._guard:
            since, put = self._put.get((store.name, row.id), (store.since, -1))
            if since == store.since and put > position:
                position = put
            self._put[store.name, row.id] = (store.since, position)
        return known, position

    def _note(self, store: _Store, log: str, position: int) -> None:
        name = store.name
        with self._guard:
            self._put[name, log] = (store.since, max(position, self._put.get((name, log), (store.since, -1))[1]))
        with self._database.write() as session:
            key = (name.workspace_id, name.service, name.region, log)
            reader = session.get(FeatureLogReaderRow, key, with_for_update=True)
            if reader is None:
                names = {"workspace_id": name.workspace_id, "service": name.service, "region": name.region}
                reader = FeatureLogReaderRow(**names, log_id=log)
                session.add(reader)
            reader.snapshot_digest, reader.sequence = store.snapshot, position
            reader.updated_at = max(self._clock.now(), store.since)

    def _stores(self, *, is_fresh: bool = False) -> list[_Store]:
        """Every store that serves; at most a second old, unless it has to be fresh."""
        with self._guard:
            kept = self._kept
        if kept is not None and not is_fresh and self._clock.now() - kept[0] < _KEPT:
            return kept[1]
        with self._database.read() as session:
            query = select(OnlineStateRow).where(OnlineStateRow.served_snapshot.is_not(None))
            stores = [store for state in session.scalars(query) if (store := self._store(session, state)) is not None]
        with self._guard:
            self._kept = (self._clock.now(), stores)
        return stores

    def _store(self, session: Session, state: OnlineStateRow) -> _Store | None:
        if state.served_snapshot is None or state.materialized_at is None:
            return None
        key = (state.workspace_id, state.served_snapshot)
        if key not in self._views:
            snapshot = find_snapshot(session, *key)
            pinned = find_pinned_service(session, state.workspace_id, snapshot.service, snapshot.service_digest)
            self._views[key] = frozenset(name for name, view in pinned.views.items() if view.stream is not None)
        return _Store(
            name=StoreName(workspace_id=state.workspace_id, service=state.service, region=state.region),
            snapshot=state.served_snapshot,
            since=state.materialized_at,
            views=self._views[key],
        )


def _end_of(session: Session, store: _Store, row: FeatureLogRow) -> int:
    """Up to where the snapshot that a store serves holds the rows of a log."""
    snapshot = find_snapshot(session, row.workspace_id, store.snapshot)
    query = select(SnapshotLogRow.positions).where(
        SnapshotLogRow.workspace_id == row.workspace_id,
        SnapshotLogRow.snapshot_id == snapshot.id,
        SnapshotLogRow.view == row.view,
    )
    ends = [_through(positions, row.id) for positions in session.scalars(query)]
    return min(ends, default=0)


def _through(positions: Positions, log: str) -> int:
    return next((int(each["through"]) for each in positions if each["log"] == log), 0)


def _online_rows(rows: ArrowTable) -> ArrowTable:
    """Those that go into online stores, with the view's columns alone."""
    compute = load_arrow().compute
    wanted = rows.filter(compute.equal(compute.bit_wise_and(rows.column(TO), ONLINE), ONLINE))
    return wanted.drop_columns([name for name in OWN_COLUMNS if name in wanted.column_names])
