"""The catalog answers from real tables, says where a figure comes from, and never makes a gap a zero."""

from __future__ import annotations

import csv
from importlib.resources import files
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.catalog import Figure, distance_km, load_catalog
from fairlead.core.errors import UnknownArea, UnknownRegion

CATALOG = load_catalog()
REGION_IDS = [region.id for region in CATALOG.regions()]
regions = st.sampled_from(REGION_IDS)
areas = st.sampled_from([area.id for area in CATALOG.areas()])


def test_the_catalog_is_read_once() -> None:
    assert load_catalog() is CATALOG


def test_the_catalog_covers_three_clouds_and_six_continents() -> None:
    assert {region.cloud for region in CATALOG.regions()} == {"aws", "azure", "gcp"}
    assert {"AF", "AS", "EU", "NA", "OC", "SA"} <= {region.place.continent for region in CATALOG.regions()}
    assert {"AF", "AS", "EU", "NA", "OC", "SA"} <= {area.place.continent for area in CATALOG.areas()}
    assert len(CATALOG.areas()) >= 20


def test_regions_and_areas_come_in_order_of_id() -> None:
    assert sorted(REGION_IDS) == REGION_IDS
    assert [area.id for area in CATALOG.areas()] == sorted(area.id for area in CATALOG.areas())


@pytest.mark.parametrize("region", REGION_IDS)
def test_every_region_has_carbon_pue_an_internet_tariff_and_a_priced_instance(region: str) -> None:
    found = CATALOG.region(region)
    assert 0 < found.carbon.value < 1000
    assert 1 <= found.pue.value < 2
    assert CATALOG.internet_egress(region).value > 0
    assert CATALOG.prices(region)
    assert -90 <= found.place.latitude <= 90
    assert -180 <= found.place.longitude <= 180


def test_every_cell_of_every_table_names_a_known_region() -> None:
    for table, columns in (
        ("prices", ("region",)),
        ("egress_regions", ("region",)),
        ("egress_pairs", ("source_region", "destination_region")),
        ("round_trips", ("source_region", "destination_region")),
        ("throughput", ("source_region", "destination_region")),
    ):
        text = files("fairlead.catalog.tables").joinpath(f"{table}.csv").read_text(encoding="utf-8")
        named = {row[column] for row in csv.DictReader(text.splitlines()) for column in columns}
        assert named <= set(REGION_IDS), table


def test_every_source_in_the_tables_is_described_beside_them() -> None:
    described = files("fairlead.catalog.tables").joinpath("SOURCES.md").read_text(encoding="utf-8").lower()
    for region in CATALOG.regions():
        for price in CATALOG.prices(region.id):
            assert price.on_demand.source.split()[0] in described
        assert region.carbon.source.split()[0] in described
    assert CATALOG.egress("aws:us-east-1", "gcp:europe-west4").source.split()[0] in described


def test_a_figure_shows_its_unit_and_marks_an_estimate() -> None:
    assert str(Figure(value=0.09, unit="USD/GB", source="a price list")) == "0.09 USD/GB"
    assert str(Figure(value=20, unit="ms", source="a model", is_estimate=True)) == "~20 ms"


def test_a_figure_is_plain_json_with_its_source() -> None:
    figure = Figure(value=20.0, unit="ms", source="a model", is_estimate=True, error=5.0)
    assert figure.to_json() == {"value": 20.0, "unit": "ms", "source": "a model", "is_estimate": True, "error": 5.0}


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [("us-east-1", "aws:us-east-1"), ("aws:us-eest-1", "aws:us-east-1"), ("gcp:europe-west-4", "gcp:europe-west4")],
)
def test_an_unknown_region_suggests_the_nearest_spelling(text: str, suggestion: str) -> None:
    with pytest.raises(UnknownRegion) as refused:
        CATALOG.region(text)
    assert suggestion in (refused.value.hint or "")
    assert text in refused.value.detail


@pytest.mark.parametrize("text", ["", "x" * 100_000, "aws:\x00", "🦊"])
def test_a_region_that_resembles_nothing_is_refused_with_the_form_to_use(text: str) -> None:
    with pytest.raises(UnknownRegion, match="cloud:region") as refused:
        CATALOG.region(text)
    assert len(str(refused.value)) < 300


def test_an_unknown_area_is_refused() -> None:
    with pytest.raises(UnknownArea, match="new-york"):
        CATALOG.area("newyork")


def test_a_known_pair_has_the_tariff_of_its_source() -> None:
    tariff = CATALOG.egress("aws:us-east-1", "gcp:europe-west4")
    assert (tariff.value, tariff.unit, tariff.is_estimate) == (0.09, "USD/GB", False)


def test_a_pair_that_no_source_names_gets_a_flagged_stand_in() -> None:
    missing = [
        (one, other)
        for one, other in product(REGION_IDS, REGION_IDS)
        if one != other and (one, other) not in CATALOG.tables.egress_tariffs.pairs
    ]
    assert missing
    for one, other in missing:
        tariff = CATALOG.egress(one, other)
        assert tariff.is_estimate
        assert 0 < tariff.value <= 0.2


