"""Many models under quotas that they share: each is placed by itself at prices that make the quotas hold.

Dantzig-Wolfe decomposition. Every block (a model, or models that share accelerators) offers plans; a master programme
mixes the plans within the quotas, and its row prices tell the blocks what a unit of each quota is worth. Each round of
answers proves a bound: what all blocks would cost at those prices, less what the quotas are worth. The answer takes one
plan for each block, chosen by the master over whole plans; the bound says how far from the best it may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fairlead.core.errors import PlacementInfeasible
from fairlead.serving.placement_blocks import Block, Plan
from fairlead.serving.placement_programme import Programme, minimise
from fairlead.serving.placement_request import Quota

WANTED_GAP = 5e-3
_MOST_ROUNDS = 12
_SMOOTHING = 0.5
_MASTER_GAP = 1e-4
_LACK_USD = 100.0
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """One plan for each block, and how good that is: no fleet's objective is below `bound`."""

    plans: tuple[Plan, ...]
    objective: float
    bound: float
    quota_prices: tuple[float, ...]
    rounds: int


@dataclass(slots=True)
class _Asked:
    """What a block answered last, and at which prices."""

    prices: tuple[float, ...]
    plan: Plan


@dataclass(slots=True)
class _Search:
    blocks: Sequence[Block]
    quotas: Sequence[Quota]
    offers: list[list[Plan]]
    asked: list[_Asked]
    bound: float = 0.0
    prices: tuple[float, ...] = field(default=())
    best: tuple[Plan, ...] | None = None


def mix_plans(blocks: Sequence[Block], quotas: Sequence[Quota]) -> Mix:
    """The cheapest plans for all blocks within the quotas, to within half a per cent of the bound or a dozen rounds.

    Raises:
        PlacementInfeasible: naming the block that has no plan, or the quotas that no mix of plans keeps.
    """
    free = tuple(0.0 for _ in quotas)
    asked = [_Asked(prices=free, plan=_plan_of(block, quotas, free)) for block in blocks]
    search = _Search(
        blocks=blocks,
        quotas=quotas,
        offers=[[each.plan] for each in asked],
        asked=asked,
        bound=sum(each.plan.bound for each in asked),
        prices=free,
    )
    rounds = 0
    if not _fits([each.plan for each in asked], quotas):
        _squeeze(search)
        while rounds < _MOST_ROUNDS:
            rounds += 1
            has_new = _ask_again(search)
            search.best = _choose(search) or search.best
            if search.best is not None and _objective(search.best) - search.bound <= WANTED_GAP * search.bound:
                break
            if not has_new:
                break
    else:
        search.best = tuple(each.plan for each in asked)
    if search.best is None:
        raise PlacementInfeasible(
            "No mix of placements keeps every quota that the models share.",
            hint="Raise a quota: " + ", ".join(f"{quota.of} in {quota.scope}" for quota in _short(search)) + ".",
            relax=["quotas"],
        )
    return Mix(
        plans=search.best,
        objective=_objective(search.best),
        bound=min(search.bound, _objective(search.best)),
        quota_prices=search.prices,
        rounds=rounds,
    )


def _plan_of(block: Block, quotas: Sequence[Quota], prices: Sequence[float]) -> Plan:
    plan = block.plan(quotas, prices, within=None)
    if plan is None:
        raise PlacementInfeasible(
            f"No placement of {block.name} satisfies every limit of its own.",
            hint=f"Place {block.name} by itself to see what is in the way: fairlead place FILE",
            relax=[block.name],
        )
    return plan


def _ask_again(search: _Search) -> bool:
    """One round: prices from the master, plans at those prices, and the bound that they prove. False: nothing new."""
    row_prices = _master_prices(search)
    known = any(search.prices)
    search_prices = tuple(
        (1 - _SMOOTHING) * new + _SMOOTHING * old if known else new
        for new, old in zip(row_prices, search.prices, strict=True)
    )
    bound = -sum(price * quota.limit for price, quota in zip(search_prices, search.quotas, strict=True))
    has_new = False
    for number, block in enumerate(search.blocks):
        last = search.asked[number]
        if not _is_still_best(block, last, search_prices):
            plan = _plan_of(block, search.quotas, search_prices)
            search.asked[number] = last = _Asked(prices=search_prices, plan=plan)
            if all(plan.uses != each.uses or plan.objective < each.objective for each in search.offers[number]):
                search.offers[number].append(plan)
                has_new = True
        # A plan that is still best at new prices costs more by what those add to its own use.
        risen = sum(use * (new - old) for use, new, old in zip(last.plan.uses, search_prices, last.prices, strict=True))
        bound += last.plan.bound + risen
    is_better = bound > search.bound
    search.bound = max(search.bound, bound)
    search.prices = search_prices
    return has_new or is_better


