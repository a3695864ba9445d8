"""Whether to leave the regions that run now: only where that gains more than it costs."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.serving.placement_model import Solution
from fairlead.serving.placement_options import Problem
from fairlead.serving.placement_order import solve_as_asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The placement to have, the best one wherever that is, and the best one without a change of regions."""

    chosen: Solution
    best: Solution
    stay: Solution | None


def decide(problem: Problem) -> Decision | None:
    """Solve, and where the request says what runs now, weigh the best placement against staying.

    The objective has the cost of moving in it, spread over the horizon: a best placement that changes regions is worth
    its move already, and has to gain `least_gain_usd_per_hour` on top.
    """
    best = solve_as_asked(problem)
    switching = problem.request.switching
    if best is None or switching is None:
        return None if best is None else Decision(chosen=best, best=best, stay=None)
    current = frozenset(each.region for each in switching.current)
    if frozenset(best.regions) == current:
        return Decision(chosen=best, best=best, stay=best)
    stay = None
    if current <= {option.region.id for option in problem.regions}:
        stay = solve_as_asked(problem, exactly=current)
    if stay is None or stay.objective - best.objective >= max(switching.least_gain_usd_per_hour, 0.0):
        return Decision(chosen=best, best=best, stay=stay)
    return Decision(chosen=stay, best=best, stay=stay)
