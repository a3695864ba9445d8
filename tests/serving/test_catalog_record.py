"""What feeds bring is kept with its history, a failing feed keeps the last figures; private regions count at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete

from fairlead.app.catalog_parts import FEEDS
from fairlead.catalog import load_catalog
from fairlead.catalog.catalog import bundled_tables
from fairlead.catalog.feeds.azure import AzureRetailPrices
from fairlead.catalog.observations import FigureKind
from fairlead.core.cloud_hosts import CloudHosts
from fairlead.core.db import Database, dry_run
from fairlead.core.errors import (
    AlreadyExists,
    Conflict,
    FeedNotFound,
    FeedUnavailable,
    InvalidInput,
    RegionNotFound,
    StaleRevision,
    UnknownRegion,
)
from fairlead.core.ids import RegionId
from fairlead.registry.identity import system_caller
from fairlead.serving.catalog_feeds import CatalogFeeds
from fairlead.serving.catalog_state import CatalogState
from fairlead.serving.container_registries import ContainerRegistries
from fairlead.serving.private_regions import PrivateRegions
from fairlead.serving.routing import Endpoint, Route, read_table, write_table
from fairlead.serving.tables_catalog import CatalogFeedRow, CatalogFigureRow, PrivateRegionRow
from tests.catalog.test_private import HARBOUR, tables
from tests.record_world import World, make_world
from tests.records import open_record
from tests.servers.postgres import PostgresServer
from tests.servers.price_lists import PriceLists, price_lists

AMSTERDAM, MACHINE = "azure:westeurope", "Standard_D2s_v5"
HERE = "onprem:rotterdam-1"


@pytest.fixture(scope="module")
def lists() -> Iterator[PriceLists]:
    with price_lists() as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        with open_record(f"sqlite:///{tmp_path_factory.mktemp('catalog') / 'fairlead.db'}") as found:
            yield found
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.new_database() as url, open_record(url) as found:
        yield found


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    """A workspace of its own; feeds are the server's, so they are forgotten between tests."""
    with database.write() as session:
        for table in (CatalogFigureRow, CatalogFeedRow, PrivateRegionRow):
            session.execute(delete(table))
    yield make_world(database)
    load_catalog().adopt(bundled_tables())


@pytest.fixture
def state(world: World) -> CatalogState:
    found = CatalogState(world.database, load_catalog())
    found.follow()
    return found


@pytest.fixture
def feeds(world: World, state: CatalogState, lists: PriceLists) -> CatalogFeeds:
    lists.machine_usd = 0.2
    return CatalogFeeds(
        world.database,
        world.clock,
        state=state,
        feeds={"azure": AzureRetailPrices(url=lists.url)},
        names=FEEDS,
        regular=["azure", "watttime"],
    )


def price() -> tuple[float, str]:
    (offer,) = load_catalog().prices(AMSTERDAM, MACHINE)
    return offer.on_demand.value, offer.on_demand.source


def test_a_refresh_is_kept_with_its_history(
    world: World, state: CatalogState, feeds: CatalogFeeds, lists: PriceLists
) -> None:
    first = world.clock.now().date()
    found = feeds.refresh(world.owner, "azure", regions=[AMSTERDAM])
    assert found.figures == 4
    assert {change.item for change in found.changes if change.kind is FigureKind.SPOT} == {MACHINE}
    assert price() == (0.2, "Azure Retail Prices API, meter 0000-1111")
    world.clock.advance(timedelta(days=3))
    lists.machine_usd = 0.25
    assert [change.item for change in feeds.refresh(world.owner, "azure", regions=[AMSTERDAM]).changes] == [MACHINE]
    assert price()[0] == 0.25
    then = {offer.sku: offer for offer in state.on(first).prices_by_region[load_catalog().region(AMSTERDAM).id]}
    assert then[MACHINE].on_demand.value == 0.2
    before = {
        offer.sku: offer for offer in state.on(date(2020, 1, 1)).prices_by_region[load_catalog().region(AMSTERDAM).id]
    }
    assert before[MACHINE].on_demand.source.startswith("karpenter")
    azure = next(each for each in feeds.list() if each.feed == "azure")
    assert (azure.figures, azure.age_days, azure.error_code) == (4, 0, None)


def test_another_process_follows_what_one_refreshed(world: World, state: CatalogState, feeds: CatalogFeeds) -> None:
    other = CatalogState(world.database, load_catalog().snapshot())
    assert other.follow()
    feeds.refresh(world.owner, "azure", regions=[AMSTERDAM])
    assert other.follow()
    (offer,) = other.catalog.prices(AMSTERDAM, MACHINE)
    assert offer.on_demand.value == 0.2
    assert not other.follow()
    state.forget()
    assert price()[1].startswith("karpenter")


def test_a_dry_run_says_what_would_change_and_keeps_nothing(world: World, feeds: CatalogFeeds) -> None:
    with dry_run():
        assert feeds.refresh(world.owner, "azure", regions=[AMSTERDAM]).changes
    assert price()[1].startswith("karpenter")
    assert all(each.attempted_at is None for each in feeds.list())


def test_a_feed_that_fails_keeps_the_last_figures_and_says_their_age(
    world: World, feeds: CatalogFeeds, lists: PriceLists
) -> None:
    feeds.refresh(world.owner, "azure", regions=[AMSTERDAM])
    world.clock.advance(timedelta(days=5))
    lists.down = "/api/retail"
    try:
        with pytest.raises(FeedUnavailable):
            feeds.refresh(world.owner, "azure", regions=[AMSTERDAM])
    finally:
        lists.down = None
    assert price()[0] == 0.2
    azure = next(each for each in feeds.list() if each.feed == "azure")
    assert (azure.figures, azure.age_days, azure.error_code) == (4, 5, "feed-unavailable")


