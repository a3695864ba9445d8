"""Feeds bring what their sources say, name what they do not, and fail as a whole where a source does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fairlead.catalog import Region, load_catalog
from fairlead.catalog.feeds.aws import AwsPriceList
from fairlead.catalog.feeds.azure import AzureRetailPrices
from fairlead.catalog.feeds.electricity_maps import ElectricityMaps
from fairlead.catalog.feeds.fetching import Source
from fairlead.catalog.feeds.file import FigureFile
from fairlead.catalog.feeds.google import GoogleBilling
from fairlead.catalog.feeds.ports import Feed, read_feed
from fairlead.catalog.feeds.watttime import WattTime
from fairlead.catalog.observations import FigureKey, FigureKind, known_figures, refreshed
from fairlead.core.errors import FeedUnavailable
from tests.servers.price_lists import GOOGLE_KEY, KEY, PASSWORD, USER, PriceLists, price_lists
from tests.servers.token_services import serving

CATALOG = load_catalog()
HOURS = b'[{"datetime": "2026-11-22T11:00", "carbonIntensity": %b, "fossilFreePercentage": 50}]'
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def lists() -> Iterator[PriceLists]:
    with price_lists() as server:
        yield server


def regions(*names: str) -> Sequence[Region]:
    return [CATALOG.region(name) for name in names]


def brought(feed: Feed, *names: str) -> dict[tuple[str, str, str], float]:
    return {
        (each.kind.value, each.region, each.item): each.value for each in read_feed(feed, regions(*names)).observations
    }


def test_aws_brings_linux_on_demand_and_traffic_by_tier_and_pair(lists: PriceLists) -> None:
    found = brought(AwsPriceList(url=lists.url), "aws:eu-central-1", "aws:eu-west-1", "gcp:europe-west4")
    assert found == {
        ("on-demand", "aws:eu-central-1", "m6i.large"): 0.123,
        ("on-demand", "aws:eu-central-1", "inf2.xlarge"): 0.9854,
        ("internet-egress", "aws:eu-central-1", "0"): 0.085,
        ("internet-egress", "aws:eu-central-1", "10240"): 0.08,
        ("egress", "aws:eu-central-1", "aws:eu-west-1"): 0.015,
    }


def test_what_aws_does_not_list_is_named(lists: PriceLists) -> None:
    reading = AwsPriceList(url=lists.url).read_prices(regions("aws:eu-central-1", "aws:eu-west-1"))
    assert ("aws:eu-central-1", "g5.xlarge") in {(each.region, each.item) for each in reading.missing}
    assert ("aws:eu-west-1", "m6i.large") in {(each.region, each.item) for each in reading.missing}


def test_google_prices_are_the_sums_of_their_parts(lists: PriceLists) -> None:
    found = brought(GoogleBilling(GOOGLE_KEY, url=lists.url), "gcp:europe-west4")
    assert found["on-demand", "gcp:europe-west4", "n2-standard-4"] == pytest.approx(4 * 0.035 + 16 * 0.0047)
    assert found["spot", "gcp:europe-west4", "n2-standard-4"] == pytest.approx(4 * 0.01 + 16 * 0.001)
    assert found["on-demand", "gcp:europe-west4", "ct5lp-hightpu-4t"] == pytest.approx(4 * 1.56)
    assert not any(sku.startswith("g2") for _, _, sku in found)


def test_azure_brings_linux_on_demand_and_spot_over_all_pages(lists: PriceLists) -> None:
    lists.machine_usd = 0.11
    assert brought(AzureRetailPrices(url=lists.url), "azure:westeurope", "azure:uksouth") == {
        ("on-demand", "azure:westeurope", "Standard_D2s_v5"): 0.11,
        ("spot", "azure:westeurope", "Standard_D2s_v5"): 0.03,
        ("internet-egress", "azure:westeurope", "0"): 0.087,
        ("internet-egress", "azure:westeurope", "10335"): 0.083,
    }


def test_electricity_maps_brings_the_mean_of_the_hours(lists: PriceLists) -> None:
    reading = ElectricityMaps(KEY, url=lists.url).read_carbon(regions("aws:eu-central-1"))
    carbon, share = reading.observations
    assert (carbon.value, carbon.date, share.value) == (320.0, "2026-11-21", 0.61)
    assert "zone DE" in carbon.source


def test_watttime_brings_grams_and_names_the_grids_that_the_account_lacks(lists: PriceLists) -> None:
    feed = WattTime(USER, PASSWORD, url=lists.url, now=lambda: NOW)
    reading = feed.read_carbon(regions("aws:eu-central-1", "aws:us-west-2"))
    (carbon,) = reading.observations
    assert carbon.value == pytest.approx(701 * 0.45359237, abs=0.01)
    assert [each.region for each in reading.missing] == ["aws:us-west-2"]


@pytest.mark.parametrize("refused", ["electricity-maps", "watttime", "google"])
def test_wrong_credentials_are_a_failure_that_shows_none(refused: str, lists: PriceLists) -> None:
    feeds: dict[str, Feed] = {
        "electricity-maps": ElectricityMaps("hunter2", url=lists.url),
        "watttime": WattTime("hunter", "hunter2", url=lists.url, now=lambda: NOW),
        "google": GoogleBilling("hunter2", url=lists.url),
    }
    with pytest.raises(FeedUnavailable) as failed:
        read_feed(feeds[refused], regions("aws:eu-central-1", "gcp:europe-west4"))
    assert "hunter2" not in f"{failed.value.detail} {failed.value.hint} {failed.value.attributes}"


@pytest.mark.parametrize("feed", [AwsPriceList, AzureRetailPrices])
def test_a_source_that_is_down_fails_the_feed(feed: type[AwsPriceList | AzureRetailPrices], lists: PriceLists) -> None:
    lists.down = "/"
    try:
        with pytest.raises(FeedUnavailable, match="500"):
            feed(url=lists.url).read_prices(regions("aws:eu-central-1", "azure:westeurope"))
    finally:
        lists.down = None


def test_a_source_of_another_shape_fails_the_feed(lists: PriceLists) -> None:
    source = Source("azure", lists.url)
    with pytest.raises(FeedUnavailable, match="another shape"):
        source.parse("a page", lambda: int("none"))


@pytest.mark.parametrize("answer", [b"[" * 200_000, b'{"zone": "DE", "history": ' + HOURS % (b"1" * 400) + b"}"])
def test_a_source_that_answers_what_cannot_be_read_fails_the_feed(answer: bytes) -> None:
    with serving(lambda _: (200, {}, answer)) as url, pytest.raises(FeedUnavailable):
        read_feed(ElectricityMaps("k", url=url), regions("aws:eu-central-1"))


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-1"])
def test_a_figure_that_none_can_be_fails_the_feed(value: bytes) -> None:
    answer = b'{"zone": "DE", "history": ' + HOURS % value + b"}"
    with serving(lambda _: (200, {}, answer)) as url, pytest.raises(FeedUnavailable):
        read_feed(ElectricityMaps("k", url=url), regions("aws:eu-central-1"))


def test_a_listing_is_read_by_lines_and_one_without_any_is_not_taken_into_memory() -> None:
    for sent, expected in ((b"a\r\n\xc3\xa4\nlast", ["a", "\u00e4", "last"]), (bytes(3 * 2**20), None)):
        with serving(lambda _, sent=sent: (200, {}, sent)) as url, Source("aws", url).lines("list") as lines:
            if expected is not None:
                assert list(lines) == expected
                continue
            with pytest.raises(FeedUnavailable, match="longer"):
                list(lines)


def test_a_file_brings_figures_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "figures.yaml"
    path.write_text(
        """
