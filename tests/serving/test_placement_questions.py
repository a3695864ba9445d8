"""Beyond one placement: survival, spot, deadlines, orders, moves, what if, the front, flips and fleets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fairlead.core.errors import InvalidInput, PlacementInfeasible
from fairlead.core.ids import RegionId
from fairlead.serving.placement import Demand, PlacementRequest, Resources, place
from fairlead.serving.placement_changes import Change, apply_change, compare
from fairlead.serving.placement_fleets import FleetAnswer, FleetModel, FleetRequest, place_fleet
from fairlead.serving.placement_packing import full_patterns
from fairlead.serving.placement_pareto import pareto_front
from fairlead.serving.placement_request import Features, Quota, RunningInstances, Spot, Survivable, Switching
from fairlead.serving.placement_sensitivity import sensitivities
from tests.serving.placement_problems import CATALOG

US, WEST, NL_GCP, NL_AZURE = (
    RegionId(name) for name in ("aws:us-east-1", "aws:us-west-2", "gcp:europe-west4", "azure:westeurope")
)
REPLICA = Resources(vcpus=1, memory_gib=2, requests_per_second_per_replica=40, bytes_per_request=2000)
PLAIN = PlacementRequest(
    demand=(Demand(area="new-york", requests_per_second=120), Demand(area="frankfurt", requests_per_second=80)),
    resources=REPLICA,
    candidate_regions=(US, WEST, NL_GCP, NL_AZURE),
)
SMALL_MODEL = Resources(
    vcpus=0.5, memory_gib=2, requests_per_second_per_replica=40, accelerator="T4", accelerator_share=0.3
)
ON_T4 = PlacementRequest(demand=(Demand(area="frankfurt", requests_per_second=20),), resources=SMALL_MODEL)


@pytest.mark.parametrize("survive", ["region", "cloud"])
def test_what_is_left_after_a_loss_has_the_room_for_all_demand(survive: Survivable) -> None:
    request = replace(PLAIN, survive=survive)
    found = place(request, explain=False).placement
    total = sum(group.requests_per_second for group in request.demand)
    for lost in found.choices:
        left = [
            choice.capacity_requests_per_second
            for choice in found.choices
            if choice.region != lost.region
            and (survive == "region" or choice.region.partition(":")[0] != lost.region.partition(":")[0])
        ]
        assert sum(left) >= total
    assert found.availability.expected > place(PLAIN, explain=False).placement.availability.expected


def test_after_a_loss_a_latency_limit_still_holds() -> None:
    near = replace(PLAIN, demand=(Demand(area="frankfurt", requests_per_second=80, latency_limit_ms=40),))
    found = place(replace(near, survive="region"), explain=False).placement
    assert set(found.regions) == {NL_GCP, NL_AZURE}


def test_spot_is_cheaper_within_its_share_and_its_assumption_is_said() -> None:
    on_demand = place(PLAIN, explain=False).placement.terms.compute_usd
    answer = place(replace(PLAIN, spot=Spot(max_share=0.5)), explain=False)
    instances = [each for choice in answer.placement.choices for each in choice.instances]
    on_spot = sum(each.count * each.replicas for each in instances if each.is_spot)
    assert 0 < on_spot <= 0.5 * sum(each.count * each.replicas for each in instances)
    assert answer.placement.terms.compute_usd < on_demand
    assert "0.05 times an hour" in answer.methods["spot"]


def test_a_copy_that_comes_too_late_rules_a_region_out() -> None:
    request = replace(PLAIN, existing_replicas=(US,), artifact_bytes=10**13, deadline_hours=1e-3)
    answer = place(request, explain=False)
    assert answer.placement.regions == (US,)
    assert {each.rule for each in answer.rejected} >= {"deadline"}


def test_a_copy_that_crossed_the_ocean_feeds_its_neighbour() -> None:
    request = replace(PLAIN, candidate_regions=(US, NL_GCP, RegionId("gcp:europe-west1")), min_regions=3)
    request = replace(request, existing_replicas=(US,), artifact_bytes=10**12)
    choices = {choice.region: choice for choice in place(request, explain=False).placement.choices}
    assert {choices[region].replicate_from for region in choices} - {None} > {US}


def test_features_are_copied_and_fed_from_where_they_are() -> None:
    fed = replace(PLAIN, features=Features(bytes=10**9, bytes_per_hour=10**9, existing_replicas=(US,)), min_regions=2)
    copies = [copy for choice in place(fed, explain=False).placement.choices for copy in choice.copies]
    assert {copy.cargo for copy in copies} == {"features"}
    assert all(copy.usd == pytest.approx((1 / 720 + 1) * copy.tariff.value, abs=1e-6) for copy in copies)


def test_an_order_of_aims_puts_the_first_before_all_others() -> None:
    quick = place(replace(PLAIN, order=("compliance", "latency", "cost")), explain=False).placement
    cheap = place(replace(PLAIN, order=("cost", "latency")), explain=False).placement
    assert quick.groups[0].mean_ms <= cheap.groups[0].mean_ms
    assert cheap.terms.cost_usd <= quick.terms.cost_usd


def test_quotas_hold() -> None:
    free = place(PLAIN, explain=False).placement
    scope = free.regions[0]
    held = place(replace(PLAIN, quotas=(Quota(scope=scope, of="vcpus", limit=2),))).placement
    assert sum(each.count for choice in held.choices if choice.region == scope for each in choice.instances) <= 1
    assert held.terms.objective_usd >= free.terms.objective_usd


def test_it_moves_only_where_the_gain_beats_the_cost_of_moving() -> None:
    best = place(PLAIN, explain=False).placement
    other = next(region for region in (US, NL_AZURE, WEST) if region not in best.regions)
    runs = (RunningInstances(region=other, sku=CATALOG.prices(other)[0].sku, count=5),)
    stays = place(replace(PLAIN, switching=Switching(current=runs, start_region_usd=1e4)), explain=False)
    moves = place(replace(PLAIN, switching=Switching(current=runs, horizon_hours=1e5)), explain=False)
    assert stays.switching is not None
    assert moves.switching is not None
    assert (stays.switching.is_moving, stays.placement.regions) == (False, (other,))
    assert (moves.switching.is_moving, moves.placement.regions) == (True, best.regions)


def test_what_if_says_what_the_change_costs() -> None:
    before = place(PLAIN, explain=False).placement
    change = Change(without=(before.regions[0].partition(":")[0],), demand_times=2)
    after = place(apply_change(PLAIN, change, CATALOG), explain=False).placement
    compared = compare(change, before, after)
    assert before.regions[0] not in after.regions
    assert compared.difference.cost_usd == pytest.approx(after.terms.cost_usd - before.terms.cost_usd)
    assert compared.changes[1] == "2 times the demand"


def test_no_placement_of_the_front_is_beaten_by_another() -> None:
    front = pareto_front(PLAIN, CATALOG)
    assert len(front) > 1
    assert front[0].cost_usd == pytest.approx(place(PLAIN, explain=False).placement.terms.cost_usd, rel=1e-3)
    for one in front:
        assert not any(
            other is not one
            and other.cost_usd <= one.cost_usd
            and other.mean_ms <= one.mean_ms
            and other.carbon_g <= one.carbon_g
            for other in front
        )


def test_a_flip_is_where_another_choice_becomes_better() -> None:
    chosen = place(PLAIN, explain=False).placement.regions
    (rent,) = [each for each in sensitivities(PLAIN, CATALOG, chosen) if each.of.startswith("compute")]
    assert rent.flips_above is not None
    assert rent.flips_above.factor > 1
    assert rent.flips_above.regions != chosen


# --- fleets --------------------------------------------------------------------------------------------------------


def fleet(count: int, *quotas: Quota, pool: str | None = None) -> FleetAnswer:
    models = tuple(FleetModel(name=f"m{number}", request=ON_T4, pool=pool) for number in range(count))
    return place_fleet(FleetRequest(models=models, quotas=quotas), CATALOG)


def test_a_fleet_without_quotas_costs_what_its_models_cost_alone() -> None:
    alone = place(ON_T4, explain=False).placement.terms.cost_usd
    assert fleet(3).cost_usd == pytest.approx(3 * alone)


def test_a_fleet_keeps_the_quotas_that_it_shares_near_its_bound() -> None:
    where = place(ON_T4, explain=False).placement.regions[0]
    answer = fleet(4, Quota(scope=where, of="T4", limit=1))
    assert answer.quotas[0].used <= 1
    assert answer.bound_usd <= answer.objective_usd <= answer.bound_usd * 1.02
    assert sum(placement.regions == (where,) for placement in answer.placements.values()) <= 1


def test_quotas_that_no_mix_keeps_are_named() -> None:
    with pytest.raises(PlacementInfeasible, match="quota") as refused:
        fleet(2, Quota(scope="*", of="T4", limit=1))
    assert "T4 in *" in (refused.value.hint or "")


def test_small_models_share_an_accelerator_and_its_cost() -> None:
    apart, together = fleet(3), fleet(3, pool="small")
    assert together.cost_usd == pytest.approx(apart.cost_usd / 3, abs=1e-5)
    (choice,) = together.placements["m0"].choices
    assert choice.instances[0].shared_with == ("m1", "m2")
    assert choice.instances[0].part == pytest.approx(1 / 3, abs=1e-6)


def test_two_replicas_that_need_two_thirds_of_a_board_have_a_board_each() -> None:
    price = next(each for each in CATALOG.prices(US) if each.accelerator == "T4" and each.accelerator_count == 1)
    wide, narrow = (replace(SMALL_MODEL, accelerator_share=share) for share in (0.66, 0.33))
    assert set(full_patterns(price, (wide, narrow))) == {(1, 1), (0, 3)}


def test_models_that_share_instances_run_on_one_kind_of_accelerator() -> None:
    other = replace(ON_T4, resources=replace(SMALL_MODEL, accelerator="L4"))
    models = (FleetModel(name="a", request=ON_T4, pool="p"), FleetModel(name="b", request=other, pool="p"))
    with pytest.raises(InvalidInput, match="different accelerators"):
        place_fleet(FleetRequest(models=models), CATALOG)
