"""How far the world may differ from the figures before another choice would be better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fairlead.catalog import Catalog
from fairlead.core.ids import RegionId
from fairlead.serving.placement_changes import scale_demand
from fairlead.serving.placement_model import RELATIVE_GAP
from fairlead.serving.placement_options import Problem, RegionOption, build_problem
from fairlead.serving.placement_order import solve_as_asked
from fairlead.serving.placement_request import PlacementRequest

_UP = (1.1, 1.25, 1.5, 2.0)
_DOWN = (0.9, 0.75, 0.5)
_CARBON_PRICES = (25.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
_HALVINGS = 3
_TIE_USD_PER_HOUR = 1e-4

Scaled = Callable[[float], Problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Where the choice changes: at `factor` another set of regions is better, and at the last one tried before not."""

    factor: float
    regions: tuple[RegionId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """What one assumption does: cost at 0.9 and 1.1 of it (None: infeasible), and where the choice flips.

    `factor` multiplies the assumption, but for `carbon_price`, where it is the price in USD a tonne. No flip: none
    between half and twice the assumption (up to 1000 USD a tonne).
    """

    of: str
    cost_usd_at_less: float | None
    cost_usd_at_more: float | None
    flips_below: Flip | None
    flips_above: Flip | None


def sensitivities(request: PlacementRequest, catalog: Catalog, chosen: tuple[RegionId, ...]) -> tuple[Sensitivity, ...]:
    """What demand, the chosen regions' rents, egress tariffs and the price of carbon do to the choice of regions.

    A flip counts where the chosen regions are worse than others by more than the solver's gap.
    """
    request = replace(request, switching=None)
    problem = build_problem(request, catalog)
    regions = frozenset(chosen)
    scaled: tuple[tuple[str, Scaled], ...] = (
        ("demand", lambda times: build_problem(scale_demand(request, times), catalog)),
        ("compute_price_of_chosen_regions", lambda times: _with(problem, lambda each: _dearer(each, regions, times))),
        ("egress_tariffs", lambda times: _with(problem, lambda each: _more_egress(each, times))),
    )
    found = [
        Sensitivity(
            of=name,
            cost_usd_at_less=_cost(at(_DOWN[0])),
            cost_usd_at_more=_cost(at(_UP[0])),
            flips_below=_flip(at, _DOWN, regions),
            flips_above=_flip(at, _UP, regions),
        )
        for name, at in scaled
    ]
    if not request.order:
        found.append(_of_carbon_price(request, catalog, regions))
    return tuple(found)


def _of_carbon_price(request: PlacementRequest, catalog: Catalog, regions: frozenset[RegionId]) -> Sensitivity:
    def at(price: float) -> Problem:
        return build_problem(replace(request, carbon_price_usd_per_tonne=price), catalog)

    own = request.carbon_price_usd_per_tonne
    below = tuple(price for price in reversed(_CARBON_PRICES) if price < own)
    return Sensitivity(
        of="carbon_price",
        cost_usd_at_less=_cost(at(own * _DOWN[0])),
        cost_usd_at_more=_cost(at(own * _UP[0])),
        flips_below=_flip(at, (*below, 0.0), regions, start=own) if own else None,
        flips_above=_flip(at, tuple(price for price in _CARBON_PRICES if price > own), regions, start=own),
    )


def _flip(at: Scaled, factors: tuple[float, ...], chosen: frozenset[RegionId], *, start: float = 1.0) -> Flip | None:
    """The factor nearest to `start`, to an eighth of the step, at which other regions are better."""
    same = start
    for factor in factors:
        other = _better_regions(at(factor), chosen)
        if other is None:
            same = factor
            continue
        flipped, regions = factor, other
        for _ in range(_HALVINGS):
            middle = (same + flipped) / 2
            between = _better_regions(at(middle), chosen)
            if between is None:
                same = middle
            else:
                flipped, regions = middle, between
        return Flip(factor=float(f"{flipped:.4g}"), regions=regions)
    return None


def _better_regions(problem: Problem, chosen: frozenset[RegionId]) -> tuple[RegionId, ...] | None:
    best = solve_as_asked(problem)
    if best is None or frozenset(best.regions) == chosen:
        return None
    held = solve_as_asked(problem, exactly=chosen)
    is_worse = held is None or held.objective > best.objective * (1 + RELATIVE_GAP) + _TIE_USD_PER_HOUR
    return best.regions if is_worse else None


def _cost(problem: Problem) -> float | None:
    solution = solve_as_asked(problem)
    return None if solution is None else round(solution.usd, 6)


def _with(problem: Problem, change: Callable[[RegionOption], RegionOption]) -> Problem:
    return replace(problem, regions=tuple(change(option) for option in problem.regions))


def _dearer(option: RegionOption, regions: frozenset[RegionId], times: float) -> RegionOption:
    if option.region.id not in regions:
        return option
    instances = tuple(replace(each, usd_per_hour=each.usd_per_hour * times) for each in option.instances)
    return replace(option, instances=instances)


def _more_egress(option: RegionOption, times: float) -> RegionOption:
    return replace(option, egress_usd_per_request=option.egress_usd_per_request * times)
