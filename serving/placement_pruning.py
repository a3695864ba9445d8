"""Making a problem smaller without changing what its least objective is.

Two reductions: a region that others beat in everything is left out, and requests that every region answers at the same
cost are one lot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from fairlead.core.ids import RegionId
from fairlead.serving.placement_options import Problem, RegionOption, use_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """Parcels (by index) that the same regions answer, at a cost that depends on the region alone."""

    parcels: tuple[int, ...]
    load_replicas: float
    requests_per_hour: float
    regions: tuple[int, ...]


def lots_of(problem: Problem, kept: Iterable[int], *, is_latency_wanted: bool) -> tuple[Lot, ...]:
    """The parcels as lots, over the kept regions; one lot a parcel where the round trip has a price or a cap."""
    among = frozenset(kept)
    grouped: dict[object, list[int]] = {}
    for index, parcel in enumerate(problem.parcels):
        key = index if is_latency_wanted else tuple(region for region in parcel.regions if region in among)
        grouped.setdefault(key, []).append(index)
    return tuple(
        Lot(
            parcels=tuple(indices),
            load_replicas=sum(problem.parcels[index].load_replicas for index in indices),
            requests_per_hour=sum(problem.parcels[index].requests_per_hour for index in indices),
            regions=tuple(region for region in problem.parcels[indices[0]].regions if region in among),
        )
        for indices in grouped.values()
    )


def undominated(
    problem: Problem,
    *,
    wants: tuple[bool, bool, bool],
    need: int,
    within_cloud: bool,
    rents: Mapping[tuple[int, int], float],
    no_rivals: frozenset[RegionId] = frozenset(),
    never: frozenset[RegionId] = frozenset(),
) -> tuple[int, ...]:
    """The regions (indices) that some best placement may need.

    `wants` says whether dollars, grams and round trips count. A region goes where at least `need` others, of the same
    cloud if `within_cloud`, are no worse in anything: as many as the placement must have regions, so that one of them
    is free to take its place, or it can be merged into one of them. `rents` is what the objective pays for an instance,
    by region and option. Regions of `no_rivals` beat nothing, those of `never` are always kept.
    """
    served = [set[int]() for _ in problem.regions]
    for index, parcel in enumerate(problem.parcels):
        for region in parcel.regions:
            served[region].add(index)

    def promise(region: int) -> tuple[int, float, float, int]:
        """What beats a region comes before it in this order, so one pass finds all that is beaten."""
        option = problem.regions[region]
        cheapest = min(rents[region, index] / each.replicas for index, each in enumerate(option.instances))
        return -len(served[region]), cheapest, option.egress_usd_per_request, region

    kept: list[int] = []
    for region in sorted(range(len(problem.regions)), key=promise):
        own = problem.regions[region].region
        rivals = (
            other
            for other in kept
            if problem.regions[other].region.id not in no_rivals
            and (not within_cloud or problem.regions[other].region.cloud == own.cloud)
            and served[region] <= served[other]
            and _is_no_worse(problem, other, region, wants, rents)
        )
        if own.id in never or sum(1 for _ in islice(rivals, need)) < need:
            kept.append(region)
    return tuple(sorted(kept))


def _is_no_worse(
    problem: Problem, one: int, other: int, wants: tuple[bool, bool, bool], rents: Mapping[tuple[int, int], float]
) -> bool:
    better, worse = problem.regions[one], problem.regions[other]
    dollars, grams, latency = wants
    if dollars and better.egress_usd_per_request > worse.egress_usd_per_request:
        return False
    if grams and better.egress_grams_per_request > worse.egress_grams_per_request:
        return False
    if not _copies_no_worse(problem, better, worse, wants):
        return False
    if latency and any(better.round_trips[group].value > away.value for group, away in worse.round_trips.items()):
        return False
    return all(
        any(
            mine.key.is_spot == theirs.key.is_spot
            and mine.replicas == theirs.replicas
            and (not dollars or mine.usd_per_hour <= theirs.usd_per_hour)
            and (not grams or mine.grams_per_hour <= theirs.grams_per_hour)
            and rents[one, here] <= rents[other, there]
            and all(use_of(quota, mine) <= use_of(quota, theirs) for quota in problem.request.quotas)
            for here, mine in enumerate(better.instances)
        )
        for there, theirs in enumerate(worse.instances)
    )


def _copies_no_worse(
    problem: Problem, better: RegionOption, worse: RegionOption, wants: tuple[bool, bool, bool]
) -> bool:
    dollars, grams, _ = wants
    cargos = {cargo for cargo, _ in problem.directs}
    for cargo in cargos:
        mine = problem.directs.get((cargo, better.region.id))
        theirs = problem.directs.get((cargo, worse.region.id))
        if mine is None:
            continue
        if theirs is None:
            return False
        if dollars and mine.usd_per_hour > theirs.usd_per_hour:
            return False
        if grams and mine.grams_per_hour > theirs.grams_per_hour:
            return False
    return True
