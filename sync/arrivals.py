"""Trees that have to be there in time: when each node is reached, and how a late tree is mended.

Nodes pass on what they have once they have all of it, so a node is reached when its parent was, plus the seconds of the
arc between them. Any number of arcs may be under way at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairlead.sync.arborescence import ROOT, Costs, Seconds, is_arc

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE_SECONDS = 1e-6
Parents = dict[int, int]


def arrivals(parents: Mapping[int, int], seconds: Seconds) -> dict[int, float]:
    """When each node of a tree is reached, in seconds after the start."""
    reached = {ROOT: 0.0}
    for node in parents:
        path: list[int] = []
        while node not in reached:
            path.append(node)
            node = parents[node]  # noqa: PLW2901  (walks up)
        for each in reversed(path):
            reached[each] = reached[parents[each]] + float(seconds[parents[each], each])
    return reached


def earliest(cost: Costs, seconds: Seconds) -> tuple[NDArray[np.float64], list[int]]:
    """When each node could be reached at the soonest (inf: never), and from which node."""
    lengths = np.where(is_arc(cost), seconds, np.inf)
    best = np.full(len(cost), np.inf)
    best[ROOT] = 0.0
    parents = [ROOT] * len(cost)
    is_open = np.ones(len(cost), dtype=np.bool_)
    for _ in range(len(cost)):
        node = int(np.where(is_open, best, np.inf).argmin())
        if not is_open[node] or best[node] == np.inf:
            break
        is_open[node] = False
        over = best[node] + lengths[node]
        for other in np.flatnonzero(over < best).tolist():
            best[other], parents[other] = over[other], node
    return best, parents


def hasten(parents: Parents, cost: Costs, seconds: Seconds, required: Sequence[int], deadline: float) -> Parents | None:
    """Mend a tree that reaches some required nodes too late, at little cost; None where no tree is in time.

    What is late takes its quickest path; then every node looks for a cheaper parent that keeps all below it in time.
    """
    limit = deadline + TOLERANCE_SECONDS
    best, quickest = earliest(cost, seconds)
    if any(best[node] > limit for node in required):
        return None
    tree = dict(parents)
    for node in required:
        if node in tree and arrivals(tree, seconds)[node] <= limit:
            continue
        step = node
        # The whole quickest path: a part of it could lead through what comes below.
        while step != ROOT:
            tree[step] = quickest[step]
            step = quickest[step]
    return cheapen(prune(tree, required), cost, seconds, limit)


def cheapen(tree: Parents, cost: Costs, seconds: Seconds, limit: float) -> Parents:
    """Give nodes cheaper parents, one at a time, as long as everything below them stays within the limit."""
    improved = True
    while improved:
        improved = False
        for node in sorted(tree):
            reached = arrivals(tree, seconds)
            below = subtree(tree, node)
            slack = limit - max(reached[each] for each in below)
            for parent in sorted(set(tree) | {ROOT}, key=lambda each: (int(cost[each, node]), each)):
                if cost[parent, node] >= cost[tree[node], node]:
                    break
                later = reached[parent] + float(seconds[parent, node]) - reached[node]
                if parent not in below and later <= slack:
                    tree[node] = parent
                    improved = True
                    break
    return tree


def subtree(tree: Mapping[int, int], node: int) -> set[int]:
    """A node and all below it."""
    below = {node}
    frontier = [node]
    while frontier:
        frontier = [child for child, parent in tree.items() if parent in frontier and child not in below]
        below.update(frontier)
    return below


def prune(tree: Mapping[int, int], required: Sequence[int]) -> Parents:
    """The tree without what leads to no required node."""
    kept: Parents = {}
    for terminal in required:
        node = terminal
        while node != ROOT and node not in kept:
            kept[node] = tree[node]
            node = tree[node]
    return kept


def path_to(tree: Mapping[int, int], node: int) -> list[tuple[int, int]]:
    """The arcs from the root to a node, in order."""
    arcs: list[tuple[int, int]] = []
    while node != ROOT:
        arcs.append((tree[node], node))
        node = tree[node]
    return arcs[::-1]