def _is_still_best(block: Block, last: _Asked, prices: Sequence[float]) -> bool:
    """Whether the last plan stays the best: nothing that it uses got dearer, and nothing it might use got cheaper."""
    return all(
        prices[index] >= last.prices[index] - _TOLERANCE
        and (not last.plan.uses[index] or abs(prices[index] - last.prices[index]) <= _TOLERANCE)
        for index in block.may_use
    )


def _master(search: _Search, *, is_whole: bool) -> tuple[Programme, list[list[int]]]:
    programme = Programme()
    columns = [[programme.column(plan.objective, 1.0, is_whole=is_whole) for plan in plans] for plans in search.offers]
    for index, quota in enumerate(search.quotas):
        terms = [
            (column, plan.uses[index])
            for plans, row in zip(search.offers, columns, strict=True)
            for plan, column in zip(plans, row, strict=True)
        ]
        lack = [] if is_whole else [(programme.column(_LACK_USD), -1.0)]
        programme.row([*terms, *lack], upper=quota.limit + _TOLERANCE)
    for row in columns:
        programme.row([(column, 1.0) for column in row], lower=1.0, upper=1.0)
    return programme, columns


def _master_prices(search: _Search) -> tuple[float, ...]:
    programme, _ = _master(search, is_whole=False)
    values = minimise(programme, relative_gap=0.0)
    if values is None:
        return search.prices
    return tuple(max(0.0, -price) for price in values.row_prices[: len(search.quotas)])


def _choose(search: _Search) -> tuple[Plan, ...] | None:
    """The cheapest whole mix of the plans on offer."""
    programme, columns = _master(search, is_whole=True)
    values = minimise(programme, relative_gap=_MASTER_GAP)
    if values is None:
        return None
    return tuple(
        next(plan for plan, column in zip(plans, row, strict=True) if values.columns[column] > 0.5)
        for plans, row in zip(search.offers, columns, strict=True)
    )


def _squeeze(search: _Search) -> None:
    """Offer plans that fit together: those that take of what is short are asked one by one within what is left."""
    over = {index for index, quota in enumerate(search.quotas) if _used(search, index) > quota.limit + _TOLERANCE}
    left = [quota.limit for quota in search.quotas]
    waiting: list[int] = []
    for number, plans in enumerate(search.offers):
        if any(plans[0].uses[index] for index in over):
            waiting.append(number)
        else:
            left = [have - use for have, use in zip(left, plans[0].uses, strict=True)]
    # The largest first: what is small fits in anywhere.
    for number in sorted(waiting, key=lambda each: (-search.offers[each][0].objective, each)):
        first = search.offers[number][0]
        plan: Plan | None = first
        if any(use > have + _TOLERANCE for use, have in zip(first.uses, left, strict=True)):
            plan = search.blocks[number].plan(search.quotas, [0.0] * len(left), within=left)
            if plan is None:
                continue
            search.offers[number].append(plan)
        left = [have - use for have, use in zip(left, plan.uses, strict=True)]
    search.best = _choose(search)


def _used(search: _Search, index: int) -> float:
    return sum(plans[0].uses[index] for plans in search.offers)


def _fits(plans: Sequence[Plan], quotas: Sequence[Quota]) -> bool:
    return all(
        sum(plan.uses[index] for plan in plans) <= quota.limit + _TOLERANCE for index, quota in enumerate(quotas)
    )


def _objective(plans: Sequence[Plan]) -> float:
    return sum(plan.objective for plan in plans)


def _short(search: _Search) -> list[Quota]:
    return [quota for index, quota in enumerate(search.quotas) if _used(search, index) > quota.limit + _TOLERANCE]
