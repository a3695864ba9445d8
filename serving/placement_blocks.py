"""One part of a fleet that is placed as a whole: a single model, or models that share accelerators.

A block answers one question, what it would do if instances had surcharges; the fleet asks it again and again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fairlead.catalog import Catalog
from fairlead.serving.placement_answer import Placement, price_solution
from fairlead.serving.placement_model import aim_of, solve
from fairlead.serving.placement_options import Problem, RentKey, build_problem, use_of
from fairlead.serving.placement_request import PlacementRequest, Quota

FLEET_GAP = 2e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One way to place a block: its own objective in USD/h, what it takes of each quota, and each model's placement.

    `bound` is what no placement of the block is below at the prices that it was asked for.
    """

    objective: float
    bound: float
    uses: tuple[float, ...]
    placements: Mapping[str, Placement]


class Block(Protocol):
    """A part of a fleet; `may_use` says which of the quotas (by index) it can take anything of."""

    name: str
    may_use: frozenset[int]

    def plan(self, quotas: Sequence[Quota], prices: Sequence[float], *, within: Sequence[float] | None) -> Plan | None:
        """The best plan when a unit of each quota costs its price, or None where there is none within those limits."""
        ...


class ModelBlock:
    """A model by itself."""

    def __init__(self, name: str, request: PlacementRequest, catalog: Catalog, quotas: Sequence[Quota]) -> None:
        self.name = name
        self._problem = build_problem(request, catalog)
        self.may_use = quotas_touched(self._problem, quotas)

    def plan(self, quotas: Sequence[Quota], prices: Sequence[float], *, within: Sequence[float] | None) -> Plan | None:
        """See `Block`."""
        problem = self._problem
        if within is not None:
            mine = tuple(
                Quota(scope=quota.scope, of=quota.of, limit=max(0.0, within[index]))
                for index, quota in enumerate(quotas)
                if index in self.may_use
            )
            request = replace(problem.request, quotas=(*problem.request.quotas, *mine))
            problem = replace(problem, request=request)
        aim = replace(aim_of(problem.request), relative_gap=FLEET_GAP, surcharges=surcharges(problem, quotas, prices))
        solution = solve(problem, aim)
        if solution is None:
            return None
        options = {each.key: each for option in problem.regions for each in option.instances}
        uses = tuple(
            sum(count * use_of(quota, options[key]) for key, count in solution.instances.items())
            if index in self.may_use
            else 0.0
            for index, quota in enumerate(quotas)
        )
        placement = price_solution(problem, solution)
        return Plan(
            objective=placement.terms.objective_usd,
            bound=solution.bound,
            uses=uses,
            placements={self.name: placement},
        )


def quotas_touched(problem: Problem, quotas: Sequence[Quota]) -> frozenset[int]:
    """The quotas (by index) that some instance of the problem takes something of."""
    return frozenset(
        index
        for index, quota in enumerate(quotas)
        if any(use_of(quota, each) for option in problem.regions for each in option.instances)
    )


def surcharges(problem: Problem, quotas: Sequence[Quota], prices: Sequence[float]) -> dict[RentKey, float]:
    """What each instance costs on top, by what it takes of the priced quotas."""
    priced = [(quota, price) for quota, price in zip(quotas, prices, strict=True) if price > 0]
    return {
        each.key: sum(use_of(quota, each) * price for quota, price in priced)
        for option in problem.regions
        for each in option.instances
        if priced
    }
