"""Whether what is left after a loss still has the room for all demand, and the rows that make it so.

A set of requests that only some regions may answer needs room in those regions. Where no set lacks room, the requests
fit (a maximal flow fills them in); where they do not fit, a smallest cut names a set that lacks it. So the programme
holds the sets that are known to matter, and a cut brings each that was missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from fairlead.serving.placement_options import Problem
from fairlead.serving.placement_request import Survivable

_LEAST_LOAD = 1e-6

Losses = tuple[frozenset[int], ...]
"""What may be lost: sets of regions (indices into the problem's)."""


def losses_of(problem: Problem, regions: Iterable[int], survive: Survivable) -> Losses:
    """Each region by itself, or each cloud's regions together."""
    grouped: dict[str, set[int]] = {}
    for region in regions:
        found = problem.regions[region].region
        grouped.setdefault(found.id if survive == "region" else found.cloud, set()).add(region)
    return tuple(frozenset(each) for _, each in sorted(grouped.items()))


def needs_of(problem: Problem, regions: Iterable[int]) -> dict[frozenset[int], float]:
    """The load (in replicas) that only those regions may answer, by set: each parcel's own set, and all of them."""
    among = frozenset(regions)
    sets = [frozenset(parcel.regions) & among for parcel in problem.parcels]
    return {each: need_within(problem, sets, each) for each in sorted({*sets, among}, key=sorted)}


def need_within(problem: Problem, sets: Sequence[frozenset[int]], where: frozenset[int]) -> float:
    """The load of the parcels that no region outside `where` may answer."""
    return sum(parcel.load_replicas for parcel, allowed in zip(problem.parcels, sets, strict=True) if allowed <= where)


def answered(problem: Problem, room: Mapping[int, float]) -> tuple[float, frozenset[int]]:
    """The most load (in replicas) that this room answers, and the parcels that a smallest cut leaves short of room."""
    flow = _Flow(problem, room)
    total = flow.fill()
    return total, flow.short()


class _Flow:
    """A maximal flow from parcels to regions, by shortest augmenting paths."""

    def __init__(self, problem: Problem, room: Mapping[int, float]) -> None:
        self._parcels = problem.parcels
        self._left = [parcel.load_replicas for parcel in problem.parcels]
        self._room = dict(room)
        self._sent: dict[tuple[int, int], float] = {}
        self._allowed = [tuple(region for region in parcel.regions if region in room) for parcel in problem.parcels]

    def fill(self) -> float:
        """Send all that can be sent; return how much that is."""
        while (path := self._path()) is not None:
            parcels, regions = path
            push = min(self._left[parcels[0]], self._room[regions[-1]])
            for parcel, region in zip(parcels[1:], regions, strict=False):
                push = min(push, self._sent[parcel, region])
            for step, region in enumerate(regions):
                self._sent[parcels[step], region] = self._sent.get((parcels[step], region), 0.0) + push
                if step + 1 < len(parcels):
                    self._sent[parcels[step + 1], region] -= push
            self._left[parcels[0]] -= push
            self._room[regions[-1]] -= push
        return sum(parcel.load_replicas for parcel in self._parcels) - sum(self._left)

    def short(self) -> frozenset[int]:
        """The parcels from which no room can be reached, together with those that they compete with."""
        came_from, _ = self._search()
        return frozenset(node for kind, node in came_from if kind == "parcel")

    def _path(self) -> tuple[list[int], list[int]] | None:
        came_from, end = self._search()
        if end is None:
            return None
        parcels: list[int] = []
        regions = [end]
        node: tuple[str, int] | None = came_from["region", end]
        while node is not None:
            kind, index = node
            (parcels if kind == "parcel" else regions).append(index)
            node = came_from[node]
        return parcels[::-1], regions[::-1]

    def _search(self) -> tuple[dict[tuple[str, int], tuple[str, int] | None], int | None]:
        start = [index for index, left in enumerate(self._left) if left > _LEAST_LOAD]
        came_from: dict[tuple[str, int], tuple[str, int] | None] = {("parcel", index): None for index in start}
        queue: deque[tuple[str, int]] = deque(came_from)
        while queue:
            kind, index = node = queue.popleft()
            if kind == "region":
                if self._room[index] > _LEAST_LOAD:
                    return came_from, index
                near = [("parcel", each) for (each, where), sent in self._sent.items()
                        if where == index and sent > _LEAST_LOAD]  # fmt: skip
            else:
                near = [("region", each) for each in self._allowed[index]]
            for each in near:
                if each not in came_from:
                    came_from[each] = node
                    queue.append(each)
        return came_from, None