@given(source=regions, destination=regions)
def test_only_a_transfer_within_one_region_is_free(source: str, destination: str) -> None:
    assert (CATALOG.egress(source, destination).value == 0) == (source == destination)
    assert (CATALOG.transfer_carbon(source, destination, 10**9).value == 0) == (source == destination)


@given(source=regions, destination=regions, size=st.integers(0, 10**15))
def test_transfer_cost_is_the_tariff_times_decimal_gigabytes(source: str, destination: str, size: int) -> None:
    cost = CATALOG.transfer_cost(source, destination, size)
    assert cost.unit == "USD"
    assert cost.value == pytest.approx(CATALOG.egress(source, destination).value * size / 1e9)


def test_transfer_carbon_is_energy_times_pue_times_the_sending_grid() -> None:
    sender = CATALOG.region("gcp:europe-west4")
    emitted = CATALOG.transfer_carbon("gcp:europe-west4", "aws:us-east-1", 5 * 10**9)
    assert emitted.value == pytest.approx(5 * 0.001 * sender.pue.value * sender.carbon.value)
    assert emitted.is_estimate
    assert "Cloud Carbon Footprint" in emitted.source


@given(source=regions, destination=regions)
def test_no_round_trip_is_faster_than_light(source: str, destination: str) -> None:
    km = distance_km(CATALOG.region(source).place, CATALOG.region(destination).place)
    # 300 km of slack: some regions are published as a state or a country.
    assert CATALOG.round_trip(source, destination).value >= 2 * (km - 300) / 299.8


@given(area=areas, region=regions)
def test_no_area_is_nearer_than_fibre_allows_and_each_is_flagged_with_its_error(area: str, region: str) -> None:
    away = CATALOG.area_round_trip(area, region)
    km = distance_km(CATALOG.area(area).place, CATALOG.region(region).place)
    assert away.is_estimate
    assert away.error is not None
    assert away.error > 0
    assert away.value >= 2 * (km - 300) / 299.8


def test_a_measured_round_trip_is_no_estimate() -> None:
    away = CATALOG.round_trip("aws:us-east-1", "azure:westeurope")
    assert not away.is_estimate
    assert 70 < away.value < 110


def test_a_missing_measurement_is_taken_from_the_other_direction() -> None:
    measured = CATALOG.tables.round_trips.measured
    one, other = next(pair for pair in sorted(measured) if (pair[1], pair[0]) not in measured)
    assert CATALOG.round_trip(other, one).value == CATALOG.round_trip(one, other).value
    assert "other direction" in CATALOG.round_trip(other, one).source


def test_a_pair_measured_in_neither_direction_is_modelled_with_its_error() -> None:
    away = CATALOG.round_trip("gcp:asia-east1", "gcp:europe-west6")
    assert away.is_estimate
    assert away.error is not None
    assert 150 < away.value < 300


def test_users_in_a_city_reach_the_region_in_their_city_first() -> None:
    for area, city in (("london", "uk"), ("tokyo", "jpn"), ("toronto", "can"), ("sao-paulo", "bra")):
        nearest = min(REGION_IDS, key=lambda region, area=area: CATALOG.area_round_trip(area, region).value)
        assert CATALOG.region(nearest).jurisdiction.lower() == city


def test_carbon_follows_one_rule_for_all_clouds() -> None:
    same_grid = {CATALOG.carbon(region).value for region in ("gcp:europe-west4", "azure:westeurope")}
    assert len(same_grid) == 1
    assert not CATALOG.carbon("gcp:europe-west4").is_estimate
    assert CATALOG.carbon("azure:westeurope").is_estimate


def test_throughput_is_none_where_nobody_measured_it() -> None:
    measured = CATALOG.throughput("aws:us-east-1", "gcp:europe-west4")
    assert measured is not None
    assert measured.unit == "Gbit/s"
    assert CATALOG.throughput("aws:us-east-1", "aws:us-east-1") is None


def test_prices_can_be_asked_for_one_instance_type() -> None:
    (price,) = CATALOG.prices("azure:westeurope", "Standard_D2s_v5")
    assert (price.vcpus, price.memory_gib, price.accelerator, price.architecture) == (2, 8.0, None, "x86_64")
    assert price.spot is None
    assert CATALOG.prices("azure:westeurope", "no-such-type") == ()


def test_spot_is_never_dearer_than_on_demand() -> None:
    for region in REGION_IDS:
        for price in CATALOG.prices(region):
            assert price.on_demand.value > 0
            assert price.spot is None or 0 < price.spot.value <= price.on_demand.value


def test_an_unmeasured_throughput_is_estimated_and_says_so() -> None:
    catalog = load_catalog()
    ids = [region.id for region in catalog.regions()]
    for source in ids:
        for destination in ids:
            expected = catalog.expected_throughput(source, destination)
            assert expected.value > 0
            assert expected.is_estimate == (catalog.throughput(source, destination) is None)


def test_requests_are_priced_in_every_region_as_estimates() -> None:
    catalog = load_catalog()
    for region in catalog.regions():
        write, read = catalog.request_price(region.id, "write"), catalog.request_price(region.id, "read")
        assert write.is_estimate
        assert read.is_estimate
        assert write.value > read.value > 0
        assert "https://" in write.source
