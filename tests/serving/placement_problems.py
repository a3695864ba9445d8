"""Small placement problems for Hypothesis, and an independent way to solve them: try everything."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, product

from hypothesis import strategies as st

from fairlead.catalog import load_catalog
from fairlead.catalog.power import instance_power
from fairlead.core.ids import RegionId
from fairlead.serving.placement import Demand, PlacementRequest, Resources

CATALOG = load_catalog()
region_ids = st.sampled_from([region.id for region in CATALOG.regions()])
candidates = st.lists(region_ids, min_size=2, max_size=4, unique=True).map(tuple)


@st.composite
def requests(draw: st.DrawFn, *, limits: bool = True) -> PlacementRequest:
    """Small problems whose demand is a whole number of replicas, so that brute force can list every answer."""
    areas = draw(st.lists(st.sampled_from(["new-york", "london", "tokyo"]), min_size=1, max_size=2, unique=True))
    limit = st.sampled_from([None, None, 150.0, 250.0]) if limits else st.none()
    rate = draw(st.sampled_from([10.0, 100.0]))
    replica = Resources(
        vcpus=draw(st.sampled_from([0.5, 1.0, 2.0])),
        memory_gib=draw(st.sampled_from([1.0, 4.0])),
        requests_per_second_per_replica=rate,
        bytes_per_request=draw(st.sampled_from([0, 2000, 200_000])),
    )
    found = draw(candidates)
    return PlacementRequest(
        demand=tuple(
            Demand(area=area, requests_per_second=rate * draw(st.integers(1, 4)), latency_limit_ms=draw(limit))
            for area in areas
        ),
        resources=replica,
        candidate_regions=found,
        existing_replicas=found[:1],
        artifact_bytes=draw(st.sampled_from([0, 10**11])),
        min_regions=draw(st.integers(1, 2)),
        carbon_price_usd_per_tonne=draw(st.sampled_from([0.0, 100.0, 5000.0])),
        latency_price_usd_per_request_second=draw(st.sampled_from([0.0, 1e-5, 1e-3])),
    )


def brute_force(request: PlacementRequest) -> float | None:
    """The least objective, found by listing every split of the demand, in whole replicas, over every set of regions."""
    rate = request.resources.requests_per_second_per_replica
    regions = request.candidate_regions or ()
    splits = [
        [
            split
            for split in _splits(round(group.requests_per_second / rate), len(regions))
            if all(
                not units
                or group.latency_limit_ms is None
                or CATALOG.area_round_trip(group.area, region).value <= group.latency_limit_ms
                for region, units in zip(regions, split, strict=True)
            )
        ]
        for group in request.demand
    ]
    usable = {
        region
        for region in regions
        if any(
            group.latency_limit_ms is None
            or CATALOG.area_round_trip(group.area, region).value <= group.latency_limit_ms
            for group in request.demand
        )
    }
    most = sum(round(group.requests_per_second / rate) for group in request.demand)
    fleet = {region: [_cheapest_fleet(request, region, units) for units in range(most + 1)] for region in usable}
    best: float | None = None
    for chosen in product(*splits):
        load = {region: sum(split[index] for split in chosen) for index, region in enumerate(regions)}
        busy = {region for region, units in load.items() if units}
        traffic = sum(
            units * rate * 3600 * _per_request(request, region, group.area)
            for group, split in zip(request.demand, chosen, strict=True)
            for region, units in zip(regions, split, strict=True)
            if units
        )
        spare = sorted(usable - busy)
        for idle in chain.from_iterable(combinations(spare, size) for size in range(len(spare) + 1)):
            if len(busy) + len(idle) < request.min_regions:
                continue
            total = traffic + sum(fleet[region][load[region]] for region in (*busy, *idle))
            total += _copies(request, (*busy, *idle))
            best = total if best is None else min(best, total)
    return best


def _splits(units: int, regions: int) -> Iterator[tuple[int, ...]]:
    if regions == 1:
        yield (units,)
        return
    for first in range(units + 1):
        for rest in _splits(units - first, regions - 1):
            yield (first, *rest)


def _cheapest_fleet(request: PlacementRequest, region: RegionId, units: int) -> float:
    """The instances of one used region; at least one, even without traffic."""
    needs, place_ = request.resources, CATALOG.region(region)
    offers: list[tuple[int, float]] = []
    for price in CATALOG.prices(region):
        power = instance_power(price, utilization=0.5)
        holds = int(min(price.vcpus / needs.vcpus, price.memory_gib / needs.memory_gib))
        if price.accelerator is None and price.architecture == needs.architecture and holds and power:
            grams = power.value / 1000 * place_.pue.value * place_.carbon.value
            offers.append((holds, price.on_demand.value + grams * request.carbon_price_usd_per_tonne / 1e6))
    least = [min(cost for _, cost in offers)]
    for need in range(1, units + 1):
        least.append(min(cost + (least[need - holds] if need > holds else 0.0) for holds, cost in offers))
    return least[units]


def _copies(request: PlacementRequest, regions: tuple[RegionId, ...]) -> float:
    """The cheapest copies to these regions: each straight from the holder, or from a region that was fed so."""
    (holder,) = request.existing_replicas

    def copy(source: RegionId, destination: RegionId) -> float:
        grams = CATALOG.transfer_carbon(source, destination, request.artifact_bytes).value
        usd = CATALOG.transfer_cost(source, destination, request.artifact_bytes).value
        return (usd + grams * request.carbon_price_usd_per_tonne / 1e6) / request.amortization_hours

    lacking = [region for region in regions if region != holder]
    hub_sets = chain.from_iterable(combinations(lacking, size) for size in range(len(lacking) + 1))
    return min(
        sum(
            min(copy(source, region) for source in ((holder,) if region in hubs else (holder, *hubs)))
            for region in lacking
        )
        for hubs in hub_sets
    )


def _per_request(request: PlacementRequest, region: RegionId, area: str) -> float:
    size = request.resources.bytes_per_request
    dollars = size / 1e9 * CATALOG.internet_egress(region).value
    dollars += CATALOG.internet_transfer_carbon(region, size).value * request.carbon_price_usd_per_tonne / 1e6
    waited = CATALOG.area_round_trip(area, region).value / 1000
    return dollars + waited * request.latency_price_usd_per_request_second
