"""Distribution: how an artifact gets from where it is VERIFIED to where it should be, at the least cost.

A copy that has crossed an ocean feeds its neighbours: the plan is a tree whose every arc is a hop, priced by what that
hop really moves (`fairlead.sync.hops`). The tree may pass over relays, locations that may hold the artifact without
having to. Among all such trees it is the cheapest, proved (`fairlead.sync.steiner`), and never dearer than copying to
each destination directly from its cheapest source.

A location passes an artifact on once all of it was read back there (store and forward, by artifact), so a destination
is reached after the sum of the seconds on its path; hops that wait for nothing run at the same time. Residency is
respected at both ends of every hop: nothing that may not hold the data is in the tree at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

import numpy as np

from fairlead.catalog import Residency, permits
from fairlead.core.errors import DistributionInfeasible, ReplicaUnavailable, ResidencyViolation
from fairlead.sync.arborescence import COST_MAX, NO_ARC, ROOT
from fairlead.sync.arrivals import TOLERANCE_SECONDS, earliest
from fairlead.sync.hops import HopPrice, HopPrices, Missing, Stop, usd
from fairlead.sync.steiner import TIE, Network, Tree, solve

Rule = Literal["deadline", "residency"]
_HOP_TIE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionRequest:
    """What is to be brought where.

    `sources` hold the artifact VERIFIED; `destinations` should; `relays` may. `missing` says what a location lacks of
    it. `deadline_seconds` is how long the last destination may take, None: as long as it takes.
    """

    residency: Residency
    sources: Sequence[Stop]
    destinations: Sequence[Stop]
    relays: Sequence[Stop]
    missing: Callable[[Stop], Missing]
    deadline_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One copy: from where, to where, what it moves and costs, when it begins and when its replica is VERIFIED.

    Seconds count from the start of the plan. `is_relay`: the destination only passes the artifact on.
    """

    source: Stop
    destination: Stop
    bytes: int
    egress_usd: Decimal
    request_usd: Decimal
    begins_seconds: float
    ends_seconds: float
    is_relay: bool
    is_estimate: bool

    @property
    def usd(self) -> Decimal:
        """Egress and requests together."""
        return self.egress_usd + self.request_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Hops, each after the one that feeds it; hops from one place by cost, then by name."""

    hops: tuple[Hop, ...]

    @property
    def bytes(self) -> int:
        """What all hops move."""
        return sum(hop.bytes for hop in self.hops)

    @property
    def usd(self) -> Decimal:
        """What all hops cost, exactly."""
        return sum((hop.usd for hop in self.hops), Decimal(0))

    @property
    def seconds(self) -> float:
        """When the last one ends."""
        return max((hop.ends_seconds for hop in self.hops), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A rule that made the plan dearer: what the cheapest plan would cost without it, and what it forbade."""

    rule: Rule
    detail: str
    usd_without: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """The plan, what copying directly would cost, what made the plan dearer, and how good it is proved to be.

    No plan that keeps the rules is cheaper than `bound_usd`; where `is_optimal`, this is the cheapest one. `direct`
    may miss the deadline: `direct.seconds` says when it would end.
    """

    tree: Copies
    direct: Copies
    deadline_seconds: float | None
    bindings: tuple[Binding, ...]
    is_optimal: bool
    bound_usd: Decimal

    @property
    def saved_usd(self) -> Decimal:
        """What the tree saves against direct copies; negative only where these would miss the deadline."""
        return self.direct.usd - self.tree.usd


def plan_distribution(request: DistributionRequest, prices: HopPrices) -> Distribution:
    """The cheapest way to bring an artifact to its destinations. Equal requests give equal plans.

    Raises:
        ResidencyViolation: if a destination may not hold the artifact.
        ReplicaUnavailable: if there is no source.
        DistributionInfeasible: if no way meets the deadline; says how long the quickest takes.
        UnknownRegion: if a stop is in no region of the catalog.
    """
    problem, forbidden = _build(request, prices)
    if not problem.destinations:
        nothing = Copies(hops=())
        return _answer(request, nothing, nothing, Decimal(0), bindings=())
    tree = _solve(problem, request.deadline_seconds)
    if tree is None:
        raise _too_late(problem, request)
    direct = _to_copies(problem, problem.direct())
    copies = _to_copies(problem, tree.parents)
    if _is_in_time(direct, request.deadline_seconds) and direct.usd <= copies.usd:
        copies = direct
    bindings = _bindings(request, prices, problem, copies, forbidden)
    # What is proved is proved to the unit that costs were counted in.
    bound = copies.usd if tree.is_optimal else min(copies.usd, usd(tree.bound * problem.unit))
    return _answer(request, copies, direct, bound, bindings=bindings)