apiVersion: fairlead/v1
kind: CatalogFigures
spec:
  figures:
    - {kind: on-demand, region: aws:eu-central-1, item: m6i.large, value: 0.09, source: contract 7, licence: internal,
       date: 2026-10-01}
    - {kind: round-trip, region: aws:eu-central-1, item: gcp:europe-west4, value: 9.5, source: own ping,
       licence: internal, date: 2026-11}
    - {kind: carbon, region: mars:olympus, value: 1, source: x, licence: x, date: 2026}
"""
    )
    reading = FigureFile(path).read_prices(CATALOG.regions())
    assert [each.region for each in reading.missing] == ["mars:olympus"]
    tables = refreshed(CATALOG.tables, reading.observations)
    figures = known_figures(tables)
    assert (
        figures[FigureKey(FigureKind.ON_DEMAND, CATALOG.region("aws:eu-central-1").id, "m6i.large")].licence
        == "internal"
    )
    trip = tables.round_trips.between_regions(*regions("aws:eu-central-1", "gcp:europe-west4"))
    assert (trip.value, trip.source) == (9.5, "own ping")


@pytest.mark.parametrize(
    "entry",
    [
        "{kind: prices, region: a, value: 1, source: x, licence: x, date: 2026}",
        "{kind: carbon, region: a, value: -1, source: x, licence: x, date: 2026}",
        "{kind: carbon, region: a, value: .nan, source: x, licence: x, date: 2026}",
        "{kind: carbon, region: a, value: 1, source: x, date: 2026}",
        "{kind: carbon, region: a, value: 1, source: x, licence: x, date: soon}",
        "{kind: carbon, region: a, value: 1, source: x, licence: x, date: 2026, note: y}",
    ],
)
def test_a_file_with_a_wrong_entry_brings_nothing_and_names_it(entry: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.yaml"
    path.write_text(f"apiVersion: fairlead/v1\nkind: CatalogFigures\nspec:\n  figures:\n    - {entry}\n")
    with pytest.raises(FeedUnavailable, match="/spec/figures/0"):
        FigureFile(path).read_prices(CATALOG.regions())
