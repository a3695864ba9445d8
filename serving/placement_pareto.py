"""The Pareto front: placements of which none is better than another in cost, latency and carbon at once.

The ends are exact: the cheapest, the quickest and the cleanest placement. Between them stand the best placements at
several prices of carbon and of waiting, on the scale on which the ends trade one for the other, so each is best for
somebody. Placements that are best at no price are not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fairlead.catalog import Catalog
from fairlead.core.ids import RegionId
from fairlead.serving.placement_answer import Placement, price_solution
from fairlead.serving.placement_model import Solution, aim_of, solve
from fairlead.serving.placement_options import GRAMS_PER_TONNE, Problem, build_problem
from fairlead.serving.placement_order import solve_as_asked
from fairlead.serving.placement_request import PlacementRequest

_PRICES = (0.0, 0.3, 1.0, 4.0)
_SAME = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One placement of the front: dollars and grams an hour, and the mean latency over all requests.

    `carbon_price_usd_per_tonne` and `latency_price_usd_per_request_second` are prices at which it is the best one.
    """

    regions: tuple[RegionId, ...]
    cost_usd: float
    mean_ms: float
    worst_p95_ms: float
    carbon_g: float
    carbon_price_usd_per_tonne: float
    latency_price_usd_per_request_second: float


def pareto_front(request: PlacementRequest, catalog: Catalog) -> tuple[FrontPoint, ...]:
    """The front of a request, cheapest first; the request's own prices and order of aims do not matter to it."""
    free = replace(
        request,
        order=(),
        switching=None,
        carbon_price_usd_per_tonne=0.0,
        latency_price_usd_per_request_second=0.0,
    )
    problem = build_problem(free, catalog)
    ends = [
        solve_as_asked(replace(problem, request=replace(free, order=(aim,), order_slack=0.0)))
        for aim in ("cost", "latency", "carbon")
    ]
    cheapest, quickest, cleanest = ends
    if cheapest is None or quickest is None or cleanest is None:
        return ()
    per_gram = _rate(cleanest.usd - cheapest.usd, cheapest.grams - cleanest.grams)
    per_second = _rate(quickest.usd - cheapest.usd, cheapest.request_seconds - quickest.request_seconds)
    found = [_point(problem, each, 0.0, 0.0) for each in (cheapest, quickest, cleanest)]
    for carbon in _PRICES if per_gram else (0.0,):
        for latency in _PRICES if per_second else (0.0,):
            aim = replace(aim_of(free), grams=carbon * per_gram, request_seconds=latency * per_second)
            solution = solve(problem, aim) if carbon or latency else None
            if solution is not None:
                found.append(_point(problem, solution, aim.grams, aim.request_seconds))
    return tuple(sorted(_undominated(found), key=lambda point: (point.cost_usd, point.mean_ms, point.carbon_g)))


def mean_ms(placement: Placement) -> float:
    """The mean latency over all requests of a placement."""
    total = sum(group.requests_per_second for group in placement.groups)
    return sum(group.requests_per_second * group.mean_ms for group in placement.groups) / total


def _rate(dollars: float, amount: float) -> float:
    return dollars / amount if dollars > 0 and amount > 0 else 0.0


def _point(problem: Problem, solution: Solution, per_gram: float, per_second: float) -> FrontPoint:
    placement = price_solution(problem, solution)
    return FrontPoint(
        regions=placement.regions,
        cost_usd=placement.terms.cost_usd,
        mean_ms=round(mean_ms(placement), 2),
        worst_p95_ms=max(group.p95_ms for group in placement.groups),
        carbon_g=placement.terms.carbon_g,
        carbon_price_usd_per_tonne=round(per_gram * GRAMS_PER_TONNE, 2),
        latency_price_usd_per_request_second=float(f"{per_second:.4g}"),
    )


def _undominated(points: Iterable[FrontPoint]) -> list[FrontPoint]:
    """Those that no other is as good as in everything; of two that are the same to 0.1 %, the first."""
    kept: list[FrontPoint] = []
    for point in points:
        if any(_is_as_good(other, point) for other in kept):
            continue
        kept = [other for other in kept if not _is_as_good(point, other)]
        kept.append(point)
    return kept


def _is_as_good(one: FrontPoint, other: FrontPoint) -> bool:
    return all(
        mine <= theirs * (1 + _SAME)
        for mine, theirs in (
            (one.cost_usd, other.cost_usd),
            (one.mean_ms, other.mean_ms),
            (one.carbon_g, other.carbon_g),
        )
    )
