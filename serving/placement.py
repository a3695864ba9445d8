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
    SwitchingAnswer,
    Terms,
    figures_of,
    price_solution,
)
from fairlead.serving.placement_availability import AVAILABILITY_METHOD
from fairlead.serving.placement_model import Solution
from fairlead.serving.placement_options import UTILIZATION, Problem, Rejection, build_problem
from fairlead.serving.placement_order import solve_as_asked
from fairlead.serving.placement_reading import request_from_json, validate
from fairlead.serving.placement_relaxation import binding_limits, refuse
from fairlead.serving.placement_request import Demand, PlacementRequest, Resources
from fairlead.serving.placement_switching import Decision, decide

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
    "answer_of_fleet",
    "place",
    "request_from_json",
]

_TIE_USD_PER_HOUR = 1e-4
_METHODS = {
    "compute_power": f"{COMPUTE_METHOD}, u = {UTILIZATION:g}; gCO2e = kW x PUE x grid of the region",
    "network_energy": NETWORK_METHOD,
    "latency": "network round trip, plus processing_ms where given; from an area: measured from its nearest region "
    "where one is within 500 km",
    "prices": "list prices; egress at the first tier, per 10^9 bytes",
    "replication": "one copy of model and features to each region that lacks them, from the cheapest region that has "
    "one or by way of a region of the placement, spread over amortization_hours; features' changes hour by hour",
    "availability": AVAILABILITY_METHOD,
}


def place(request: PlacementRequest, catalog: Catalog | None = None, *, explain: bool = True) -> PlacementAnswer:
    """Choose regions, instances and shares of traffic at the least objective.

    Solves once for the answer (a small problem exactly, a large one to within 0.1 %), and to explain it once for the
    runner-up and once for each limit that may bind. Equal requests give equal answers.

    Raises:
        InvalidInput: if the request makes no sense; `pointer` names the member.
        ResidencyViolation: if an existing replica is where the residency class forbids it.
        PlacementInfeasible: naming a smallest set of limits to relax.
        MissingExtra: if HiGHS is not installed.
    """
    catalog = catalog or load_catalog()
    validate(request, catalog)
    problem = build_problem(request, catalog)
    decision = decide(problem)
    if decision is None:
        refuse(request, catalog)
    chosen = decision.chosen
    second = solve_as_asked(problem, other_than=frozenset(chosen.regions)) if explain else None
    if second is not None and not request.order and request.switching is None and second.objective < chosen.objective:
        # Within the gap, what was looked for as the second best may turn out the best.
        chosen, second = second, chosen
    placement = price_solution(problem, chosen)
    figures = list(figures_of(placement))
    return PlacementAnswer(
        placement=placement,
        relative_gap=_gap(chosen),
        is_explained=explain,
        switching=_switching(problem, decision),
        runner_up=None if second is None else _runner_up(problem, placement, second),
        bounds=binding_limits(request, catalog, placement) if explain else (),
        rejected=_rejected(problem, placement),
        sources=tuple(sorted({figure.source for figure in figures})),
        estimates=tuple(sorted({figure.source for figure in figures if figure.is_estimate})),
        methods=_methods(request),
    )


def answer_of_fleet(placement: Placement, relative_gap: float) -> PlacementAnswer:
    """The answer for one model of a fleet: its choice is explained by the fleet's quotas, so it has no runner-up."""
    figures = list(figures_of(placement))
    return PlacementAnswer(
        placement=placement,
        relative_gap=relative_gap,
        is_explained=False,
        switching=None,
        runner_up=None,
        bounds=(),
        rejected=(),
        sources=tuple(sorted({figure.source for figure in figures})),
        estimates=tuple(sorted({figure.source for figure in figures if figure.is_estimate})),
        methods=_METHODS,
    )


def _gap(solution: Solution) -> float:
    if solution.objective <= 0:
        return 0.0
    return round(max(0.0, 1 - solution.bound / solution.objective), 6)


def _switching(problem: Problem, decision: Decision) -> SwitchingAnswer | None:
    switching = problem.request.switching
    if switching is None:
        return None
    best = price_solution(problem, decision.best)
    stay = None if decision.stay is None else price_solution(problem, decision.stay)
    moving = best.terms.switching_usd * switching.horizon_hours
    gain = None if stay is None else round(stay.terms.objective_usd - best.terms.objective_usd, 6)
    is_moving = decision.chosen is not decision.stay
    if stay is None:
        why = "What runs now cannot satisfy the request any more."
    elif not is_moving and decision.best is decision.stay:
        why = "No other set of regions is better once the move is paid for."
    else:
        word = "Moving gains" if is_moving else "Moving would gain"
        least = switching.least_gain_usd_per_hour
        why = (
            f"{word} {gain:.6f} USD/h after its cost of {moving:.2f} USD, spread over {switching.horizon_hours:g} h; "
            f"at least {least:g} USD/h is asked for."
        )
    return SwitchingAnswer(
        is_moving=is_moving,
        stay_usd_per_hour=None if stay is None else stay.terms.objective_usd,
        move_usd_per_hour=best.terms.objective_usd,
        gain_usd_per_hour=gain,
        moving_usd=round(moving, 6),
        horizon_hours=switching.horizon_hours,
        why=why,
    )


def _methods(request: PlacementRequest) -> dict[str, str]:
    if request.spot is None:
        return _METHODS
    spot = request.spot
    return _METHODS | {
        "spot": f"assumed: an instance is taken away {spot.interruptions_per_hour:g} times an hour and missing for "
        f"{spot.recovery_minutes:g} min, so {100 * spot.present:.4g} % of its room counts; spot list prices"
    }


def _runner_up(problem: Problem, chosen: Placement, second: Solution) -> RunnerUp:
    placement = price_solution(problem, second)
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
        ("switching", difference.switching_usd),
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
