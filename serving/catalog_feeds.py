"""Feeds in the record: refreshed by hand or by and by, each figure kept with its history.

A feed is read outside of any transaction; then what it brought is compared with what it brought before. A figure that
is another one gets a row of its own, so the past stays known; one that is the same is seen again. A feed that fails
leaves everything as it was, with the error and the age of what it brought last.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from fairlead.catalog.changes import Change, changes
from fairlead.catalog.feeds.ports import Feed, Missing, Reading, read_feed
from fairlead.catalog.observations import Observation, known_figures, refreshed
from fairlead.core.db import Database
from fairlead.core.errors import FairleadError, FeedNotFound, InvalidInput
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.identity import Caller
from fairlead.serving.catalog_state import CatalogState, newest_rows, to_observation
from fairlead.serving.tables_catalog import CatalogFeedRow, CatalogFigureRow

RETRY_AFTER = timedelta(minutes=15)
_MISSING_KEPT = 1000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedState:
    """How a feed is. `is_configured`: this process has what it needs to read it; `is_regular`: it does so by and by."""

    feed: str
    is_configured: bool
    is_regular: bool
    figures: int
    missing: int
    attempted_at: datetime | None
    succeeded_at: datetime | None
    age_days: int | None
    error_code: str | None
    error_detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """What a refresh brought: how many figures, which of the catalog's are other ones now, and what was missing."""

    feed: str
    figures: int
    changes: tuple[Change, ...]
    missing: tuple[Missing, ...]
    refreshed_at: datetime


