"""Limits, taken away one at a time: which of them bind an answer, and which smallest set leaves none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NoReturn

from fairlead.catalog import UNRESTRICTED, Catalog
from fairlead.core.errors import JsonValue, PlacementInfeasible
from fairlead.serving.placement_answer import Bound, Placement, price_solution
from fairlead.serving.placement_model import solve
from fairlead.serving.placement_options import Problem, build_problem
from fairlead.serving.placement_request import PlacementRequest

_LEAST_SAVING_USD_PER_HOUR = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit of a request: its name, what it says, and the request without it (a count: with one less)."""

    name: str
    says: Callable[[PlacementRequest], str]
    is_set: Callable[[PlacementRequest], bool]
    drop: Callable[[PlacementRequest], PlacementRequest]
    ease: Callable[[PlacementRequest], PlacementRequest] | None = None


def _without_latency(request: PlacementRequest) -> PlacementRequest:
    return replace(request, demand=tuple(replace(group, latency_limit_ms=None) for group in request.demand))


LIMITS = (
    # In the order in which they are most easily given up.
    Limit(
        name="budget_usd_per_hour",
        says=lambda request: f"at most {request.budget_usd_per_hour or 0:g} USD an hour",
        is_set=lambda request: request.budget_usd_per_hour is not None,
        drop=lambda request: replace(request, budget_usd_per_hour=None),
    ),
    Limit(
        name="latency_limit_ms",
        says=lambda _: "the latency limits",
        is_set=lambda request: any(group.latency_limit_ms is not None for group in request.demand),
        drop=_without_latency,
    ),
    Limit(
        name="min_regions",
        says=lambda request: f"at least {request.min_regions} regions",
        is_set=lambda request: request.min_regions > 1,
        drop=lambda request: replace(request, min_regions=1),
        ease=lambda request: replace(request, min_regions=request.min_regions - 1),
    ),
    Limit(
        name="min_clouds",
        says=lambda request: f"at least {request.min_clouds} clouds",
        is_set=lambda request: request.min_clouds > 1,
        drop=lambda request: replace(request, min_clouds=1),
        ease=lambda request: replace(request, min_clouds=request.min_clouds - 1),
    ),
    Limit(
        name="denied_regions",
        says=lambda request: f"the denied regions {', '.join(request.denied_regions)}",
        is_set=lambda request: bool(request.denied_regions),
        drop=lambda request: replace(request, denied_regions=()),
    ),
    Limit(
        name="allowed_regions",
        says=lambda request: f"the allowed regions {', '.join(request.allowed_regions or ())}",
        is_set=lambda request: request.allowed_regions is not None,
        drop=lambda request: replace(request, allowed_regions=None),
    ),
    Limit(
        name="candidate_regions",
        says=lambda _: "only regions that have a location",
        is_set=lambda request: request.candidate_regions is not None,
        drop=lambda request: replace(request, candidate_regions=None),
    ),
    Limit(
        name="residency",
        says=lambda request: f"residency class {request.residency!r}",
        is_set=lambda request: request.residency != UNRESTRICTED,
        drop=lambda request: replace(request, residency=UNRESTRICTED),
    ),
)


def binding_limits(request: PlacementRequest, catalog: Catalog, placement: Placement) -> tuple[Bound, ...]:
    """The limits whose absence would lower the objective by more than the tie tolerance, each with by how much.

    Which regions have a location is taken as a fact and not as a limit.
    """
    bounds: list[Bound] = []
    for limit in LIMITS:
        if not limit.is_set(request) or not _may_bind(limit, request, placement):
            continue
        problem = build_problem((limit.ease or limit.drop)(request), catalog)
        solution = solve(problem)
        if solution is None:
            continue
        freer = price_solution(problem, solution)
        saving = round(placement.terms.objective_usd - freer.terms.objective_usd, 6)
        if saving >= _LEAST_SAVING_USD_PER_HOUR:
            says = limit.says(request)
            detail = f"{'With one less than' if limit.ease else 'Without'} {says}: {', '.join(freer.regions)}"
            bounds.append(Bound(limit=limit.name, detail=detail, saves_usd_per_hour=saving, regions=freer.regions))
    return tuple(bounds)


