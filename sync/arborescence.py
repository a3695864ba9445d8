"""Trees that lead from a root to every other node at least cost, and bounds on those that may pass over nodes.

Costs are whole numbers in an (n, n) int64 array, `cost[u, v]` for the arc from u to v, `NO_ARC` where there is none.
Node 0 is the root. Equal inputs give equal answers: among equal arcs the one with the smallest index wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Costs = NDArray[np.int64]
Seconds = NDArray[np.float64]

ROOT = 0
NO_ARC = 2**62
COST_MAX = 2**59
"""What all costs of one problem together stay below, so that a missing arc is dearer than any tree, also reduced."""

_HALF = 2**61


def is_arc(cost: Costs) -> NDArray[np.bool_]:
    """Where there is an arc, also after costs were reduced."""
    return cost < _HALF


def find_arborescence(cost: Costs, nodes: Sequence[int]) -> dict[int, int] | None:
    """The parent of each node but the root in a cheapest tree over exactly these nodes, or None where there is none.

    `nodes` begin with the root. Chu-Liu and Edmonds: every node takes its cheapest arc; the circles that this makes are
    contracted, with the arcs into them priced at what they add, and the smaller problem is solved. O(n^3).
    """
    picked = np.ix_(nodes, nodes)
    local = cost[picked].copy()
    np.fill_diagonal(local, NO_ARC)
    parents = _edmonds(local)
    if parents is None:
        return None
    return {nodes[child]: nodes[parent] for child, parent in enumerate(parents.tolist()) if child != ROOT}


def _edmonds(cost: Costs) -> NDArray[np.intp] | None:
    count = len(cost)
    parents = cost.argmin(axis=0)
    parents[ROOT] = ROOT
    cheapest = cost[parents, np.arange(count)]
    cheapest[ROOT] = 0
    if not is_arc(cheapest).all():
        return None
    circles = _find_circles(parents.tolist())
    if not circles:
        return parents
    group = _group(count, circles)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    reduced = cost.copy()
    for circle in circles:
        for node in circle:
            reduced[:, node] -= cheapest[node]
    reduced[~is_arc(cost)] = NO_ARC
    by_column = np.minimum.reduceat(reduced[:, order], starts, axis=1)
    contracted = np.minimum.reduceat(by_column[order], starts, axis=0)
    np.fill_diagonal(contracted, NO_ARC)
    outer = _edmonds(contracted)
    if outer is None:
        return None
    members = [np.flatnonzero(group == index) for index in range(len(starts))]
    for child, parent in enumerate(outer.tolist()):
        if child != group[ROOT]:
            block = reduced[np.ix_(members[parent], members[child])]
            row, column = divmod(int(block.argmin()), block.shape[1])
            parents[members[child][column]] = members[parent][row]
    return parents


def _find_circles(parents: list[int]) -> list[list[int]]:
    seen = [0] * len(parents)
    seen[ROOT] = -1
    circles: list[list[int]] = []
    for start in range(len(parents)):
        walk: list[int] = []
        node = start
        while seen[node] == 0:
            seen[node] = start + 1
            walk.append(node)
            node = parents[node]
        if node != ROOT and seen[node] == start + 1 and walk:
            circles.append(walk[walk.index(node) :])
    return circles


def _group(count: int, circles: list[list[int]]) -> NDArray[np.intp]:
    """The contracted node of every node; the root's is 0."""
    group = np.full(count, -1, dtype=np.intp)
    for index, circle in enumerate(circles):
        group[circle] = count + index
    alone = np.flatnonzero(group < 0)
    group[alone] = np.arange(len(alone))
    group[group >= count] -= count - len(alone)
    return group


@dataclass(frozen=True, slots=True, kw_only=True)
class DualBound:
    """What every tree to the terminals costs at least, and what each arc costs beyond the part that was counted.

    `cuts` are the sets that every tree has an arc into.
    """

    value: int
    reduced: Costs
    cuts: tuple[NDArray[np.bool_], ...]


def dual_ascent(cost: Costs, terminals: Sequence[int]) -> DualBound | None:
    """Wong's dual ascent: a lower bound on the cost of a tree from the root to the terminals, over any other nodes.

    Every cut between the root and a terminal has to be crossed. The bound grows by the cheapest arc of such a cut,
    which all its arcs then cost less; it ends when arcs that cost nothing more lead from the root to every terminal.
    None where a terminal cannot be reached.
    """
    reduced = cost.copy()
    value = 0
    cuts: list[NDArray[np.bool_]] = []
    behind = {terminal: _reaching(reduced, _only(len(cost), terminal)) for terminal in terminals}
    while behind:
        terminal = min(behind, key=lambda node: (int(behind[node].sum()), node))
        inside = _reaching(reduced, behind[terminal])
        if inside[ROOT]:
            del behind[terminal]
            continue
        block = np.ix_(~inside, inside)
        cut = reduced[block]
        step = int(cut.min())
        if step >= _HALF:
            return None
        reduced[block] = np.where(is_arc(cut), cut - step, cut)
        value += step
        cuts.append(inside)
        behind[terminal] = inside
    return DualBound(value=value, reduced=reduced, cuts=tuple(cuts))


def _only(count: int, node: int) -> NDArray[np.bool_]:
    inside = np.zeros(count, dtype=np.bool_)
    inside[node] = True
    return inside


def _reaching(reduced: Costs, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The nodes from which arcs that cost nothing lead into a set, with the set."""
    inside = inside.copy()
    frontier = np.flatnonzero(inside)
    while len(frontier):
        found = (reduced[:, frontier] == 0).any(axis=1) & ~inside
        inside |= found
        frontier = np.flatnonzero(found)
    return inside


def distances(cost: NDArray[np.float64], starts: Iterable[int]) -> NDArray[np.float64]:
    """The length of a shortest path from the nearest of the starts to each node (inf: none); `cost` is not negative."""
    best = np.full(len(cost), np.inf)
    best[list(starts)] = 0.0
    is_open = np.ones(len(cost), dtype=np.bool_)
    for _ in range(len(cost)):
        node = int(np.where(is_open, best, np.inf).argmin())
        if not is_open[node] or best[node] == np.inf:
            break
        is_open[node] = False
        np.minimum(best, best[node] + cost[node], out=best)
    return best
