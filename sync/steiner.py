"""The cheapest tree from a root to the terminals, over other nodes where they pay: exactly, and in time if asked.

A directed Steiner tree. With the set of nodes given the cheapest tree over them is easy (`find_arborescence`), so the
search decides which optional nodes are in: best first, bounded from below by dual ascent, with whatever the reduced
costs show to be too dear left out. A deadline adds one more way to branch: a path that is too slow has an arc that the
answer does not have.

Costs are whole numbers with two parts, `primary * TIE + tie`. The optimum is exact in the primary part; among trees
that are equal in it the search keeps the first it finds with the smallest tie, and always the same one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fairlead.sync.arborescence import (
    NO_ARC,
    ROOT,
    Costs,
    DualBound,
    Seconds,
    distances,
    dual_ascent,
    find_arborescence,
    is_arc,
)
from fairlead.sync.arrivals import TOLERANCE_SECONDS, Parents, arrivals, earliest, hasten, path_to, prune
from fairlead.sync.deadline_model import Programme, solve_programme
from fairlead.sync.reductions import useful_nodes, without_useless_arcs

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIE = 4096
"""The ties of all arcs of one tree together stay below this."""

EFFORT = 3000
"""How many nodes of parts of the problem are looked at before the best tree so far is given, with the bound that is
proved; with a deadline a tenth of it, before a mixed-integer programme takes over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Node 0 is the root; `terminals` must be reached, every other node may be. `cost` and `seconds` are (n, n).

    With a `deadline` every terminal is reached within so many seconds. Seconds are not negative.
    """

    cost: Costs
    seconds: Seconds
    terminals: tuple[int, ...]
    deadline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Each node's parent, the tree's cost, and what every tree costs at least in the primary part (`bound`)."""

    parents: Mapping[int, int]
    cost: int
    bound: int

    @property
    def is_optimal(self) -> bool:
        """Whether no tree is cheaper in the primary part: proved, not hoped."""
        return self.cost // TIE <= self.bound


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of the trees: those that have all `required` nodes and only arcs that `cost` still has."""

    cost: Costs
    required: tuple[int, ...]
    optional: tuple[int, ...]


@dataclass(slots=True)
class _Incumbent:
    parents: Parents | None = None
    cost: int = NO_ARC

    @property
    def threshold(self) -> int:
        """A tree that is cheaper in the primary part costs less than this."""
        return NO_ARC if self.parents is None else self.cost // TIE * TIE

    def offer(self, parents: Parents, cost: int) -> None:
        if cost < self.cost:
            self.parents, self.cost = parents, cost


@dataclass(slots=True)
class _Search:
    network: Network
    best: _Incumbent = field(default_factory=_Incumbent)
    queue: list[tuple[int, int, _Part]] = field(default_factory=list[tuple[int, int, _Part]])
    made: int = 0

    def push(self, bound: int, part: _Part) -> None:
        self.made += 1
        heapq.heappush(self.queue, (bound, self.made, part))


def solve(network: Network, *, effort: int = EFFORT) -> Tree | None:
    """The cheapest tree, or None where no tree reaches every terminal (in time)."""
    count = len(network.cost)
    cost = network.cost.copy()
    np.fill_diagonal(cost, NO_ARC)
    cost[:, ROOT] = NO_ARC
    seconds = None if network.deadline is None else network.seconds
    cost = without_useless_arcs(cost, seconds, network.terminals, TIE)
    others = [node for node in range(1, count) if node not in set(network.terminals)]
    optional = useful_nodes(cost, seconds, others, network.terminals, TIE)
    gone = [node for node in others if node not in optional]
    cost[gone, :] = NO_ARC
    cost[:, gone] = NO_ARC
    search = _Search(network)
    search.push(0, _Part(cost, network.terminals, optional))
    looked_at, parts_max = 0, max(1, (effort if network.deadline is None else effort // 10) // count)
    while search.queue and search.queue[0][0] < search.best.threshold and looked_at < parts_max:
        bound, _, part = heapq.heappop(search.queue)
        looked_at += 1
        _look(search, bound, part)
    if search.best.parents is None:
        return None
    best = search.best.cost // TIE
    bound = min(best, search.queue[0][0] // TIE) if search.queue else best
    if bound < best and network.deadline is not None:
        part = _Part(cost, network.terminals, optional)
        # First over the nodes that are used already: a better tree soon, so that more is too dear after it.
        _solve_in_time(search, _over(part, [node for node in optional if node in search.best.parents]))
        bound = max(bound, _solve_in_time(search, part))
        best = search.best.cost // TIE
    return Tree(parents=search.best.parents, cost=search.best.cost, bound=min(bound, best))


def _over(part: _Part, optional: list[int]) -> _Part:
    """The part with these optional nodes only."""
    gone = [node for node in part.optional if node not in optional]
    cost = part.cost.copy()
    cost[gone, :] = NO_ARC
    cost[:, gone] = NO_ARC
    return _Part(cost, part.required, tuple(optional))


def _solve_in_time(search: _Search, whole: _Part) -> int:
    """Offer what the mixed-integer programme finds; the bound that it proves for the part, in the primary part."""
    network, threshold = search.network, search.best.threshold
    part = _within_deadline(network, whole)
    dual = None if part is None else dual_ascent(part.cost, part.required)
    if part is not None and dual is not None:
        part = _without_dear(part, dual, threshold)
        dual = dual_ascent(part.cost, part.required)
    if part is None or dual is None or network.deadline is None:
        return threshold // TIE
    answer = solve_programme(
        Programme(
            cost=part.cost,
            seconds=network.seconds,
            terminals=part.required,
            optional=part.optional,
            deadline=network.deadline,
            dual=dual,
            ceiling=max(1, threshold),
        )
    )
    if answer is None:
        return 0
    if answer.parents is not None:
        # What rounding let pass is no tree in time, and then its bound is not trusted either.
        if not _is_rooted(answer.parents) or _late_path(network, answer.parents) is not None:
            return 0
        parents = prune(answer.parents, network.terminals)
        search.best.offer(parents, _cost_of(parents, network.cost))
    return search.best.cost // TIE if answer.bound == math.inf else int(answer.bound // TIE)


def _is_rooted(parents: Mapping[int, int]) -> bool:
    for node in parents:
        step = node
        for _ in range(len(parents) + 1):
            if step == ROOT:
                break
            if step not in parents:
                return False
            step = parents[step]
        else:
            return False
    return True


def _look(search: _Search, known: int, part: _Part) -> None:
    """Bound one part from below, offer the trees that come to hand, and divide what is left."""
    narrowed = _within_deadline(search.network, part)
    if narrowed is None:
        return
    dual = dual_ascent(narrowed.cost, narrowed.required)
    if dual is None:
        return
    bound = max(known, dual.value)
    relaxed = _offer_trees(search, narrowed, dual)
    if relaxed is None or bound >= search.best.threshold:
        return
    narrowed = _without_dear(narrowed, dual, search.best.threshold)
    if not narrowed.optional:
        parents = find_arborescence(narrowed.cost, [ROOT, *narrowed.required])
        if parents is None:
            return
        bound = max(bound, _cost_of(parents, narrowed.cost))
        _offer(search, narrowed, parents)
        relaxed = parents
        if bound >= search.best.threshold:
            return
    late = _late_path(search.network, relaxed)
    if late is not None:
        _divide_by_path(search, bound, narrowed, late)
    elif narrowed.optional:
        _divide_by_node(search, bound, narrowed, dual, relaxed)


def _within_deadline(network: Network, part: _Part) -> _Part | None:
    """The part without arcs that are on no path in time; None where a required node cannot be."""
    if network.deadline is None:
        return part
    limit = network.deadline + TOLERANCE_SECONDS
    soonest, _ = earliest(part.cost, network.seconds)
    if any(soonest[node] > limit for node in part.required):
        return None
    lengths = np.where(is_arc(part.cost), network.seconds, np.inf)
    onward = distances(lengths.T.copy(), network.terminals)
    late = soonest[:, None] + lengths + onward[None, :] > limit
    cost = part.cost.copy()
    cost[late] = NO_ARC
    return _Part(cost, part.required, part.optional)


def _without_dear(part: _Part, dual: DualBound, threshold: int) -> _Part:
    """The part without nodes and arcs that every tree with them is too dear for, by their reduced costs."""
    if threshold >= NO_ARC:
        return part
    left = float(threshold - dual.value)
    reduced = np.where(is_arc(dual.reduced), dual.reduced.astype(np.float64), np.inf)
    before = distances(reduced, [ROOT])
    after = distances(reduced.T.copy(), part.required)
    # A hair of slack for the rounding of large numbers as floats.
    dear = before[:, None] + reduced + after[None, :] > left * (1 + 1e-9) + 1
    cost = part.cost.copy()
    cost[dear] = NO_ARC
    optional = tuple(node for node in part.optional if before[node] + after[node] <= left * (1 + 1e-9) + 1)
    gone = [node for node in part.optional if node not in set(optional)]
    cost[gone, :] = NO_ARC
    cost[:, gone] = NO_ARC
    return _Part(cost, part.required, optional)


def _offer_trees(search: _Search, part: _Part, dual: DualBound) -> Parents | None:
    """Offer trees over the arcs that dual ascent found to be worth it; the cheapest of them, late or not."""
    free = dual.reduced == 0
    before = _reached(free, [ROOT])
    after = _reached(free.T, part.required)
    promising = [node for node in part.optional if before[node] and after[node]]
    found: Parents | None = None
    for wanted in (promising, []):
        nodes = [ROOT, *part.required, *wanted]
        while True:
            parents = find_arborescence(part.cost, nodes)
            if parents is None:
                break
            parents = prune(parents, part.required)
            if found is None or _cost_of(parents, part.cost) < _cost_of(found, part.cost):
                found = parents
            fewer = [node for node in nodes if node == ROOT or node in parents]
            if len(fewer) == len(nodes):
                break
            nodes = fewer
    if found is not None:
        _offer(search, part, found)
    return found


def _reached(free: NDArray[np.bool_], starts: list[int] | tuple[int, ...]) -> NDArray[np.bool_]:
    reached = np.zeros(len(free), dtype=np.bool_)
    reached[list(starts)] = True
    frontier = np.flatnonzero(reached)
    while len(frontier):
        new = free[frontier].any(axis=0) & ~reached
        reached |= new
        frontier = np.flatnonzero(new)
    return reached


def _offer(search: _Search, part: _Part, parents: Parents) -> None:
    """Offer a tree as the answer, mended first if it is late."""
    network = search.network
    if network.deadline is not None and _late_path(network, parents) is not None:
        mended = hasten(parents, part.cost, network.seconds, part.required, network.deadline)
        if mended is None:
            return
        parents = mended
    parents = prune(parents, network.terminals)
    search.best.offer(parents, _cost_of(parents, network.cost))


def _late_path(network: Network, parents: Mapping[int, int]) -> list[tuple[int, int]] | None:
    """The shortest path (in arcs) to a terminal that is reached too late, or None."""
    if network.deadline is None:
        return None
    reached = arrivals(parents, network.seconds)
    limit = network.deadline + TOLERANCE_SECONDS
    paths = [path_to(parents, node) for node in network.terminals if reached[node] > limit]
    return min(paths, key=lambda path: (len(path), path)) if paths else None


def _divide_by_path(search: _Search, bound: int, part: _Part, path: list[tuple[int, int]]) -> None:
    """One part for each arc of a path that is too slow: without that arc, and with all before it."""
    cost, required, optional = part.cost, part.required, part.optional
    for source, node in path:
        without = cost.copy()
        without[source, node] = NO_ARC
        search.push(bound, _Part(without, required, optional))
        only = cost[source, node]
        cost = cost.copy()
        cost[:, node] = NO_ARC
        cost[source, node] = only
        if node in optional:
            required, optional = (*required, node), tuple(each for each in optional if each != node)


def _divide_by_node(search: _Search, bound: int, part: _Part, dual: DualBound, relaxed: Mapping[int, int]) -> None:
    """One part with an optional node and one without it: the node that decides most."""
    children = list(relaxed.values())
    free = dual.reduced[:, list(part.required)] == 0
    node = max(part.optional, key=lambda each: (children.count(each), int(free[each].sum()), -each))
    rest = tuple(each for each in part.optional if each != node)
    search.push(bound, _Part(part.cost, (*part.required, node), rest))
    without = part.cost.copy()
    without[node, :] = NO_ARC
    without[:, node] = NO_ARC
    search.push(bound, _Part(without, part.required, rest))


def _cost_of(parents: Mapping[int, int], cost: Costs) -> int:
    return sum(int(cost[parent, child]) for child, parent in parents.items())