def refuse(request: PlacementRequest, catalog: Catalog) -> NoReturn:
    """Say which smallest set of limits stands in the way, and how far each would have to give.

    Raises:
        PlacementInfeasible: always; `relax` names the limits, `rejected` the first reason of every region.
    """
    limits = [limit for limit in LIMITS if limit.is_set(request)]
    relax = next(
        (
            chosen
            for size in range(1, len(limits) + 1)
            for chosen in combinations(limits, size)
            if _is_feasible(_without(request, chosen), catalog)
        ),
        None,
    )
    rejected: dict[str, JsonValue] = {
        each.region: f"{each.rule}: {each.detail}" for each in build_problem(request, catalog).rejected
    }
    if relax is None:
        needs = request.resources
        board = f" and one {needs.accelerator}" if needs.accelerator else ""
        raise PlacementInfeasible(
            f"No priced instance anywhere serves this demand with replicas of {needs.vcpus:g} vCPU, "
            f"{needs.memory_gib:g} GiB on {needs.architecture}{board}.",
            hint="Ask for less per replica, or for another accelerator.",
            relax=["resources"],
            rejected=rejected,
        )
    names: list[JsonValue] = [limit.name for limit in relax]
    raise PlacementInfeasible(
        f"No placement satisfies every limit; in the way: {' and '.join(limit.says(request) for limit in relax)}.",
        hint=" ".join(_advice(limit, relax, request, catalog) for limit in relax),
        relax=names,
        rejected=rejected,
    )


def _may_bind(limit: Limit, request: PlacementRequest, placement: Placement) -> bool:
    """A cheap look that spares solving where the limit plainly has slack."""
    if limit.name == "min_regions":
        return len(placement.regions) == request.min_regions
    if limit.name == "min_clouds":
        return len({region.partition(":")[0] for region in placement.regions}) == request.min_clouds
    if limit.name == "budget_usd_per_hour":
        # A budget that the cheapest answer keeps binds only where something else than dollars is wanted.
        return request.carbon_price_usd_per_tonne > 0 or request.latency_price_usd_per_request_second > 0
    return limit.name != "candidate_regions"


def _without(request: PlacementRequest, limits: tuple[Limit, ...]) -> PlacementRequest:
    for limit in limits:
        request = limit.drop(request)
    return request


def _is_feasible(request: PlacementRequest, catalog: Catalog) -> bool:
    problem = build_problem(request, catalog)
    return _has_enough_regions(problem) and (
        request.budget_usd_per_hour is None or solve(_in_dollars_only(problem)) is not None
    )


def _has_enough_regions(problem: Problem) -> bool:
    """Whether there is a placement but for the budget: instances are not limited in number, so counting decides."""
    request = problem.request
    served = {group for option in problem.regions for group in option.round_trips}
    clouds = {option.region.cloud for option in problem.regions}
    return (
        len(served) == len(request.demand)
        and len(problem.regions) >= request.min_regions
        and len(clouds) >= request.min_clouds
    )


def _in_dollars_only(problem: Problem) -> Problem:
    request = replace(problem.request, carbon_price_usd_per_tonne=0.0, latency_price_usd_per_request_second=0.0)
    return replace(problem, request=request)


def _advice(limit: Limit, relax: tuple[Limit, ...], request: PlacementRequest, catalog: Catalog) -> str:
    """How far a limit would have to give, the other limits of the set being gone."""
    freed = _without(request, relax)
    if limit.name == "budget_usd_per_hour":
        problem = _in_dollars_only(build_problem(freed, catalog))
        solution = solve(problem)
        if solution is not None:
            return f"The cheapest costs {price_solution(problem, solution).terms.cost_usd:.6g} USD an hour."
    if limit.name == "latency_limit_ms":
        problem = build_problem(freed, catalog)
        tight: list[str] = []
        for index, group in enumerate(request.demand):
            away = [option.round_trips[index] for option in problem.regions if index in option.round_trips]
            nearest = min(away, key=lambda each: each.value)
            if group.latency_limit_ms is not None and nearest.value > group.latency_limit_ms:
                tight.append(f"{group.area} (limit {group.latency_limit_ms:g} ms) is {nearest} from the nearest")
        if tight:
            return "Raise latency_limit_ms: " + "; ".join(tight) + "."
    return f"Relax {limit.name}."