def test_regular_feeds_are_refreshed_when_they_are_due_and_by_one_process(world: World, feeds: CatalogFeeds) -> None:
    worker = system_caller(world.owner.workspace_id, "catalog")
    feeds.refresh(world.owner, "azure", regions=[AMSTERDAM])  # of one region alone: the rest is still due
    world.clock.advance(timedelta(minutes=15))
    assert feeds.refresh_due(worker) == ["azure"]
    assert feeds.refresh_due(worker) == []
    world.clock.advance(timedelta(hours=23))
    assert feeds.refresh_due(worker) == []
    world.clock.advance(timedelta(hours=1))
    assert feeds.refresh_due(worker) == ["azure"]


def test_two_processes_may_ask_for_the_first_refresh_at_once(world: World, feeds: CatalogFeeds) -> None:
    with ThreadPoolExecutor(1) as other:
        with world.database.write() as session:
            session.add(CatalogFeedRow(feed="azure", generation=0, figures=0, missing=[]))
            session.flush()
            asked = other.submit(feeds.refresh_due, world.owner)
            time.sleep(0.3)
        assert asked.result(20) == ["azure"]


def test_a_feed_that_is_none_or_lacks_its_key_is_refused_with_what_to_do(world: World, feeds: CatalogFeeds) -> None:
    with pytest.raises(FeedNotFound, match="gcp"):
        feeds.refresh(world.owner, "gcp")
    with pytest.raises(InvalidInput, match="watttime"):
        feeds.refresh(world.owner, "watttime")
    with pytest.raises(UnknownRegion):
        feeds.refresh(world.owner, "azure", regions=["azure:nowhere"])


def test_a_private_region_counts_at_once_and_goes_again(world: World, state: CatalogState) -> None:
    regions = PrivateRegions(world.database, world.clock, state=state)
    applied = regions.put(world.owner, HERE, HARBOUR, expected_revision=0)
    assert (applied.revision, applied.jurisdiction) == (1, "EU")
    assert load_catalog().region(HERE).owner == world.owner.workspace_id
    with pytest.raises(StaleRevision):
        regions.put(world.owner, HERE, HARBOUR, expected_revision=0)
    assert regions.put(world.owner, HERE, {**HARBOUR, "pue": 1.2}, expected_revision=1).revision == 2
    assert load_catalog().region(HERE).pue.value == 1.2
    regions.delete(world.owner, HERE, expected_revision=2)
    with pytest.raises(UnknownRegion):
        load_catalog().region(HERE)
    with pytest.raises(RegionNotFound):
        regions.get(world.owner, HERE)


def test_a_private_region_with_a_container_registry_neither_goes_nor_changes_its_law(
    world: World, state: CatalogState
) -> None:
    regions = PrivateRegions(world.database, world.clock, state=state)
    regions.put(world.owner, HERE, HARBOUR, expected_revision=None)
    hosts = CloudHosts(hosts=("registry.example",))
    registries = ContainerRegistries(world.database, world.clock, catalog=state.catalog, cloud_hosts=hosts)
    registries.add(world.owner, name="here", region=HERE, url="https://registry.example", provider="oci")
    london = {**HARBOUR, "place": {**HARBOUR["place"], "country": "GBR"}, "jurisdiction": "UK"}
    with pytest.raises(Conflict, match="container registry"):
        regions.put(world.owner, HERE, london, expected_revision=None)
    with pytest.raises(Conflict, match="container registry"):
        regions.delete(world.owner, HERE, expected_revision=None)
    registries.remove(world.owner, "here")
    regions.delete(world.owner, HERE, expected_revision=None)


def test_a_private_region_with_a_location_neither_goes_nor_changes_its_law(world: World, state: CatalogState) -> None:
    regions = PrivateRegions(world.database, world.clock, state=state)
    regions.put(world.owner, HERE, HARBOUR, expected_revision=None)
    world.location(HERE)
    with pytest.raises(Conflict, match="location"):
        regions.delete(world.owner, HERE, expected_revision=None)
    london = {**HARBOUR, "place": {**HARBOUR["place"], "country": "GBR"}, "jurisdiction": "UK"}
    with pytest.raises(Conflict, match="jurisdiction"):
        regions.put(world.owner, HERE, london, expected_revision=None)


def test_an_id_is_one_workspaces_alone(world: World, state: CatalogState) -> None:
    regions = PrivateRegions(world.database, world.clock, state=state)
    regions.put(world.owner, HERE, HARBOUR, expected_revision=None)
    rival = make_world(world.database).owner
    with pytest.raises(AlreadyExists):
        regions.put(rival, HERE, HARBOUR, expected_revision=None)
    with pytest.raises(RegionNotFound):
        regions.delete(rival, HERE, expected_revision=None)


def test_a_gateway_learns_of_the_private_regions_that_its_endpoints_are_in(tmp_path: Path) -> None:
    endpoint = Endpoint(region=RegionId(HERE), url="http://127.0.0.1:1", bundle_digest="sha256:0")
    table = {
        "inside": Route(residency="eu", endpoints=(endpoint,)),
        "outside": Route(residency="us", endpoints=(endpoint,)),
    }
    load_catalog().adopt(tables((HERE, HARBOUR)))
    try:
        write_table(tmp_path / "routes.json", table)
        load_catalog().adopt(bundled_tables())  # as in another process
        read = read_table(tmp_path / "routes.json")
        assert read is not None
        assert read["inside"].in_order(area="amsterdam") == [endpoint]
        assert not read["outside"].endpoints
    finally:
        load_catalog().adopt(bundled_tables())
