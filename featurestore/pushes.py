"""Pushing rows: taken in a region where they may be, into the log and into the online stores at once.

A push is acknowledged when its rows are on the disk of the machine that took them. The region's online stores are
written right after; what fails there is tried again from the log, as is every other region, so an answer never waits
for more than its own disk and its own region.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from fairlead.catalog import Catalog, Residency, permits
from fairlead.core.db import Database, is_dry_run
from fairlead.core.errors import FairleadError, InvalidInput, JsonValue, ResidencyViolation
from fairlead.core.ports import Clock
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.event_log import OFFLINE, ONLINE, Appended, EventLog
from fairlead.featurestore.event_logs import EventLogs
from fairlead.featurestore.push_sources import PushSource, find_push_source
from fairlead.featurestore.pushed_rows import CheckedRows, Columns, check_rows
from fairlead.featurestore.sub_views import sub_views
from fairlead.registry.identity import Caller
from fairlead.registry.locations import traffic_locations

PushTo = Literal["online", "offline", "online_and_offline"]
"""Where pushed rows go, in Feast's words."""

_DESTINATIONS = {"online": ONLINE, "offline": OFFLINE, "online_and_offline": ONLINE | OFFLINE}
_KEPT = timedelta(seconds=1)
_log = logging.getLogger(__name__)

ApplyOnline = Callable[[EventLog, Appended], bool]
"""Puts rows of a log into its region's online stores; whether all that serve took them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedView:
    """What became of a push in one view.

    `log`, `first` and `last` name the rows that were new, None where none was. `is_online` says whether the region's
    online stores have them already, None where they are not meant to.
    """

    view: str
    accepted: int
    duplicates: int
    log: str | None
    first: int | None
    last: int | None
    is_online: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What became of a push, which is durable now."""

    source: str
    region: str
    views: tuple[PushedView, ...]