def _answer(
    request: DistributionRequest, tree: Copies, direct: Copies, bound: Decimal, *, bindings: tuple[Binding, ...]
) -> Distribution:
    return Distribution(
        tree=tree,
        direct=direct,
        deadline_seconds=request.deadline_seconds,
        bindings=bindings,
        is_optimal=bound >= tree.usd,
        bound_usd=bound,
    )


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """The stops as nodes 1, 2 ...: sources, destinations, relays, each by name. Node 0 is a root above the sources."""

    sources: tuple[Stop, ...]
    destinations: tuple[Stop, ...]
    relays: tuple[Stop, ...]
    missing: Mapping[str, Missing]
    prices: HopPrices

    @functools.cached_property
    def stops(self) -> tuple[Stop, ...]:
        return (*self.sources, *self.destinations, *self.relays)

    @functools.cached_property
    def hop_prices(self) -> dict[tuple[int, int], HopPrice]:
        """By nodes; nothing leads into a source."""
        targets = range(len(self.sources) + 1, len(self.stops) + 1)
        return {
            (source, node): self.prices.price(self.stop(source), self.stop(node), self.missing[self.stop(node).id])
            for source in range(1, len(self.stops) + 1)
            for node in targets
            if source != node
        }

    @functools.cached_property
    def unit(self) -> int:
        """Picodollars that the solver counts as one: 1, or for very large artifacts as few as fit."""
        most = max(price.picodollars for price in self.hop_prices.values()) * (len(self.stops) + 1)
        unit = 1
        while most // unit * TIE > COST_MAX:
            unit *= 10
        return unit

    def stop(self, node: int) -> Stop:
        return self.stops[node - 1]

    @property
    def terminals(self) -> tuple[int, ...]:
        return tuple(range(1, len(self.sources) + len(self.destinations) + 1))

    def network(self, deadline: float | None) -> Network:
        """As numbers. Equal dollars are settled by fewer steps from the sources, then by fewer seconds."""
        count = len(self.stops) + 1
        cost = np.full((count, count), NO_ARC, dtype=np.int64)
        seconds = np.zeros((count, count))
        for node in range(1, len(self.sources) + 1):
            cost[ROOT, node] = 0
        slowest = max(price.seconds for price in self.hop_prices.values()) or 1.0
        for (source, node), price in self.hop_prices.items():
            tie = round((_HOP_TIE - 1) * price.seconds / slowest) + (_HOP_TIE if source > len(self.sources) else 0)
            cost[source, node] = price.picodollars // self.unit * TIE + tie
            seconds[source, node] = price.seconds
        return Network(cost=cost, seconds=seconds, terminals=self.terminals, deadline=deadline)

    def direct(self) -> dict[int, int]:
        """Each destination from its cheapest source, then its quickest, then by name."""
        sources = range(1, len(self.sources) + 1)

        def cost(source: int, node: int) -> tuple[int, float, int]:
            price = self.hop_prices[source, node]
            return price.picodollars, price.seconds, source

        first = len(self.sources) + 1
        return {
            node: min(sources, key=functools.partial(cost, node=node))
            for node in range(first, first + len(self.destinations))
        }


def _build(request: DistributionRequest, prices: HopPrices) -> tuple[_Problem, tuple[Stop, ...]]:
    """The problem that residency leaves, and the relays that it takes away."""
    for stop in request.destinations:
        if not permits(request.residency, stop.jurisdiction):
            raise ResidencyViolation(
                f"Data of residency class {request.residency!r} may not go to {stop.name!r} in {stop.jurisdiction}.",
                hint="Leave it out, or register the data under another residency class.",
                residency=request.residency,
                region=stop.region,
                jurisdiction=stop.jurisdiction,
            )
    sources = _by_name(stop for stop in request.sources if permits(request.residency, stop.jurisdiction))
    held = {stop.id for stop in sources}
    destinations = _by_name(stop for stop in request.destinations if stop.id not in held)
    if destinations and not sources:
        raise ReplicaUnavailable(
            "No replica of the artifact is VERIFIED: there is nothing to copy from.",
            hint="See what runs and what waits: fairlead work",
        )
    taken = held | {stop.id for stop in destinations}
    others = _by_name(stop for stop in request.relays if stop.id not in taken)
    relays = tuple(stop for stop in others if permits(request.residency, stop.jurisdiction))
    problem = _Problem(
        sources=sources,
        destinations=destinations,
        relays=relays,
        missing={stop.id: request.missing(stop) for stop in (*destinations, *relays)},
        prices=prices,
    )
    return problem, tuple(stop for stop in others if stop not in relays)


