"""What can be left out of a tree problem without missing its optimum, found before the search begins.

Two tests. *An arc is of no use* where a node that every tree has anyway, free of cost, reaches its end no dearer (and
no later, if time counts). *An optional node is of no use* where another node can stand in for it: reached no dearer
from everywhere, and reaching everything no dearer. Clouds price by continent and not by region, so few are left.

Costs are compared in their primary part (`cost // tie`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairlead.sync.arborescence import NO_ARC, ROOT, Costs, Seconds, is_arc
from fairlead.sync.arrivals import earliest

if TYPE_CHECKING:
    from numpy.typing import NDArray


def without_useless_arcs(cost: Costs, seconds: Seconds | None, terminals: Sequence[int], tie: int) -> Costs:
    """The costs without arcs that one from a free node replaces; `seconds` None where time does not count."""
    free = [node for node in terminals if cost[ROOT, node] == 0 and not is_arc(np.delete(cost[:, node], ROOT)).any()]
    if not free:
        return cost
    primary = cost // tie
    kept = cost.copy()
    soonest = np.zeros(len(cost)) if seconds is None else earliest(cost, seconds)[0]
    others = np.ones(len(cost), dtype=np.bool_)
    others[[ROOT, *free]] = False
    for node in free:
        is_replaced = (primary[node] <= primary) & is_arc(cost)
        if seconds is not None:
            # A free node is there from the start; whatever else feeds a node was reached before it does.
            is_replaced &= seconds[node] <= soonest[:, None] + seconds
        is_replaced[~others, :] = False
        kept[is_replaced] = NO_ARC
    return kept


def useful_nodes(
    cost: Costs, seconds: Seconds | None, optional: Sequence[int], required: Sequence[int], tie: int
) -> tuple[int, ...]:
    """The optional nodes that no other node can stand in for; of equals the first stays."""
    primary = np.where(is_arc(cost), cost // tie, NO_ARC)
    left = list(optional)
    for node in reversed(optional):
        rest = [each for each in left if each != node]
        if not is_arc(cost[node]).any() or any(
            _stands_in(primary, seconds, other, node, [ROOT, *required, *rest]) for other in (*rest, *required)
        ):
            left = rest
    return tuple(left)


def _stands_in(
    primary: NDArray[np.int64], seconds: Seconds | None, other: int, node: int, among: Sequence[int]
) -> bool:
    third = [each for each in among if each not in (other, node)]
    is_dearer_into = (primary[third, other] > primary[third, node]).any()
    if is_dearer_into or (primary[other, third] > primary[node, third]).any():
        return False
    if seconds is None:
        return True
    into, out = primary[third, node] < NO_ARC, primary[node, third] < NO_ARC
    is_later = (seconds[third, other] > seconds[third, node])[into].any()
    return not (is_later or (seconds[other, third] > seconds[node, third])[out].any())
