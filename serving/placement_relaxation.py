"""Limits, taken away one at a time: which of them bind an answer, and which smallest set leaves none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NoReturn

from fairlead.catalog import UNRESTRICTED, Catalog
from fairlead.core.errors import JsonValue, PlacementInfeasible
from fairlead.serving.placement_answer import Bound, Placement, price_solution
from fairlead.serving.placement_model import Aim, solve
from fairlead.serving.placement_options import Problem, build_problem, limit_of_round_trip
from fairlead.serving.placement_order import solve_as_asked, stages_of
from fairlead.serving.placement_request import PlacementRequest

_LEAST_SAVING_USD_PER_HOUR = 1e-4
_FEASIBLE = Aim(usd=0.0, relative_gap=1.0)


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


def _without_least_spot(request: PlacementRequest) -> PlacementRequest:
    return request if request.spot is None else replace(request, spot=replace(request.spot, min_share=0.0))


LIMITS = (
    # In the order in which they are most easily given up.
    Limit(
        name="budget_usd_per_hour",
        says=lambda request: f"at most {request.budget_usd_per_hour or 0:g} USD an hour",
        is_set=lambda request: request.budget_usd_per_hour is not None,
        drop=lambda request: replace(request, budget_usd_per_hour=None),
    ),
    Limit(
        name="carbon_budget_g_per_hour",
        says=lambda request: f"at most {request.carbon_budget_g_per_hour or 0:g} gCO2e an hour",
        is_set=lambda request: request.carbon_budget_g_per_hour is not None,
        drop=lambda request: replace(request, carbon_budget_g_per_hour=None),
    ),
    Limit(
        name="latency_limit_ms",
        says=lambda _: "the latency limits",
        is_set=lambda request: any(group.latency_limit_ms is not None for group in request.demand),
        drop=_without_latency,
    ),
    Limit(
        name="deadline_hours",
        says=lambda request: f"a copy within {request.deadline_hours or 0:g} h",
        is_set=lambda request: request.deadline_hours is not None,
        drop=lambda request: replace(request, deadline_hours=None),
    ),
    Limit(
        name="spot.min_share",
        says=lambda request: f"at least {100 * (request.spot.min_share if request.spot else 0):g} % on spot",
        is_set=lambda request: request.spot is not None and request.spot.min_share > 0,
        drop=_without_least_spot,
    ),
    Limit(
        name="min_replicas",
        says=lambda request: f"at least {request.min_replicas} replicas",
        is_set=lambda request: request.min_replicas > 1,
        drop=lambda request: replace(request, min_replicas=1),
        ease=lambda request: replace(request, min_replicas=request.min_replicas - 1),
    ),
    Limit(
        name="survive",
        says=lambda request: f"room for all demand after the loss of any one {request.survive}",
        is_set=lambda request: request.survive is not None,
        drop=lambda request: replace(request, survive=None),
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
        name="quotas",
        says=lambda request: (
            "the quotas " + ", ".join(f"{quota.limit:g} {quota.of} in {quota.scope}" for quota in request.quotas)
        ),
        is_set=lambda request: bool(request.quotas),
        drop=lambda request: replace(request, quotas=()),
    ),
    Limit(
        name="instance_types",
        says=lambda request: f"only instances of {', '.join(request.resources.instance_types or ())}",
        is_set=lambda request: request.resources.instance_types is not None,
        drop=lambda request: replace(request, resources=replace(request.resources, instance_types=None)),
    ),
    Limit(
        name="denied_regions",
        says=lambda request: f"the denied regions {', '.join(request.denied_regions)}",
        is_set=lambda request: bool(request.denied_regions),
        drop=lambda request: replace(request, denied_regions=()),
    ),
    Limit(
        name="denied_clouds",
        says=lambda request: f"the denied clouds {', '.join(request.denied_clouds)}",
        is_set=lambda request: bool(request.denied_clouds),
        drop=lambda request: replace(request, denied_clouds=()),
    ),
    Limit(
        name="allowed_regions",
        says=lambda request: f"the allowed regions {', '.join(request.allowed_regions or ())}",
        is_set=lambda request: request.allowed_regions is not None,
        drop=lambda request: replace(request, allowed_regions=None),
    ),
    Limit(
        name="allowed_clouds",
        says=lambda request: f"the allowed clouds {', '.join(request.allowed_clouds or ())}",
        is_set=lambda request: request.allowed_clouds is not None,
        drop=lambda request: replace(request, allowed_clouds=None),
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

    With an order of aims: those whose absence makes the first aim that changes smaller. Which regions have a location
    is taken as a fact and not as a limit.
    """
    bounds: list[Bound] = []
    for limit in LIMITS:
        if not limit.is_set(request) or not _may_bind(limit, request, placement):
            continue
        problem = build_problem((limit.ease or limit.drop)(request), catalog)
        solution = solve_as_asked(problem)
        if solution is None:
            continue
        freer = price_solution(problem, solution)
        better = _better(request, placement, freer)
        if better is not None:
            says = limit.says(request)
            detail = f"{'With one less than' if limit.ease else 'Without'} {says}: {', '.join(freer.regions)}{better}"
            saving = round(placement.terms.objective_usd - freer.terms.objective_usd, 6)
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
        board = f" and {needs.accelerator_share:g} {needs.accelerator}" if needs.accelerator else ""
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


