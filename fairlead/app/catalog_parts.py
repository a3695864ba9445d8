"""The catalog's parts that settings shape: which feeds this process can read, and the thread that keeps it current."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fairlead.catalog import load_catalog
from fairlead.catalog.feeds import aws, azure, electricity_maps, google, watttime
from fairlead.catalog.feeds.file import FigureFile
from fairlead.core.errors import InvalidInput
from fairlead.registry.identity import system_caller
from fairlead.serving.catalog_feeds import CatalogFeeds
from fairlead.serving.catalog_state import CatalogState
from fairlead.serving.private_regions import PrivateRegions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import APIRouter

    from fairlead.app.settings import ServerSettings
    from fairlead.catalog import Catalog
    from fairlead.catalog.feeds.ports import Feed
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock

FOLLOW_SECONDS = 2.0
FEEDS = ("aws", "azure", "electricity-maps", "file", "google", "watttime")
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class CatalogParts:
    """The catalog in step with the record, its private regions and its feeds."""

    state: CatalogState
    regions: PrivateRegions
    feeds: CatalogFeeds
    clock: Clock
    workspace: str
    _stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def catalog(self) -> Catalog:
        """The catalog."""
        return self.state.catalog

    def routers(self) -> list[APIRouter]:
        """The routes, to be mounted under `/api/v1`."""
        # FastAPI costs a second that a worker need not wait for.
        from fairlead.serving.api_catalog import catalog_routers

        return catalog_routers(self.state, self.regions, self.feeds, self.clock)

    def start(self, *, has_worker: bool) -> None:
        """Follow the record from now on, and with a worker refresh the regular feeds."""
        threading.Thread(target=self._follow, name="fairlead-catalog", daemon=True).start()
        if has_worker and self.feeds.has_regular:
            threading.Thread(target=self._refresh, name="fairlead-catalog-feeds", daemon=True).start()

    def close(self) -> None:
        """Stop, and leave the process's catalog as it was bundled."""
        self._stopping.set()
        self.state.forget()

    def _follow(self) -> None:
        while not self._stopping.wait(FOLLOW_SECONDS):
            try:
                self.state.follow()
            except Exception:  # noqa: BLE001  (the loop goes on; the catalog stays as it is until then)
                _log.exception("the catalog was not read and is tried again")

    def _refresh(self) -> None:
        caller = system_caller(self.workspace, "catalog")
        while not self._stopping.wait(FOLLOW_SECONDS):
            try:
                self.feeds.refresh_due(caller)
            except Exception:  # noqa: BLE001  (the loop goes on; the figures of the last time hold)
                _log.exception("a feed was not refreshed and is tried again")


def assemble_catalog(settings: ServerSettings, database: Database, clock: Clock) -> CatalogParts:
    """Build the catalog's parts, and have the process's catalog adopt what the record has.

    Raises:
        InvalidInput: if the settings name a feed that there is none of.
    """
    unknown = {*settings.catalog_feeds, *settings.catalog_endpoints} - set(FEEDS)
    if unknown:
        raise InvalidInput(f"There is no feed {min(unknown)!r}.", hint=f"There are: {', '.join(FEEDS)}.")
    state = CatalogState(database, load_catalog())
    state.follow()
    feeds = CatalogFeeds(
        database,
        clock,
        state=state,
        feeds=open_feeds(settings, clock),
        names=FEEDS,
        regular=settings.catalog_feeds,
        every=settings.catalog_refresh_every,
    )
    return CatalogParts(
        state=state,
        regions=PrivateRegions(database, clock, state=state),
        feeds=feeds,
        clock=clock,
        workspace=settings.workspace,
    )


def open_feeds(settings: ServerSettings, clock: Clock) -> Mapping[str, Feed]:
    """The feeds that the settings give everything for, by name."""
    at = settings.catalog_endpoints
    found: dict[str, Feed] = {
        "aws": aws.AwsPriceList(url=at.get("aws", aws.URL)),
        "azure": azure.AzureRetailPrices(url=at.get("azure", azure.URL)),
    }
    if settings.google_billing_key is not None:
        key = settings.google_billing_key.get_secret_value()
        found["google"] = google.GoogleBilling(key, url=at.get("google", google.URL))
    if settings.electricity_maps_key is not None:
        found["electricity-maps"] = electricity_maps.ElectricityMaps(
            settings.electricity_maps_key.get_secret_value(), url=at.get("electricity-maps", electricity_maps.URL)
        )
    if settings.watttime_user is not None and settings.watttime_password is not None:
        found["watttime"] = watttime.WattTime(
            settings.watttime_user,
            settings.watttime_password.get_secret_value(),
            url=at.get("watttime", watttime.URL),
            now=clock.now,
        )
    if settings.catalog_file is not None:
        found["file"] = FigureFile(settings.catalog_file)
    return found