class FeaturePushes:
    """Takes rows of push sources.

    Args:
        database: the record.
        clock: the time.
        catalog: the regions.
        logs: the logs of this machine.
        apply_online: puts what was taken into the region's online stores.
        home_region: where this process runs; None where that is not stated.
        is_anywhere: whether this process stands for every region (the embedded server).
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        catalog: Catalog,
        logs: EventLogs,
        apply_online: ApplyOnline,
        home_region: str | None,
        is_anywhere: bool,
    ) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._logs = logs
        self._apply_online = apply_online
        self._home_region = home_region
        self._is_anywhere = is_anywhere
        self._sources: dict[tuple[str, str], tuple[datetime, PushSource]] = {}
        self._guard = threading.Lock()

    def source(self, caller: Caller, name: str) -> PushSource:
        """A stream and the views that it feeds, as they are defined now.

        Raises:
            PushSourceNotFound: if no view takes rows from it.
        """
        with self._database.read() as session:
            return find_push_source(session, caller.workspace_id, name)

    def push(
        self,
        caller: Caller,
        source: str,
        columns: Columns,
        *,
        to: PushTo = "online_and_offline",
        region: str | None = None,
        ids: Sequence[str] | None = None,
    ) -> Pushed:
        """Take rows of a stream for every view that it feeds. When this returns, they are on the disk.

        What is pushed again counts once, by its event ids; so a push whose answer was lost may be repeated at will.

        Raises:
            PushSourceNotFound: if no view takes rows from it.
            InvalidInput, FeatureRowsInvalid: if a row does not fit a view; none was taken.
            ResidencyViolation: if the rows may not be where this process is; it names where to push instead.
            StorageFull, Unavailable: if they cannot be written; each view took them whole or not at all.
        """
        found = self._source(caller, source)
        where = self._region(caller, found, region)
        checked = check_rows(found.views, columns, ids=ids, now=self._clock.now())
        return Pushed(
            source=source,
            region=where,
            views=tuple(self._take(caller, rows, where, _DESTINATIONS[to]) for rows in checked),
        )

    def _take(self, caller: Caller, rows: CheckedRows, region: str, to: int) -> PushedView:
        if is_dry_run():
            return PushedView(
                view=rows.view.name,
                accepted=rows.table.num_rows,
                duplicates=0,
                log=None,
                first=None,
                last=None,
                is_online=None,
            )
        log = self._logs.for_push(caller, rows.view, region)
        taken = log.append(
            rows.table,
            rows.ids,
            to=to,
            view_digest=rows.view.digest,
            principal=caller.principal,
            now=self._clock.now(),
        )
        return PushedView(
            view=rows.view.name,
            accepted=taken.accepted,
            duplicates=taken.duplicates,
            log=None if taken.rows is None else log.id,
            first=taken.first,
            last=taken.last,
            is_online=self._go_online(log, taken) if to & ONLINE else None,
        )

    def _go_online(self, log: EventLog, taken: Appended) -> bool:
        try:
            return self._apply_online(log, taken)
        except FairleadError as error:
            # The rows are safe: the log's keeper tries again.
            _log.warning("rows %s to %s of log %s are not online yet: %s", taken.first, taken.last, log.id, error)
            return False

    def _source(self, caller: Caller, name: str) -> PushSource:
        """The stream as it was defined at most a second ago: who pushes single rows does so all the time."""
        key, now = (caller.workspace_id, name), self._clock.now()
        with self._guard:
            kept = self._sources.get(key)
        if kept is not None and now - kept[0] < _KEPT:
            return kept[1]
        found = self.source(caller, name)
        with self._guard:
            self._sources[key] = (now, found)
        return found

    def _region(self, caller: Caller, source: PushSource, region: str | None) -> str:
        """The region that takes the rows: where this process is, if every class of the rows lets them be there."""
        catalog = self._catalog.within(caller.workspace_id)
        home = self._home_region
        wanted = region or home
        if wanted is not None:
            wanted = catalog.region(wanted).id
        if home is not None and wanted != home and not self._is_anywhere:
            raise InvalidInput(
                f"This server is in {home}, and takes no rows for {wanted}.",
                hint=f"Push to a server or worker in {wanted}, or leave the region out.",
                region=home,
            )
        lawful = self._lawful_regions(caller, source)
        if wanted is None and self._is_anywhere:
            wanted = next(iter(lawful), None)
        if wanted is None and (self._is_anywhere or not all(map(_is_free, source.views))):
            raise self._refusal(source, None, lawful)
        if wanted is None:
            raise InvalidInput(
                "This server does not say which region it is in, so it takes no rows.",
                hint="Set FAIRLEAD_REGION where it runs, or name the region: --region REGION",
                region=None,
            )
        jurisdiction = catalog.region(wanted).jurisdiction
        is_stated = home is not None or self._is_anywhere
        if not all(_permits(view, jurisdiction) and (is_stated or _is_free(view)) for view in source.views):
            raise self._refusal(source, wanted if is_stated else None, lawful)
        return wanted

    def _lawful_regions(self, caller: Caller, source: PushSource) -> list[str]:
        """Regions with a location where every class of the rows lets them be: homes of the views first."""
        with self._database.read() as session:
            regions = {location.region for location in traffic_locations(session, caller.workspace_id)}
        homes = {view.home for view in source.views}
        return sorted(
            (
                region
                for region in regions
                if all(_permits(view, self._catalog.region(region).jurisdiction) for view in source.views)
            ),
            key=lambda region: (region not in homes, region),
        )

    def _refusal(self, source: PushSource, region: str | None, lawful: Sequence[str]) -> ResidencyViolation:
        classes = sorted({each for view in source.views for each in _classes(view)} - {"unrestricted"})
        where = "a server that does not say where it is" if region is None else region
        told: list[JsonValue] = list(lawful)
        return ResidencyViolation(
            f"Rows of {source.name!r} are under the residency class {', '.join(classes) or 'unrestricted'}, and "
            f"{where} may not take them.",
            hint=f"Push them to a server in {' or '.join(lawful)}."
            if lawful
            else "Add a location inside, and a server there: fairlead location add NAME --region REGION --url URL",
            residency=classes[0] if classes else "unrestricted",
            regions=told,
        )


def _classes(view: ViewDefinition) -> set[Residency]:
    return {view.residency, *sub_views(view)}


def _is_free(view: ViewDefinition) -> bool:
    return _classes(view) == {"unrestricted"}


def _permits(view: ViewDefinition, jurisdiction: str) -> bool:
    return all(permits(residency, jurisdiction) for residency in _classes(view))