class CatalogFeeds:
    """Refreshes feeds, and says how they are.

    Args:
        database: the record.
        clock: tells the time.
        state: the catalog that adopts what was brought.
        feeds: those that this process can read, by name.
        names: every feed there is.
        regular: those that are refreshed by and by.
        every: how often.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        state: CatalogState,
        feeds: Mapping[str, Feed],
        names: Sequence[str],
        regular: Sequence[str] = (),
        every: timedelta = timedelta(days=1),
    ) -> None:
        self._database = database
        self._clock = clock
        self._state = state
        self._feeds = feeds
        self._names = tuple(names)
        self._regular = tuple(regular)
        self._every = every

    @property
    def has_regular(self) -> bool:
        """Whether any feed is to be refreshed by and by."""
        return bool(self._regular)

    def list(self) -> list[FeedState]:
        """Every feed, by name."""
        now = self._clock.now()
        with self._database.read() as session:
            rows = {row.feed: row for row in session.scalars(select(CatalogFeedRow))}
            return [self._to_state(name, rows.get(name), now) for name in sorted(self._names)]

    def refresh(self, caller: Caller, name: str, *, regions: Sequence[str] | None = None) -> Refresh:
        """Read a feed now, and keep what it brings; with `regions`, only what it says of those.

        Raises:
            FeedNotFound: if there is no such feed.
            InvalidInput: if this server has not what it needs to read it.
            UnknownRegion: if the catalog has not one of the regions.
            FeedUnavailable: if the source does not answer as it should; the figures of the last time hold.
        """
        feed = self._find(name)
        catalog = self._state.catalog.snapshot()
        wanted = catalog.regions() if regions is None else tuple(catalog.region(each) for each in regions)
        now = self._clock.now()
        try:
            reading = read_feed(feed, wanted)
        except FairleadError as error:
            with self._database.write() as session:
                row = _feed_row(session, name)
                row.attempted_at, row.error_code, row.error_detail = now, error.code, error.detail
            raise
        with self._database.write() as session:
            count = self._keep(session, name, reading, now, is_whole=regions is None)
            facts = {"figures": len(reading.observations), "new": count}
            audit.record(session, caller, self._clock, action="catalog.refresh", subject=name, facts=facts)
        before = known_figures(catalog.tables)
        after = known_figures(refreshed(catalog.tables, reading.observations))
        self._state.follow()
        return Refresh(
            feed=name,
            figures=len(reading.observations),
            changes=tuple(changes(before, after)),
            missing=reading.missing,
            refreshed_at=now,
        )

    def refresh_due(self, caller: Caller) -> list[str]:
        """Refresh the regular feeds whose time has come, those that nobody else is refreshing; their names."""
        done: list[str] = []
        for name in self._regular:
            if name in self._feeds and self._claim(name):
                try:
                    self.refresh(caller, name)
                except FairleadError as error:
                    _log.warning("%s", error.detail)
                done.append(name)
        return done

    def _find(self, name: str) -> Feed:
        if name not in self._names:
            raise FeedNotFound(
                f"There is no feed {name[:40]!r}.", hint=f"There are: {', '.join(sorted(self._names))}.", feed=name[:40]
            )
        if name not in self._feeds:
            raise InvalidInput(
                f"This server has not what it needs to read the feed {name!r}.",
                hint="Set what docs/how-to/refresh-the-catalog.md names for it, and start the server again.",
                feed=name,
            )
        return self._feeds[name]

    def _claim(self, name: str) -> bool:
        """Whether a feed is due and this process is the one to refresh it."""
        now = self._clock.now()
        with self._database.write() as session:
            _feed_row(session, name)
            is_due = or_(
                CatalogFeedRow.attempted_at.is_(None),
                (CatalogFeedRow.attempted_at <= now - RETRY_AFTER)
                & (CatalogFeedRow.read_whole_at.is_(None) | (CatalogFeedRow.read_whole_at <= now - self._every)),
            )
            claim = update(CatalogFeedRow).where(CatalogFeedRow.feed == name, is_due).values(attempted_at=now)
            result = session.execute(claim.execution_options(synchronize_session=False))
            return isinstance(result, CursorResult) and result.rowcount == 1

    def _keep(self, session: Session, name: str, reading: Reading, now: datetime, *, is_whole: bool) -> int:
        row = _feed_row(session, name, lock=True)
        # Of several prices of one thing the last one counts, as `refreshed` has it.
        brought = {each.key: each for each in reading.observations}
        known = {to_observation(last).key: last for last in newest_rows(session, feed=name)}
        count = 0
        for key, observation in brought.items():
            last = known.get(key)
            if last is not None and last.value == observation.value:
                last.last_seen_at, last.date, last.source = now, observation.date, observation.source
            else:
                session.add(_to_row(name, observation, now))
                count += 1
        row.generation += 1
        row.figures = len(known.keys() | brought.keys())
        row.attempted_at = row.succeeded_at = now
        if is_whole:
            row.read_whole_at = now
            missing = reading.missing[:_MISSING_KEPT]
            row.missing = [{"region": each.region, "item": each.item, "reason": each.reason} for each in missing]
        row.error_code = row.error_detail = None
        return count

    def _to_state(self, name: str, row: CatalogFeedRow | None, now: datetime) -> FeedState:
        succeeded = None if row is None else row.succeeded_at
        return FeedState(
            feed=name,
            is_configured=name in self._feeds,
            is_regular=name in self._regular,
            figures=0 if row is None else row.figures,
            missing=0 if row is None else len(row.missing),
            attempted_at=None if row is None else row.attempted_at,
            succeeded_at=succeeded,
            age_days=None if succeeded is None else (now - succeeded).days,
            error_code=None if row is None else row.error_code,
            error_detail=None if row is None else row.error_detail,
        )


def _feed_row(session: Session, name: str, *, lock: bool = False) -> CatalogFeedRow:
    row = session.get(CatalogFeedRow, name, with_for_update=lock)
    if row is not None:
        return row
    # Of several processes that ask for its first refresh, one is first.
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    first = dialect.insert(CatalogFeedRow).values(feed=name, generation=0, figures=0, missing=[])
    session.execute(first.on_conflict_do_nothing(index_elements=["feed"]))
    return session.get_one(CatalogFeedRow, name, with_for_update=lock)


def _to_row(name: str, observation: Observation, now: datetime) -> CatalogFigureRow:
    return CatalogFigureRow(
        feed=name,
        kind=observation.kind.value,
        region=observation.region,
        item=observation.item,
        value=observation.value,
        unit=observation.figure.unit,
        source=observation.source,
        licence=observation.licence,
        date=observation.date,
        is_estimate=observation.is_estimate,
        first_seen_at=now,
        last_seen_at=now,
    )
