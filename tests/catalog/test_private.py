"""A private region is described with the fields of the clouds' regions; what it leaves out is marked as an estimate."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fairlead.catalog import Catalog, parse_residency, permits
from fairlead.catalog.catalog import Tables, bundled_tables
from fairlead.catalog.gaps import gaps
from fairlead.catalog.power import instance_power
from fairlead.catalog.private import read_private_region, with_private_regions
from fairlead.core.errors import InvalidInput, UnknownRegion

HARBOUR: dict[str, Any] = {
    "place": {"name": "Rotterdam", "country": "NLD", "latitude": 51.92, "longitude": 4.48},
    "jurisdiction": "EU",
    "source": "harbour price list",
    "date": "2026-10-01",
    "licence": "internal",
    "pue": 1.4,
    "carbon": {"value": 210, "source": "own meter", "date": "2026-09"},
    "instances": [
        {"sku": "rack-a", "architecture": "x86_64", "vcpus": 32, "memory_gib": 256, "on_demand": 1.1},
        {
            "sku": "rack-g",
            "architecture": "x86_64",
            "vcpus": 16,
            "memory_gib": 128,
            "accelerator": "MI300X",
            "accelerator_count": 2,
            "on_demand": 3.0,
            "idle_watts": 300.0,
            "full_watts": 1900.0,
        },
    ],
    "egress": {
        "internet": 0.01,
        "tiers": [{"from_gb": 1000, "usd_per_gb": 0.005}],
        "regions": {"aws:eu-central-1": 0.002},
    },
    "round_trips": {"aws:eu-central-1": 8.5},
    "line_gbit_per_second": 10,
}


def tables(*documents: tuple[str, dict[str, Any]], owner: str = "default") -> Tables:
    bundled = bundled_tables()
    read = [read_private_region(name, each, owner=owner, tables=bundled) for name, each in documents]
    return with_private_regions(bundled, read)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(tables(("onprem:rotterdam-1", HARBOUR)))


def test_a_private_region_answers_as_any_other(catalog: Catalog) -> None:
    found = catalog.region("onprem:rotterdam-1")
    assert (found.cloud, found.jurisdiction, found.place.continent) == ("onprem", "EU", "EU")
    assert (found.carbon.value, found.carbon.source, found.pue.licence) == (210, "own meter", "internal")
    assert [offer.sku for offer in catalog.prices(found.id)] == ["rack-a", "rack-g"]
    assert [tier.from_gb for tier in catalog.internet_egress_tiers(found.id)] == [0, 1000]
    assert catalog.egress(found.id, "aws:eu-central-1").value == 0.002
    assert catalog.round_trip("aws:eu-central-1", found.id).value == 8.5
    assert catalog.transfer_carbon(found.id, "gcp:europe-west4", 10**9).value == pytest.approx(0.001 * 1.4 * 210)


def test_what_it_leaves_out_is_an_estimate(catalog: Catalog) -> None:
    here, there = "onprem:rotterdam-1", "gcp:us-central1"
    assert catalog.round_trip(here, there).is_estimate
    assert catalog.round_trip(here, there).source.startswith("distance model")
    assert catalog.egress(here, there).is_estimate
    assert catalog.egress(there, here).is_estimate
    assert catalog.expected_throughput(there, here).value == 10
    assert catalog.expected_throughput(there, here).is_estimate
    assert catalog.request_price(here, "write").is_estimate
    assert catalog.area_round_trip("amsterdam", here).is_estimate
    kinds = {gap.kind for gap in gaps(catalog.tables) if gap.region == here}
    assert {"carbon-free-share", "egress", "round-trip", "throughput"} <= kinds


def test_the_power_that_its_owner_states_lets_an_unknown_board_be_placed(catalog: Catalog) -> None:
    (offer,) = catalog.prices("onprem:rotterdam-1", "rack-g")
    power = instance_power(offer, utilization=1.0)
    assert power is not None
    assert power.value == 1900


def test_the_carbon_of_the_country_stands_in_for_its_own() -> None:
    document = {key: value for key, value in HARBOUR.items() if key != "carbon"}
    found = Catalog(tables(("edge:quay", document))).region("edge:quay")
    assert found.carbon.is_estimate
    assert "nearest in the country" in found.carbon.source


def test_other_workspaces_do_not_see_it() -> None:
    catalog = Catalog(tables(("onprem:rotterdam-1", HARBOUR), owner="harbour"))
    assert catalog.within("harbour").region("onprem:rotterdam-1")
    with pytest.raises(UnknownRegion):
        catalog.within("rival").region("onprem:rotterdam-1")
    assert len(catalog.within("rival").regions()) == len(bundled_tables().regions_by_id)


def test_a_region_in_a_country_without_a_cloud_has_a_residency_class_of_its_own() -> None:
    place = {"name": "Reykjavik", "country": "ISL", "latitude": 64.1, "longitude": -21.9}
    iceland = {**HARBOUR, "place": place, "jurisdiction": "EEA", "round_trips": {}}
    assert permits(parse_residency("eea"), Catalog(tables(("edge:rvk", iceland))).region("edge:rvk").jurisdiction)
    assert permits(parse_residency("nzl"), "NZL")


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        *outer, last = path.split("/")
        target: Any = document
        for key in outer:
            target = target[int(key) if key.isdigit() else key]
        target[last] = value

    return apply


@pytest.mark.parametrize(
    ("pointer", "spoil"),
    [
        ("/jurisdiction", change("jurisdiction", "US")),
        ("/place/country", change("place/country", "NED")),
        ("/place/latitude", change("place/latitude", 97.0)),
        ("/pue", change("pue", 0.8)),
        ("/carbon", change("carbon", {"value": 1e6})),
        ("/carbon_free_share", change("carbon_free_share", 61)),
        ("/date", change("date", "2026-13")),
        ("/instances/1/sku", change("instances/1/sku", "rack-a")),
        ("/instances/1/accelerator", change("instances/1/accelerator_count", 0)),
        ("/instances/1/idle_watts", change("instances/1/idle_watts", 5000.0)),
        ("/instances/0/on_demand", change("instances/0/on_demand", -1)),
        ("/egress/internet", change("egress/internet", -0.1)),
        ("/egress/tiers/0/from_gb", change("egress/tiers", [{"from_gb": 0, "usd_per_gb": 0.1}])),
        ("/egress/regions/aws:mars", change("egress/regions", {"aws:mars": 0.1})),
        ("/round_trips/gcp:us-central1", change("round_trips", {"gcp:us-central1": 9.0})),
    ],
)
def test_a_document_that_cannot_be_true_is_refused_with_the_member(
    pointer: str, spoil: Callable[[dict[str, Any]], None]
) -> None:
    document = copy.deepcopy(HARBOUR)
    spoil(document)
    with pytest.raises(InvalidInput) as refused:
        tables(("onprem:rotterdam-1", document))
    assert refused.value.attributes["pointer"] == pointer


@pytest.mark.parametrize(
    "name", ["aws:mine", "rotterdam", "onprem:", "Onprem:Rotterdam", "onprem:a/b", "x" * 70 + ":a"]
)
def test_an_id_that_is_a_clouds_or_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="no id of a private region"):
        tables((name, HARBOUR))
