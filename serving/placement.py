"""Where to run a model: one explicit optimisation, solved exactly, and explained.

    answer = place(request)

The engine reads the catalog and nothing else; it moves and starts nothing. `docs/explanation/placement.md` writes the
programme out with its units and the sources of its figures.
"""

from __future__ import annotations

from fairlead.catalog import Catalog, load_catalog
from fairlead.catalog.power import COMPUTE_METHOD, NETWORK_METHOD
from fairlead.serving.placement_answer import (
    Bound,
    Choice,
    GroupAnswer,
    InstanceChoice,
    Placement,
    PlacementAnswer,
    RunnerUp,
    Terms,
    figures_of,
    price_solution,
)
from fairlead.serving.placement_model import solve
from fairlead.serving.placement_options import UTILIZATION, Problem, Rejection, build_problem
from fairlead.serving.placement_relaxation import binding_limits, refuse
from fairlead.serving.placement_request import Demand, PlacementRequest, Resources, request_from_json, validate

__all__ = [
    "Bound",
    "Choice",
    "Demand",
    "GroupAnswer",
    "InstanceChoice",
    "Placement",
    "PlacementAnswer",
    "PlacementRequest",
    "Rejection",
    "Resources",
    "RunnerUp",
    "Terms",
    "place",
    "request_from_json",
]

_TIE_USD_PER_HOUR = 1e-4
_METHODS = {
    "compute_power": f"{COMPUTE_METHOD}, u = {UTILIZATION:g}; gCO2e = kW x PUE x grid of the region",
    "network_energy": NETWORK_METHOD,
    "latency": "network round trip only; from an area: measured from its nearest region where one is within 500 km",
    "prices": "on-demand list prices; egress at the first tier, per 10^9 bytes",
    "replication": "one copy from the cheapest region that holds the artifact, spread over amortization_hours",
}


def place(request: PlacementRequest, catalog: Catalog | None = None) -> PlacementAnswer:
    """Choose regions, instances and shares of traffic at the least objective, to one part in a million.

    Solves once for the answer, once for the runner-up and once for each limit that may bind it; a fraction of a second
    for a handful of candidate regions, seconds for the whole catalog. Equal requests give equal answers.

    Raises:
        InvalidInput: if the request makes no sense; `pointer` names the member.
        ResidencyViolation: if an existing replica is where the residency class forbids it.
        PlacementInfeasible: naming a smallest set of limits to relax.
        MissingExtra: if HiGHS is not installed.
    """
    catalog = catalog or load_catalog()
    validate(request, catalog)
    problem = build_problem(request, catalog)
    solution = solve(problem)
    if solution is None:
        refuse(request, catalog)
    placement = price_solution(problem, solution)
    figures = list(figures_of(placement))
    return PlacementAnswer(
        placement=placement,
        runner_up=_runner_up(problem, placement),
        bounds=binding_limits(request, catalog, placement),
        rejected=_rejected(problem, placement),
        sources=tuple(sorted({figure.source for figure in figures})),
        estimates=tuple(sorted({figure.source for figure in figures if figure.is_estimate})),
        methods=_METHODS,
    )


def _runner_up(problem: Problem, chosen: Placement) -> RunnerUp | None:
    solution = solve(problem, excluded=frozenset(chosen.regions))
    if solution is None:
        return None
    placement = price_solution(problem, solution)
    difference = placement.terms.minus(chosen.terms)
    return RunnerUp(placement=placement, difference=difference, why=_why(difference))


def _why(difference: Terms) -> str:
    if abs(difference.objective_usd) < _TIE_USD_PER_HOUR:
        return "It costs the same to within 0.0001 USD/h; the smaller region ids were taken."
    terms = (
        ("compute", difference.compute_usd),
        ("serving egress", difference.serving_egress_usd),
        ("replication", difference.replication_usd),
        ("carbon", difference.carbon_usd),
        ("latency", difference.latency_usd),
    )
    parts = [f"{value:+.6f} {name}" for name, value in terms if value]
    return f"It costs {difference.objective_usd:.6f} USD/h more: {', '.join(parts)}."


def _rejected(problem: Problem, chosen: Placement) -> tuple[Rejection, ...]:
    left = (
        Rejection(region=option.region.id, rule="not-chosen", detail="permitted, and the objective is lower without it")
        for option in problem.regions
        if option.region.id not in chosen.regions
    )
    return tuple(sorted((*problem.rejected, *left), key=lambda each: each.region))
