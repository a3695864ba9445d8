from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.catalog import UNRESTRICTED, Region, Residency, load_catalog, permits
from fairlead.core.errors import DistributionInfeasible, ReplicaUnavailable, ResidencyViolation
from fairlead.sync.distribution import Distribution, DistributionRequest, plan_distribution
from fairlead.sync.hops import HopPrices, Missing, Stop

CATALOG = load_catalog()
PRICES = HopPrices(CATALOG)
REGIONS = CATALOG.regions()
GB = 10**9


def stop(region: Region | str) -> Stop:
    found = CATALOG.region(region) if isinstance(region, str) else region
    return Stop(id=found.id, name=found.id, region=found.id, jurisdiction=found.jurisdiction)


def make_request(
    sources: Sequence[str],
    destinations: Sequence[str],
    relays: Sequence[str] = (),
    *,
    sizes: Mapping[str, int] | int = 10 * GB,
    residency: str = UNRESTRICTED,
    deadline: float | None = None,
) -> DistributionRequest:
    def missing(at: Stop) -> Missing:
        size = sizes if isinstance(sizes, int) else sizes[at.id]
        return Missing(bytes=size, packs=size // (32 * 2**20) + 1)

    return DistributionRequest(
        residency=Residency(residency),
        sources=[stop(each) for each in sources],
        destinations=[stop(each) for each in destinations],
        relays=[stop(each) for each in relays],
        missing=missing,
        deadline_seconds=deadline,
    )


@st.composite
def requests(draw: st.DrawFn, *, has_deadline: bool = False) -> DistributionRequest:
    count = draw(st.integers(min_value=2, max_value=6))
    regions = [region.id for region in draw(st.permutations(REGIONS))[:count]]
    sources = draw(st.integers(min_value=1, max_value=min(2, count - 1)))
    destinations = draw(st.integers(min_value=1, max_value=count - sources))
    sizes: dict[str, int] = {each: draw(st.sampled_from([0, 1, GB, 5 * GB, 14 * GB])) for each in regions}
    deadline = draw(st.floats(min_value=5, max_value=120)) if has_deadline else None
    return make_request(
        regions[:sources],
        regions[sources : sources + destinations],
        regions[sources + destinations :],
        sizes=sizes,
        deadline=deadline,
    )


def every_tree(request: DistributionRequest) -> Iterator[dict[str, str]]:
    """Every way to give each destination, and any of the relays, a place that feeds it."""
    sources = {each.id for each in request.sources}
    wanted = [each.id for each in request.destinations]
    others = [each.id for each in request.relays]
    stops = [*sources, *wanted, *others]
    choices = [[at for at in stops if at != node] for node in wanted]
    choices += [[None, *(at for at in stops if at != node)] for node in others]
    for parents in itertools.product(*choices):
        tree = {node: parent for node, parent in zip([*wanted, *others], parents, strict=True) if parent}
        if all(parent in sources or parent in tree for parent in tree.values()) and all(
            is_rooted(tree, node) for node in tree
        ):
            yield tree


def is_rooted(tree: Mapping[str, str], node: str) -> bool:
    for _ in range(len(tree) + 1):
        if node not in tree:
            return True
        node = tree[node]
    return False


def cost_and_seconds(request: DistributionRequest, tree: Mapping[str, str]) -> tuple[Decimal, float]:
    prices = {
        node: PRICES.price(stop(parent), stop(node), request.missing(stop(node))) for node, parent in tree.items()
    }

    def ends(node: str) -> float:
        return prices[node].seconds + ends(tree[node]) if node in tree else 0.0

    total = sum(price.picodollars for price in prices.values())
    return Decimal(total).scaleb(-12), max(ends(each.id) for each in request.destinations)


def brute_force(request: DistributionRequest) -> Decimal | None:
    found = [cost_and_seconds(request, tree) for tree in every_tree(request)]
    deadline = request.deadline_seconds
    return min((cost for cost, seconds in found if deadline is None or seconds <= deadline), default=None)


def check_explanation(request: DistributionRequest, plan: Distribution) -> None:
    """The hops are a tree to every destination, each permitted and priced, and add up to the total."""
    reached = {each.id: 0.0 for each in request.sources}
    for hop in plan.tree.hops:
        assert hop.destination.id not in reached
        assert hop.begins_seconds == reached[hop.source.id]
        reached[hop.destination.id] = hop.ends_seconds
        for end in (hop.source, hop.destination):
            assert permits(request.residency, end.jurisdiction)
        price = PRICES.price(hop.source, hop.destination, request.missing(hop.destination))
        assert hop.usd == Decimal(price.picodollars).scaleb(-12) == hop.egress_usd + hop.request_usd
    assert {each.id for each in request.destinations} <= set(reached)
    assert plan.tree.usd == sum((hop.usd for hop in plan.tree.hops), Decimal(0))
    assert plan.saved_usd == plan.direct.usd - plan.tree.usd
    feeds = {hop.source.id for hop in plan.tree.hops}
    assert all(hop.destination.id in feeds for hop in plan.tree.hops if hop.is_relay)


@given(requests())
def test_the_plan_is_the_cheapest_of_all_trees_and_never_dearer_than_direct_copies(
    request: DistributionRequest,
) -> None:
    plan = plan_distribution(request, PRICES)
    assert plan.is_optimal
    assert plan.tree.usd == brute_force(request)
    assert plan.tree.usd <= plan.direct.usd
    check_explanation(request, plan)


@given(requests(has_deadline=True))
def test_a_plan_with_a_deadline_is_the_cheapest_of_all_that_are_in_time(request: DistributionRequest) -> None:
    best = brute_force(request)
    if best is None:
        with pytest.raises(DistributionInfeasible):
            plan_distribution(request, PRICES)
        return
    plan = plan_distribution(request, PRICES)
    assert plan.is_optimal
    assert plan.tree.usd == best
    assert plan.tree.seconds <= (request.deadline_seconds or 0) + 1e-6
    check_explanation(request, plan)


@given(requests(), st.sampled_from(REGIONS))
def test_one_more_relay_never_costs_more(request: DistributionRequest, relay: Region) -> None:
    used = {each.id for each in (*request.sources, *request.destinations, *request.relays)}
    if relay.id in used:
        return
    sizes = {each: request.missing(stop(each)).bytes for each in used} | {relay.id: 5 * GB}
    missing = make_request([], [], sizes=sizes).missing
    wider = replace(request, relays=[*request.relays, stop(relay)], missing=missing)
    assert plan_distribution(wider, PRICES).tree.usd <= plan_distribution(request, PRICES).tree.usd


@given(st.permutations([region.id for region in REGIONS if region.jurisdiction == "EU"]), st.integers(0, 10**6))
def test_relaxing_residency_never_costs_more_and_a_strict_plan_stays_inside(inside: list[str], seed: int) -> None:
    outside = random.Random(seed).sample([region.id for region in REGIONS if region.jurisdiction != "EU"], 4)
    strict = make_request(inside[:1], inside[1:4], outside, residency="eu")
    plan = plan_distribution(strict, PRICES)
    check_explanation(strict, plan)
    relaxed = plan_distribution(replace(strict, residency=UNRESTRICTED), PRICES)
    assert relaxed.tree.usd <= plan.tree.usd
    said = [binding.usd_without for binding in plan.bindings if binding.rule == "residency"]
    assert said == ([relaxed.tree.usd] if relaxed.tree.usd < plan.tree.usd else [])


@pytest.mark.parametrize("count", [8, 20, 60])
def test_large_plans_are_proved_and_save_against_direct_copies(count: int) -> None:
    chosen = random.Random(count).sample([region.id for region in REGIONS], count + 1)
    relays = [region.id for region in REGIONS]
    request = make_request(chosen[:1], chosen[1:], relays)
    plan = plan_distribution(request, PRICES)
    assert plan.is_optimal
    assert plan.tree.usd < plan.direct.usd
    assert plan == plan_distribution(request, PRICES)
    check_explanation(request, plan)


def test_a_copy_that_crossed_to_another_cloud_feeds_its_neighbours() -> None:
    europe = ["gcp:europe-west1", "gcp:europe-west4", "gcp:europe-west3"]
    plan = plan_distribution(make_request(["aws:us-east-1"], europe), PRICES)
    crossings = [hop for hop in plan.tree.hops if hop.source.region == "aws:us-east-1"]
    assert len(crossings) == 1
    assert len(plan.direct.hops) == 3
    assert plan.saved_usd > 0


def test_a_relay_is_used_only_where_it_pays() -> None:
    dear, cheap = "aws:sa-east-1", "aws:us-east-1"
    asia = ["gcp:asia-east1", "gcp:asia-northeast1", "azure:japaneast"]
    without = plan_distribution(make_request([dear], asia), PRICES)
    plan = plan_distribution(make_request([dear], asia, [cheap, "aws:af-south-1"]), PRICES)
    relays = [hop.destination.region for hop in plan.tree.hops if hop.is_relay]
    assert relays == ([cheap] if plan.tree.usd < without.tree.usd else [])


def test_a_deadline_says_what_it_costs_and_an_impossible_one_what_would_be_possible() -> None:
    request = make_request(["aws:us-east-1"], ["gcp:europe-west1", "gcp:europe-west4", "gcp:asia-east1"])
    free = plan_distribution(request, PRICES)
    tight = plan_distribution(replace(request, deadline_seconds=free.direct.seconds), PRICES)
    assert tight.tree.seconds <= free.direct.seconds + 1e-6
    if tight.tree.usd > free.tree.usd:
        assert [(each.rule, each.usd_without) for each in tight.bindings] == [("deadline", free.tree.usd)]
    with pytest.raises(DistributionInfeasible, match="the quickest way takes"):
        plan_distribution(replace(request, deadline_seconds=0.001), PRICES)


def test_what_is_there_already_needs_no_hop_and_what_is_nowhere_has_no_plan() -> None:
    assert plan_distribution(make_request(["aws:us-east-1"], ["aws:us-east-1"]), PRICES).tree.hops == ()
    with pytest.raises(ReplicaUnavailable):
        plan_distribution(make_request([], ["aws:us-east-1"]), PRICES)
    with pytest.raises(ResidencyViolation):
        plan_distribution(make_request(["aws:eu-west-1"], ["aws:us-east-1"], residency="eu"), PRICES)


def test_a_limited_location_is_slower_and_not_dearer() -> None:
    here, there = stop("aws:us-east-1"), stop("gcp:europe-west1")
    missing = Missing(bytes=GB, packs=30)
    usual = PRICES.price(here, there, missing)
    limited = PRICES.price(here, replace(there, bytes_per_second=10**6), missing)
    assert limited.seconds > 1000 > usual.seconds
    assert limited.picodollars == usual.picodollars


def test_costs_too_large_for_picodollars_are_still_planned() -> None:
    request = make_request(["aws:us-east-1"], ["gcp:europe-west1", "azure:westeurope"], sizes=10**15)
    plan = plan_distribution(request, PRICES)
    assert plan.is_optimal
    assert plan.tree.usd <= plan.direct.usd
