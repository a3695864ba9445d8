"""How far each region is behind the logs of a view: what it can read of them, and what its online stores have read.

A region is behind by the rows that were taken elsewhere and have no verified replica there, and by the age of the
oldest of them. Where a log lies, nothing of it is behind. The figures of a log on another machine are as that machine
last said (`reported_at`), which it does every second while they change.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog, Residency, permits
from fairlead.core.db import Database
from fairlead.core.errors import NotFound
from fairlead.core.ports import Clock
from fairlead.featurestore.definitions import VIEW
from fairlead.featurestore.event_log import LogState
from fairlead.featurestore.event_logs import EventLogs
from fairlead.featurestore.freshness import gauge
from fairlead.featurestore.log_segments import count_segments, find_reach
from fairlead.featurestore.tables import FeatureDefinitionRow
from fairlead.featurestore.tables_streams import FeatureLogReaderRow, FeatureLogRow
from fairlead.registry.identity import Caller
from fairlead.registry.locations import traffic_locations


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineLag:
    """How far the online store of a service in a region has read a log."""

    service: str
    through: int
    behind_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionLag:
    """How far one region is behind one log. `through` is the last row that can be read there without a gap."""

    region: str
    through: int
    behind_rows: int
    behind_seconds: float
    online: tuple[OnlineLag, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLag:
    """One log of a view and how far each region is behind it.

    `rows` counts all that were ever taken, `unsealed_rows` those that lie on the log's machine alone.
    """

    log: str
    view: str
    residency: str
    region: str
    rows: int
    unsealed_rows: int
    oldest_unsealed_at: datetime | None
    segments: int
    reported_at: datetime
    regions: tuple[RegionLag, ...]


class LogLags:
    """States how far regions are behind the logs of views."""

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog, logs: EventLogs) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._logs = logs

    def of_view(self, caller: Caller, view: str) -> list[LogLag]:
        """The logs of a view, by region.

        Raises:
            NotFound: if there is no such view.
        """
        with self._database.read() as session:
            if session.get(FeatureDefinitionRow, (caller.workspace_id, VIEW, view)) is None:
                raise NotFound(
                    f"There is no feature view {view[:80]!r}.", hint="Apply it: fairlead features apply PATH"
                )
        return self.of_workspace(caller.workspace_id, view)

    def of_workspace(self, workspace_id: str, view: str | None = None) -> list[LogLag]:
        """The logs of one view, or of all of them."""
        now = self._clock.now()
        local = [log for log in self._logs.local() if log.workspace_id == workspace_id]
        states = {log.id: log.state() for log in local if view in {None, log.view}}
        query = select(FeatureLogRow).where(FeatureLogRow.workspace_id == workspace_id)
        query = query if view is None else query.where(FeatureLogRow.view == view)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(FeatureLogRow.view, FeatureLogRow.region, FeatureLogRow.id)).all()
            return [self._lag(session, row, states.get(row.id), now) for row in rows]

    def render(self, caller: Caller) -> str:
        """The present state in Prometheus's text format."""
        lags = self.of_workspace(caller.workspace_id)
        logs = [({"view": each.view, "log": each.log, "region": each.region}, each) for each in lags]
        behind = [
            ({"view": each.view, "log": each.log, "taken_in": each.region, "region": region.region}, region)
            for each in lags
            for region in each.regions
        ]
        return "".join(
            (
                gauge(
                    "fairlead_log_rows", "Rows that a log ever took.", [(own, float(each.rows)) for own, each in logs]
                ),
                gauge(
                    "fairlead_log_unsealed_rows",
                    "Rows of a log that no segment holds yet.",
                    [(own, float(each.unsealed_rows)) for own, each in logs],
                ),
                gauge(
                    "fairlead_log_behind_rows",
                    "Rows of a log that cannot be read in a region yet.",
                    [(own, float(each.behind_rows)) for own, each in behind],
                ),
                gauge(
                    "fairlead_log_behind_seconds",
                    "Age of the oldest row of a log that cannot be read in a region yet.",
                    [(own, each.behind_seconds) for own, each in behind],
                ),
            )
        )

    def _lag(self, session: Session, row: FeatureLogRow, seen: LogState | None, now: datetime) -> LogLag:
        # A log of this machine is looked at; of another one the record says what was reported last.
        state = seen or LogState(
            last=row.last_sequence, unsealed_rows=row.unsealed_rows, oldest_unsealed_at=row.oldest_unsealed_at
        )
        catalog = self._catalog.within(row.workspace_id)
        regions = {location.region for location in traffic_locations(session, row.workspace_id)} | {row.region}
        return LogLag(
            log=row.id,
            view=row.view,
            residency=row.residency,
            region=row.region,
            rows=state.last,
            unsealed_rows=state.unsealed_rows,
            oldest_unsealed_at=state.oldest_unsealed_at,
            segments=count_segments(session, row.workspace_id, row.id),
            reported_at=row.reported_at if seen is None else now,
            regions=tuple(
                _region_lag(session, row, state, region, catalog.region(region).jurisdiction, now)
                for region in sorted(regions)
                if permits(Residency(row.residency), catalog.region(region).jurisdiction)
            ),
        )


def _region_lag(  # noqa: PLR0917  (one row of the answer)
    session: Session, row: FeatureLogRow, state: LogState, region: str, jurisdiction: str, now: datetime
) -> RegionLag:
    if region == row.region:
        through, waits_since = state.last, None
    else:
        reach = find_reach(
            session, row.workspace_id, row.id, region=region, may_be=lambda residency: permits(residency, jurisdiction)
        )
        through = reach.last if reach.first_missing is None else reach.first_missing - 1
        waits_since = reach.missing_since or state.oldest_unsealed_at
    behind = max(0, state.last - through)
    readers = select(FeatureLogReaderRow).where(
        FeatureLogReaderRow.workspace_id == row.workspace_id,
        FeatureLogReaderRow.log_id == row.id,
        FeatureLogReaderRow.region == region,
    )
    return RegionLag(
        region=region,
        through=through,
        behind_rows=behind,
        behind_seconds=0.0 if waits_since is None or not behind else max(0.0, (now - waits_since).total_seconds()),
        online=tuple(
            OnlineLag(service=each.service, through=each.sequence, behind_rows=max(0, state.last - each.sequence))
            for each in session.scalars(readers.order_by(FeatureLogReaderRow.service))
        ),
    )
