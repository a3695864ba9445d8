"""The best placement for what a request wants: one weighed objective, or aims made small one after another."""

from __future__ import annotations

from dataclasses import replace

from fairlead.core.ids import RegionId
from fairlead.serving.placement_model import Aim, Solution, aim_of, solve
from fairlead.serving.placement_options import Problem
from fairlead.serving.placement_request import Aim as AimName
from fairlead.serving.placement_request import PlacementRequest

_ROOM = 1e-6


def stages_of(request: PlacementRequest) -> tuple[AimName, ...]:
    """The aims of a request in their order, with cost, carbon and latency at the end where it does not name them.

    Compliance is no stage: what a rule forbids is not in the programme.
    """
    stages: list[AimName] = [*request.order, "cost", "carbon", "latency"]
    return tuple(aim for aim in dict.fromkeys(stages) if aim != "compliance")


def solve_as_asked(
    problem: Problem,
    *,
    other_than: frozenset[RegionId] | None = None,
    exactly: frozenset[RegionId] | None = None,
) -> Solution | None:
    """The best placement by the request's prices or by its order of aims, or None where none is feasible.

    `other_than` asks for another set of regions than that, `exactly` for that set.
    """
    aim = replace(aim_of(problem.request), other_than=other_than, exactly=exactly)
    if not problem.request.order:
        return solve(problem, aim)
    solution: Solution | None = None
    for stage in stages_of(problem.request):
        solution = solve(problem, _weighing(aim, stage))
        if solution is None:
            return None
        aim = _holding(aim, stage, solution, problem.request.order_slack)
    return solution


def _weighing(aim: Aim, stage: AimName) -> Aim:
    return replace(
        aim, usd=float(stage == "cost"), grams=float(stage == "carbon"), request_seconds=float(stage == "latency")
    )


def _holding(aim: Aim, stage: AimName, solution: Solution, slack: float) -> Aim:
    """The aim with what this stage reached as a limit, and a hair of room for the arithmetic."""
    room = 1 + slack + _ROOM
    if stage == "cost":
        return replace(aim, most_usd=min(aim.most_usd, solution.usd * room))
    if stage == "carbon":
        return replace(aim, most_grams=min(aim.most_grams, solution.grams * room))
    return replace(aim, most_request_seconds=min(aim.most_request_seconds, solution.request_seconds * room))