def _better(request: PlacementRequest, placement: Placement, freer: Placement) -> str | None:
    """What is better without the limit, as the end of a sentence; None where nothing is by more than the tolerance."""
    if not request.order:
        saving = placement.terms.objective_usd - freer.terms.objective_usd
        return "" if saving >= _LEAST_SAVING_USD_PER_HOUR else None
    for stage in stages_of(request):
        held, free = _value(placement, stage), _value(freer, stage)
        if abs(held - free) > request.order_slack * held + _LEAST_SAVING_USD_PER_HOUR:
            return f", {stage} {held:.6g} -> {free:.6g}" if free < held else None
    return None


def _value(placement: Placement, stage: str) -> float:
    if stage == "cost":
        return placement.terms.cost_usd
    if stage == "carbon":
        return placement.terms.carbon_g
    total = sum(group.requests_per_second for group in placement.groups)
    return sum(group.requests_per_second * group.mean_ms for group in placement.groups) / total


def _may_bind(limit: Limit, request: PlacementRequest, placement: Placement) -> bool:
    """A cheap look that spares solving where the limit plainly has slack."""
    if limit.name == "min_regions":
        return len(placement.regions) == request.min_regions
    if limit.name == "min_clouds":
        return len({region.partition(":")[0] for region in placement.regions}) == request.min_clouds
    if limit.name == "min_replicas":
        # The replicas that demand asks for are there anyway.
        return sum(choice.replicas for choice in placement.choices) == request.min_replicas
    if limit.name == "budget_usd_per_hour":
        # A budget that the cheapest answer keeps binds only where something else than dollars is wanted.
        prices = request.carbon_price_usd_per_tonne > 0 or request.latency_price_usd_per_request_second > 0
        return prices or bool(request.order)
    return limit.name != "candidate_regions"


def _without(request: PlacementRequest, limits: tuple[Limit, ...]) -> PlacementRequest:
    for limit in limits:
        request = limit.drop(request)
    return request


def _is_feasible(request: PlacementRequest, catalog: Catalog) -> bool:
    problem = build_problem(request, catalog)
    if not _has_enough_regions(problem):
        return False
    limited = (request.survive, request.budget_usd_per_hour, request.carbon_budget_g_per_hour)
    has_least_spot = request.spot is not None and request.spot.min_share > 0
    if request.quotas or has_least_spot or any(each is not None for each in limited):
        aim = replace(
            _FEASIBLE,
            most_usd=_cap(request.budget_usd_per_hour),
            most_grams=_cap(request.carbon_budget_g_per_hour),
        )
        return solve(problem, aim) is not None
    return True


def _cap(limit: float | None) -> float:
    return float("inf") if limit is None else limit


def _has_enough_regions(problem: Problem) -> bool:
    """Whether there is a placement but for what instances add up to: as many may be rented as it takes."""
    request = problem.request
    clouds = {option.region.cloud for option in problem.regions}
    return (
        all(parcel.regions for parcel in problem.parcels)
        and len(problem.regions) >= request.min_regions
        and len(clouds) >= request.min_clouds
    )


def _advice(limit: Limit, relax: tuple[Limit, ...], request: PlacementRequest, catalog: Catalog) -> str:
    """How far a limit would have to give, the other limits of the set being gone."""
    freed = _without(request, relax)
    problem = build_problem(freed, catalog)
    if limit.name in ("budget_usd_per_hour", "carbon_budget_g_per_hour"):
        is_money = limit.name == "budget_usd_per_hour"
        solution = solve(problem, Aim(usd=float(is_money), grams=float(not is_money)))
        if solution is not None and is_money:
            return f"The cheapest costs {price_solution(problem, solution).terms.cost_usd:.6g} USD an hour."
        if solution is not None:
            return f"The cleanest emits {price_solution(problem, solution).terms.carbon_g:.6g} gCO2e an hour."
    if limit.name == "latency_limit_ms":
        tight: list[str] = []
        for index, group in enumerate(request.demand):
            away = [option.round_trips[index] for option in problem.regions if index in option.round_trips]
            nearest = min(away, key=lambda each: each.value)
            if group.latency_limit_ms is not None and nearest.value > limit_of_round_trip(request, group):
                tight.append(f"{group.area} (limit {group.latency_limit_ms:g} ms) is {nearest} from the nearest")
        if tight:
            return "Raise latency_limit_ms: " + "; ".join(tight) + "."
    return f"Relax {limit.name}."