def _by_name(stops: Iterable[Stop]) -> tuple[Stop, ...]:
    return tuple(sorted({stop.id: stop for stop in stops}.values(), key=lambda stop: (stop.name, stop.id)))


def _solve(problem: _Problem, deadline: float | None) -> Tree | None:
    tree = solve(problem.network(None))
    if tree is None or deadline is None or _is_in_time(_to_copies(problem, tree.parents), deadline):
        return tree
    return solve(problem.network(deadline))


def _is_in_time(copies: Copies, deadline: float | None) -> bool:
    return deadline is None or copies.seconds <= deadline + TOLERANCE_SECONDS


def _to_copies(problem: _Problem, parents: Mapping[int, int]) -> Copies:
    """A tree of nodes as hops, parents before children."""
    children: dict[int, list[int]] = {}
    sources = range(1, len(problem.sources) + 1)
    for node, parent in parents.items():
        if node not in sources:
            children.setdefault(parent, []).append(node)
    hops: list[Hop] = []
    queue = [(source, 0.0) for source in sources]
    while queue:
        parent, begins = queue.pop(0)
        fed = ((problem.hop_prices[parent, node].picodollars, node) for node in children.get(parent, ()))
        for _, node in sorted(fed):
            hop = _to_hop(problem, parent, node, begins)
            hops.append(hop)
            queue.append((node, hop.ends_seconds))
    return Copies(hops=tuple(hops))


def _to_hop(problem: _Problem, parent: int, node: int, begins: float) -> Hop:
    price = problem.hop_prices[parent, node]
    destination = problem.stop(node)
    return Hop(
        source=problem.stop(parent),
        destination=destination,
        bytes=problem.missing[destination.id].bytes,
        egress_usd=usd(price.egress_picodollars),
        request_usd=usd(price.request_picodollars),
        begins_seconds=begins,
        ends_seconds=begins + price.seconds,
        is_relay=destination in problem.relays,
        is_estimate=price.is_estimate,
    )


def _bindings(
    request: DistributionRequest, prices: HopPrices, problem: _Problem, copies: Copies, forbidden: tuple[Stop, ...]
) -> tuple[Binding, ...]:
    """The rules without which the plan would be cheaper, each alone."""
    found: list[Binding] = []

    def add(rule: Rule, detail: str, tree: Tree | None, of: _Problem) -> None:
        without = None if tree is None else _to_copies(of, tree.parents).usd
        if without is not None and without < copies.usd:
            found.append(Binding(rule=rule, detail=detail, usd_without=without))

    if request.deadline_seconds is not None:
        add("deadline", f"within {request.deadline_seconds:g} s", _solve(problem, None), problem)
    if forbidden:
        missing = {**problem.missing, **{stop.id: request.missing(stop) for stop in forbidden}}
        open_problem = replace(problem, relays=_by_name((*problem.relays, *forbidden)), missing=missing, prices=prices)
        names = ", ".join(stop.name for stop in forbidden[:5]) + (" ..." if len(forbidden) > 5 else "")
        tree = _solve(open_problem, request.deadline_seconds)
        add("residency", f"{request.residency!r} bars relays: {names}", tree, open_problem)
    return tuple(found)


def _too_late(problem: _Problem, request: DistributionRequest) -> DistributionInfeasible:
    network = problem.network(None)
    soonest, _ = earliest(network.cost, network.seconds)
    last = max(problem.terminals, key=lambda node: (soonest[node], -node))
    seconds = float(soonest[last])
    return DistributionInfeasible(
        f"Nothing brings the artifact to {problem.stop(last).name!r} within {request.deadline_seconds:g} s; "
        f"the quickest way takes {seconds:.3g} s.",
        hint="Allow more time, or leave that destination out.",
        location=problem.stop(last).name,
        region=problem.stop(last).region,
        seconds=round(seconds, 3),
    )
