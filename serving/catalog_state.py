"""The catalog as the record has it: what is bundled, what feeds brought since, and the private regions.

One process has one catalog (`load_catalog`), which adopts new tables where the record has changed: at once in the
process that changed it, within seconds in every other one. Whoever asks it between gets the one or the other state.
"""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import ScalarResult, func, select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.catalog.catalog import Tables, bundled_tables
from fairlead.catalog.history import bundled_on
from fairlead.catalog.observations import FigureKind, Observation, refreshed
from fairlead.catalog.private import PrivateRegion, read_private_region, with_private_regions
from fairlead.core.db import Database, is_dry_run
from fairlead.core.errors import FairleadError
from fairlead.core.ids import RegionId
from fairlead.serving.tables_catalog import CatalogFeedRow, CatalogFigureRow, PrivateRegionRow

_log = logging.getLogger(__name__)


class CatalogState:
    """Keeps a catalog in step with the record."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database = database
        self.catalog = catalog
        self._seen: tuple[object, ...] | None = None

    def follow(self) -> bool:
        """Adopt what has changed in the record; whether anything had. Cheap where nothing has.

        In a dry run nothing is adopted, because nothing of it stays.
        """
        if is_dry_run():
            return False
        with self._database.read() as session:
            seen = _signature(session)
            if seen == self._seen:
                return False
            tables = read_tables(session)
        self.catalog.adopt(tables)
        self._seen = seen
        return True

    def forget(self) -> None:
        """Go back to what is bundled: the record is being closed."""
        if self._seen is not None:
            self.catalog.adopt(bundled_tables())

    def on(self, day: date) -> Tables:
        """What the catalog said at the end of a day, as far as the past is known; private regions are those of now."""
        with self._database.read() as session:
            end = datetime.combine(day + timedelta(days=1), time(), UTC)
            return read_tables(session, bundled=bundled_on(day), before=end)


def read_tables(session: Session, *, bundled: Tables | None = None, before: datetime | None = None) -> Tables:
    """The bundled tables with the private regions, and with what feeds brought, before a time or until now."""
    tables = bundled_tables() if bundled is None else bundled
    tables = with_private_regions(tables, _private_regions(session, tables))
    # Of several feeds that bring one figure, the one that saw it last counts.
    observations = [to_observation(row) for row in newest_rows(session, before=before)]
    return refreshed(tables, observations) if observations else tables


def _signature(session: Session) -> tuple[object, ...]:
    generation = session.scalar(select(func.sum(CatalogFeedRow.generation)))
    regions = session.execute(
        select(func.count(), func.sum(PrivateRegionRow.revision), func.max(PrivateRegionRow.updated_at))
    ).one()
    return (generation, *regions)


def _private_regions(session: Session, tables: Tables) -> list[PrivateRegion]:
    found: list[PrivateRegion] = []
    for row in session.scalars(select(PrivateRegionRow)):
        try:
            found.append(read_private_region(row.region, row.document, owner=row.workspace_id, tables=tables))
        except FairleadError as error:
            # It was checked when it was applied: a region of a cloud that it names may have gone since.
            _log.warning("the private region %s is left out: %s", row.region, error.detail)
    return found


def newest_rows(
    session: Session, *, feed: str | None = None, before: datetime | None = None
) -> ScalarResult[CatalogFigureRow]:
    """The newest row of each figure by each feed (or by one), of those before a time; what was seen last comes last."""
    key = (CatalogFigureRow.feed, CatalogFigureRow.kind, CatalogFigureRow.region, CatalogFigureRow.item)
    newest = select(*key, func.max(CatalogFigureRow.first_seen_at).label("at")).group_by(*key)
    if feed is not None:
        newest = newest.where(CatalogFigureRow.feed == feed)
    if before is not None:
        newest = newest.where(CatalogFigureRow.first_seen_at < before)
    last = newest.subquery()
    return session.scalars(
        select(CatalogFigureRow)
        .join(
            last,
            (CatalogFigureRow.feed == last.c.feed)
            & (CatalogFigureRow.kind == last.c.kind)
            & (CatalogFigureRow.region == last.c.region)
            & (CatalogFigureRow.item == last.c.item)
            & (CatalogFigureRow.first_seen_at == last.c.at),
        )
        .order_by(CatalogFigureRow.last_seen_at, CatalogFigureRow.feed)
    )


def to_observation(row: CatalogFigureRow) -> Observation:
    """A figure as its row says."""
    return Observation(
        kind=FigureKind(row.kind),
        region=RegionId(row.region),
        item=row.item,
        value=row.value,
        source=row.source,
        licence=row.licence,
        date=row.date,
        is_estimate=row.is_estimate,
    )
