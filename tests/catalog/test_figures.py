"""Every figure has a date and a licence, gaps are named, and two states of the catalog can be compared."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from fairlead.catalog import Catalog
from fairlead.catalog.ages import ages, first_day
from fairlead.catalog.catalog import bundled_tables
from fairlead.catalog.changes import changes
from fairlead.catalog.countries import CONTINENTS, jurisdiction_of
from fairlead.catalog.gaps import gaps
from fairlead.catalog.history import bundled_on
from fairlead.catalog.observations import FigureKind, Observation, known_figures, refreshed
from fairlead.core.errors import InvalidInput
from fairlead.core.ids import RegionId

TABLES = bundled_tables()
FIGURES = known_figures(TABLES)
FRANKFURT = RegionId("aws:eu-central-1")


def observe(kind: FigureKind, value: float, item: str = "", region: RegionId = FRANKFURT) -> Observation:
    return Observation(
        kind=kind, region=region, item=item, value=value, source="a feed", licence="x", date="2026-11-01"
    )


def test_every_bundled_figure_says_when_it_held_and_what_its_licence_is() -> None:
    lacking = [key for key, figure in FIGURES.items() if figure.date is None or figure.licence is None]
    assert not lacking
    assert not any(first_day(figure.date or "") > date(2026, 11, 22) for figure in FIGURES.values())


def test_the_ages_cover_every_figure() -> None:
    found = ages(FIGURES, date(2026, 11, 22))
    assert sum(age.figures for age in found) == len(FIGURES)
    assert {age.kind for age in found} == set(FigureKind)


def test_what_no_source_says_is_named_and_everything_else_is_known() -> None:
    named = {(gap.region, gap.kind, item) for gap in gaps(TABLES) for item in gap.items or ("",)}
    for region in TABLES.regions_by_id.values():
        assert ((region.id, "carbon-free-share", "") in named) == (region.carbon_free_share is None)
        assert ((region.id, "carbon", "") in named) == region.carbon.is_estimate
        offers = TABLES.prices_by_region[region.id]
        assert not any((region.id, "on-demand", offer.sku) in named for offer in offers)
        assert all(((region.id, "spot", offer.sku) in named) == (offer.spot is None) for offer in offers)
    # No source with a licence gives prices of TPUs.
    assert ("gcp:us-central1", "on-demand", "ct5lp-hightpu-1t") in named


def test_an_observation_replaces_a_figure_and_fills_a_gap() -> None:
    tables = refreshed(
        TABLES,
        [
            observe(FigureKind.ON_DEMAND, 0.11, "m6i.large"),
            observe(FigureKind.ON_DEMAND, 0.9, "inf2.xlarge"),
            observe(FigureKind.SPOT, 0.3, "inf2.xlarge"),
            observe(FigureKind.CARBON, 300),
            observe(FigureKind.PUE, 1.2),
            observe(FigureKind.CARBON_FREE_SHARE, 0.6),
            observe(FigureKind.INTERNET_EGRESS, 0.07, "0"),
            observe(FigureKind.EGRESS, 0.01, "aws:eu-west-1"),
            observe(FigureKind.ON_DEMAND, 0.1, "x9.huge"),
            observe(FigureKind.CARBON, 1, region=RegionId("mars:olympus")),
        ],
    )
    catalog = Catalog(tables)
    (board,) = catalog.prices(FRANKFURT, "inf2.xlarge")
    assert (board.on_demand.value, board.accelerator, board.spot and board.spot.value) == (0.9, "Inferentia2", 0.3)
    assert catalog.carbon(FRANKFURT).value == 300
    assert not catalog.carbon(FRANKFURT).is_estimate
    assert catalog.egress(FRANKFURT, "aws:eu-west-1").date == "2026-11-01"
    assert not catalog.prices(FRANKFURT, "x9.huge")
    # One list of tiers is of one source.
    assert [tier.from_gb for tier in catalog.internet_egress_tiers(FRANKFURT)] == [0]
    changed = {(each.kind.value, each.item) for each in changes(FIGURES, known_figures(tables)) if each.after}
    assert ("on-demand", "inf2.xlarge") in changed
    assert ("egress", "aws:eu-west-1") in changed


def test_a_newer_date_of_the_same_value_is_no_change() -> None:
    key = next(iter(FIGURES))
    assert not changes(FIGURES, {**FIGURES, key: replace(FIGURES[key], date="2030")})


def test_past_prices_of_google_can_be_compared() -> None:
    then = bundled_on(date(2024, 1, 1))
    found = changes(known_figures(then), FIGURES)
    assert found
    assert {each.region.partition(":")[0] for each in found} == {"gcp"}
    assert {each.kind for each in found} == {FigureKind.ON_DEMAND, FigureKind.SPOT}
    assert bundled_on(date(2026, 11, 1)) is TABLES
    assert all(figure.value > 0 for key, figure in known_figures(then).items() if key.kind is FigureKind.ON_DEMAND)


def test_every_region_and_area_is_in_the_jurisdiction_and_on_the_continent_of_its_country() -> None:
    for region in TABLES.regions_by_id.values():
        assert jurisdiction_of(region.place.country) == region.jurisdiction
        assert CONTINENTS[region.place.country] == region.place.continent
    for area in TABLES.areas_by_id.values():
        assert CONTINENTS[area.place.country] == area.place.continent
    assert len(CONTINENTS) > 230


def test_what_is_no_country_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidInput) as refused:
        jurisdiction_of("NED")
    assert "NLD" in (refused.value.hint or "")
