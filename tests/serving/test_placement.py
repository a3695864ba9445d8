"""Placement is exact, obeys every hard limit, and its explanation adds up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairlead.catalog import Residency, parse_residency, permits
from fairlead.core.errors import PlacementInfeasible
from fairlead.core.ids import RegionId
from fairlead.serving import placement_model
from fairlead.serving.placement import Demand, Placement, PlacementRequest, Resources, Terms, place
from fairlead.serving.placement_options import build_problem
from tests.serving.placement_problems import CATALOG, brute_force, region_ids, requests

US, NL_GCP, NL_AZURE = RegionId("aws:us-east-1"), RegionId("gcp:europe-west4"), RegionId("azure:westeurope")
THREE = (US, NL_GCP, NL_AZURE)
REPLICA = Resources(vcpus=1, memory_gib=2, requests_per_second_per_replica=40, bytes_per_request=2000)
TWO_CONTINENTS = PlacementRequest(
    demand=(
        Demand(area="new-york", requests_per_second=120, latency_limit_ms=90),
        Demand(area="frankfurt", requests_per_second=80, latency_limit_ms=40),
    ),
    resources=REPLICA,
    candidate_regions=THREE,
    existing_replicas=(US,),
    artifact_bytes=17_000_000,
    carbon_price_usd_per_tonne=100,
)

CLEANER_BY_RELAY = PlacementRequest(
    demand=(Demand(area="new-york", requests_per_second=10),),
    resources=Resources(vcpus=0.5, memory_gib=1, requests_per_second_per_replica=10, bytes_per_request=0),
    candidate_regions=(RegionId("gcp:asia-south1"), RegionId("gcp:europe-north1"), RegionId("aws:ca-central-1")),
    min_regions=2,
    existing_replicas=(RegionId("gcp:asia-south1"),),
    artifact_bytes=100_000_000_000,
    carbon_price_usd_per_tonne=5000,
    latency_price_usd_per_request_second=1e-5,
)
"""Where copies by way of another region cost the same and are cleaner."""

solved = settings(max_examples=25, deadline=None)


def answer_or_none(request: PlacementRequest) -> Placement | None:
    try:
        return place(request).placement
    except PlacementInfeasible:
        return None


# --- exact ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(request=requests())
@example(request=CLEANER_BY_RELAY)
def test_the_answer_costs_exactly_what_brute_force_finds(request: PlacementRequest) -> None:
    least = brute_force(request)
    found = answer_or_none(request)
    if least is None:
        assert found is None
    else:
        assert found is not None
        assert found.terms.objective_usd == pytest.approx(least, rel=1e-6, abs=2e-5)


@pytest.mark.parametrize("survive", [None, "region"])
def test_relays_of_equal_cost_that_are_one_way_lead_to_the_same_answer(
    survive: Literal["region"] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions = tuple(sorted(region.id for region in CATALOG.regions()))[::2]
    request = replace(
        TWO_CONTINENTS,
        candidate_regions=regions,
        artifact_bytes=20_000_000_000,
        existing_replicas=(US,),
        survive=survive,
    )
    problem = build_problem(request, CATALOG)
    rough = placement_model.solve(problem)
    monkeypatch.setattr(placement_model, "_WAY_STEP", 0.0)
    exact = placement_model.solve(problem)
    assert rough is not None
    assert exact is not None
    assert rough.objective == pytest.approx(exact.objective, rel=placement_model.RELATIVE_GAP)


def test_equal_requests_give_equal_answers() -> None:
    assert place(TWO_CONTINENTS).to_json() == place(TWO_CONTINENTS).to_json()


def test_a_tie_goes_to_the_smaller_region_id() -> None:
    tied = (RegionId("aws:us-east-2"), RegionId("aws:us-east-1"))
    assert len({CATALOG.prices(region, "m6i.large")[0].on_demand.value for region in tied}) == 1
    request = PlacementRequest(
        demand=(Demand(area="chicago", requests_per_second=10),), resources=REPLICA, candidate_regions=tied
    )
    answer = place(request)
    assert answer.placement.regions == ("aws:us-east-1",)
    assert answer.runner_up is not None
    assert "costs the same" in answer.runner_up.why


# --- laws ----------------------------------------------------------------------------------------------------------


@solved
@given(request=requests(), more=region_ids)
def test_relaxing_a_limit_never_costs_more(request: PlacementRequest, more: RegionId) -> None:
    tight = answer_or_none(request)
    for freer in (
        replace(request, min_regions=1),
        replace(request, candidate_regions=tuple({*(request.candidate_regions or ()), more})),
        replace(request, demand=tuple(replace(group, latency_limit_ms=None) for group in request.demand)),
    ):
        found = answer_or_none(freer)
        if tight is not None:
            assert found is not None
            assert found.terms.objective_usd <= tight.terms.objective_usd * (1 + 1e-6) + 2e-5


@solved
@given(request=requests(limits=False), times=st.integers(2, 5))
def test_more_demand_never_costs_less_nor_more_than_in_proportion(request: PlacementRequest, times: int) -> None:
    grown = replace(
        request,
        demand=tuple(replace(each, requests_per_second=each.requests_per_second * times) for each in request.demand),
    )
    one, many = place(request).placement, place(grown).placement
    assert many.terms.objective_usd >= one.terms.objective_usd * (1 - 1e-6) - 2e-5
    # So many times the same fleet would do, and the copies are paid for once.
    assert many.terms.objective_usd <= times * one.terms.objective_usd + 1e-3


@solved
@given(
    request=requests(),
    residency=st.sampled_from(["eu", "eea", "us", "unrestricted"]),
    denied=st.lists(region_ids, max_size=3).map(tuple),
)
def test_regions_that_a_rule_forbids_never_appear(
    request: PlacementRequest, residency: str, denied: tuple[RegionId, ...]
) -> None:
    rule = parse_residency(residency)
    request = replace(
        request,
        residency=rule,
        denied_regions=denied,
        existing_replicas=(),
        candidate_regions=(*(request.candidate_regions or ()), *THREE),
    )
    try:
        answer = place(request)
    except PlacementInfeasible:
        return
    runner_up = answer.runner_up.placement.regions if answer.runner_up else ()
    for region in (*answer.placement.regions, *runner_up):
        assert permits(rule, CATALOG.region(region).jurisdiction)
        assert region not in denied
        assert region in (request.candidate_regions or ())


@solved
@given(request=requests())
def test_everyone_is_served_within_capacity_and_limit(request: PlacementRequest) -> None:
    found = answer_or_none(request)
    if found is None:
        return
    for group in found.groups:
        assert sum(Decimal(str(share)) for share in group.shares.values()) == 1
        assert set(group.shares) <= set(found.regions)
        assert min(each.value for each in group.round_trips.values()) <= group.mean_ms + 0.05
        if group.latency_limit_ms is not None:
            assert group.p95_ms <= group.latency_limit_ms
    for choice in found.choices:
        assert choice.load_requests_per_second <= choice.capacity_requests_per_second * (1 + 1e-5)
        assert sum(each.count for each in choice.instances) >= 1
    assert len(found.regions) >= request.min_regions


# --- explanation ---------------------------------------------------------------------------------------------------


def exact(values: Iterator[float]) -> Decimal:
    return sum((Decimal(str(value)) for value in values), Decimal(0))


def assert_adds_up(found: Placement) -> None:
    terms = found.terms
    for name in ("compute_usd", "serving_egress_usd", "replication_usd", "compute_g", "serving_egress_g"):
        assert exact(getattr(choice, name) for choice in found.choices) == Decimal(str(getattr(terms, name)))
    for choice in found.choices:
        assert exact(each.compute_usd for each in choice.instances) == Decimal(str(choice.compute_usd))
        assert exact(each.compute_g for each in choice.instances) == Decimal(str(choice.compute_g))
    assert exact(group.latency_usd for group in found.groups) == Decimal(str(terms.latency_usd))
    cost = (terms.compute_usd, terms.serving_egress_usd, terms.replication_usd)
    assert exact(iter(cost)) == Decimal(str(terms.cost_usd))
    assert exact(iter((*cost, terms.carbon_usd, terms.latency_usd))) == Decimal(str(terms.objective_usd))
    assert exact(iter((terms.compute_g, terms.serving_egress_g, terms.replication_g))) == Decimal(str(terms.carbon_g))


@solved
@given(request=requests())
def test_the_figures_add_up_exactly_as_they_are_shown(request: PlacementRequest) -> None:
    try:
        answer = place(request)
    except PlacementInfeasible:
        return
    assert_adds_up(answer.placement)
    if answer.runner_up is None:
        return
    assert_adds_up(answer.runner_up.placement)
    for name in Terms.__slots__:
        ours, theirs = getattr(answer.placement.terms, name), getattr(answer.runner_up.placement.terms, name)
        difference = getattr(answer.runner_up.difference, name)
        assert Decimal(str(ours)) + Decimal(str(difference)) == Decimal(str(theirs))


@solved
@given(request=requests())
def test_the_runner_up_is_another_set_of_regions_and_never_better(request: PlacementRequest) -> None:
    try:
        answer = place(request)
    except PlacementInfeasible:
        return
    if answer.runner_up is not None:
        assert answer.runner_up.placement.regions != answer.placement.regions
        assert answer.runner_up.difference.objective_usd >= -1e-4 - 1e-6 * answer.placement.terms.objective_usd


def test_the_runner_up_says_term_by_term_why_it_lost() -> None:
    answer = place(TWO_CONTINENTS)
    assert answer.placement.regions == (US, NL_GCP)
    assert answer.runner_up is not None
    assert answer.runner_up.placement.regions == (US, NL_AZURE)
    assert "compute" in answer.runner_up.why
    assert answer.runner_up.difference.objective_usd > 0


def test_every_region_of_the_catalog_is_chosen_or_has_its_first_reason() -> None:
    answer = place(replace(TWO_CONTINENTS, denied_regions=(NL_AZURE,)))
    rules = {rejection.region: rejection.rule for rejection in answer.rejected}
    assert set(rules) | set(answer.placement.regions) == {region.id for region in CATALOG.regions()}
    assert set(rules).isdisjoint(answer.placement.regions)
    assert rules[NL_AZURE] == "denied-regions"
    assert rules[RegionId("gcp:asia-east1")] == "candidate-regions"


def test_reasons_name_residency_before_anything_else() -> None:
    request = PlacementRequest(
        demand=(Demand(area="frankfurt", requests_per_second=10, latency_limit_ms=60),),
        resources=REPLICA,
        residency=parse_residency("eu"),
        denied_regions=(US,),
    )
    rules = {rejection.region: rejection.rule for rejection in place(request).rejected}
    assert rules[US] == "residency"
    assert rules[RegionId("aws:eu-south-1")] == "not-chosen"


def test_a_limit_that_binds_is_named_with_what_it_costs() -> None:
    request = replace(TWO_CONTINENTS, min_regions=3)
    bounds = {bound.limit: bound for bound in place(request).bounds}
    assert bounds["min_regions"].saves_usd_per_hour == pytest.approx(
        place(request).placement.terms.objective_usd
        - place(replace(request, min_regions=2)).placement.terms.objective_usd,
        abs=1e-6,
    )
    assert "min_clouds" not in bounds


def test_a_limit_with_slack_is_not_named() -> None:
    generous = tuple(replace(group, latency_limit_ms=5000.0) for group in TWO_CONTINENTS.demand)
    assert place(replace(TWO_CONTINENTS, demand=generous)).bounds == ()


def test_the_whole_catalog_is_placed_for_twenty_areas(record_property: Callable[[str, object], None]) -> None:
    areas = [area.id for area in CATALOG.areas()][:20]
    demand = tuple(Demand(area=area, requests_per_second=20, latency_limit_ms=200) for area in areas)
    began = time.perf_counter()
    answer = place(PlacementRequest(demand=demand, resources=REPLICA))
    record_property("seconds", round(time.perf_counter() - began, 2))
    assert len(answer.rejected) + len(answer.placement.regions) == 69
    assert all(group.p95_ms <= 200 for group in answer.placement.groups)


def test_the_answer_is_plain_json_with_sources_and_estimates() -> None:
    answer = place(TWO_CONTINENTS)
    document = answer.to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["sources"] == list(answer.sources)
    assert set(answer.estimates) <= set(answer.sources)
    assert any("distance model" in source for source in answer.estimates)
    assert set(answer.methods) >= {"compute_power", "network_energy", "latency"}


# --- what one asks for ---------------------------------------------------------------------------------------------


def test_users_in_two_continents_with_a_latency_limit_get_a_region_in_each() -> None:
    found = place(TWO_CONTINENTS).placement
    assert {choice.region: set(choice.shares) for choice in found.choices} == {
        US: {"new-york"},
        NL_GCP: {"frankfurt"},
    }


def test_an_eu_only_model_stays_in_the_eu_whatever_it_costs() -> None:
    request = replace(
        TWO_CONTINENTS,
        residency=Residency("eu"),
        existing_replicas=(NL_GCP,),
        demand=(Demand(area="new-york", requests_per_second=120), Demand(area="frankfurt", requests_per_second=80)),
        min_regions=2,
    )
    answer = place(request)
    assert answer.placement.regions == (NL_AZURE, NL_GCP)
    assert answer.runner_up is None


def test_a_high_carbon_price_moves_the_model_to_a_cleaner_grid() -> None:
    request = PlacementRequest(demand=(Demand(area="london", requests_per_second=100),), resources=REPLICA)
    cheap, clean = place(request).placement, place(replace(request, carbon_price_usd_per_tonne=1e5)).placement
    assert clean.terms.carbon_g < cheap.terms.carbon_g
    assert clean.terms.cost_usd >= cheap.terms.cost_usd


def test_a_price_on_waiting_brings_the_model_nearer() -> None:
    request = PlacementRequest(demand=(Demand(area="sydney", requests_per_second=100),), resources=REPLICA)
    far = place(request).placement
    near = place(replace(request, latency_price_usd_per_request_second=1e-3)).placement
    assert near.groups[0].mean_ms < far.groups[0].mean_ms


def test_a_large_artifact_keeps_the_model_where_its_replica_is() -> None:
    base = PlacementRequest(
        demand=(Demand(area="london", requests_per_second=40),),
        resources=REPLICA,
        candidate_regions=(NL_AZURE, NL_GCP),
        existing_replicas=(NL_AZURE,),
        artifact_bytes=10**13,
        amortization_hours=24,
    )
    assert place(base).placement.regions == (NL_AZURE,)
    moved = place(replace(base, artifact_bytes=10**6)).placement
    assert moved.regions == (NL_GCP,)
    assert moved.choices[0].replicate_from == NL_AZURE


def test_an_accelerator_is_rented_only_where_it_is_asked_for() -> None:
    demand = (Demand(area="new-york", requests_per_second=30),)
    needs = Resources(vcpus=2, memory_gib=8, requests_per_second_per_replica=20, accelerator="T4")
    found = place(PlacementRequest(demand=demand, resources=needs)).placement
    assert {each.accelerator for choice in found.choices for each in choice.instances} == {"T4"}
    assert sum(each.count for choice in found.choices for each in choice.instances) == 2
    plain = place(PlacementRequest(demand=demand, resources=replace(needs, accelerator=None))).placement
    assert {each.accelerator for choice in plain.choices for each in choice.instances} == {None}


def test_all_instances_have_the_architecture_that_the_bundle_was_built_for() -> None:
    for architecture in ("x86_64", "arm64"):
        request = replace(TWO_CONTINENTS, resources=replace(REPLICA, architecture=architecture))
        for choice in place(request).placement.choices:
            for instance in choice.instances:
                (price,) = CATALOG.prices(choice.region, instance.sku)
                assert price.architecture == architecture


def test_a_budget_trades_carbon_for_dollars() -> None:
    cheap = PlacementRequest(demand=(Demand(area="london", requests_per_second=100),), resources=REPLICA)
    green = replace(cheap, carbon_price_usd_per_tonne=1e5)
    least, free = place(cheap).placement.terms, place(green).placement.terms
    budget = (least.cost_usd + free.cost_usd) / 2
    held = place(replace(green, budget_usd_per_hour=budget))
    assert least.cost_usd <= held.placement.terms.cost_usd <= budget + 1e-6 < free.cost_usd
    assert held.placement.terms.carbon_g > free.carbon_g
    assert "budget_usd_per_hour" in {bound.limit for bound in held.bounds}


# --- infeasible ----------------------------------------------------------------------------------------------------


def test_an_impossible_latency_is_named_with_what_the_nearest_region_gives() -> None:
    request = replace(TWO_CONTINENTS, demand=(Demand(area="sydney", requests_per_second=10, latency_limit_ms=30),))
    with pytest.raises(PlacementInfeasible) as refused:
        place(request)
    assert refused.value.attributes["relax"] == ["latency_limit_ms"]
    assert "sydney" in (refused.value.hint or "")
    rejected = refused.value.attributes["rejected"]
    assert isinstance(rejected, dict)
    assert str(rejected[US]).startswith("latency: even sydney")


def test_a_budget_below_the_cheapest_answer_is_named_with_the_cheapest() -> None:
    with pytest.raises(PlacementInfeasible, match="The cheapest costs") as refused:
        place(replace(TWO_CONTINENTS, budget_usd_per_hour=0.01))
    assert refused.value.attributes["relax"] == ["budget_usd_per_hour"]


def test_too_few_regions_inside_the_residency_class_are_named_together() -> None:
    request = replace(TWO_CONTINENTS, residency=Residency("eu"), existing_replicas=(), min_regions=3)
    request = replace(request, demand=(Demand(area="london", requests_per_second=10),))
    with pytest.raises(PlacementInfeasible) as refused:
        place(request)
    assert refused.value.attributes["relax"] == ["min_regions"]


def test_a_replica_that_fits_no_instance_is_named_as_such() -> None:
    with pytest.raises(PlacementInfeasible) as refused:
        place(replace(TWO_CONTINENTS, resources=replace(REPLICA, memory_gib=1e6)))
    assert refused.value.attributes["relax"] == ["resources"]


@solved
@given(request=requests(), budget=st.sampled_from([None, 0.001, 1e6]), clouds=st.integers(1, 3))
def test_relaxing_what_the_refusal_names_makes_it_feasible(
    request: PlacementRequest, budget: float | None, clouds: int
) -> None:
    request = replace(request, budget_usd_per_hour=budget, min_clouds=clouds)
    try:
        place(request)
    except PlacementInfeasible as refused:
        names = refused.attributes["relax"]
        assert isinstance(names, list)
        free: dict[str, PlacementRequest] = {
            "budget_usd_per_hour": replace(request, budget_usd_per_hour=None),
            "min_regions": replace(request, min_regions=1),
            "min_clouds": replace(request, min_clouds=1),
            "candidate_regions": replace(request, candidate_regions=None),
            "latency_limit_ms": replace(
                request, demand=tuple(replace(group, latency_limit_ms=None) for group in request.demand)
            ),
        }
        relaxed = request
        for name in names:
            field = "demand" if name == "latency_limit_ms" else str(name)
            relaxed = replace(relaxed, **{field: getattr(free[str(name)], field)})
        if "candidate_regions" not in names:
            assert place(relaxed).placement.regions
        # The set is smallest: when it has several, none of them alone is enough.
        if len(names) > 1:
            assert all(answer_or_none(free[str(name)]) is None for name in names if name != "candidate_regions")
