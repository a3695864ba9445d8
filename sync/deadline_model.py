"""The cheapest tree in time as a mixed-integer programme, in HiGHS: for deadlines that bind many destinations at once.

    x[u,v]  1 where the arc from u to v is in the tree
    t[v]    when v is reached, as a share of the deadline

    minimise  sum of cost[u,v] x[u,v]
    one arc into every terminal, at most one into every other node, and none out of a node that none leads into
    t[v] >= t[u] + seconds[u,v] - M (1 - x[u,v]), with t between the soonest and the latest that can matter
    at least one arc over every cut that dual ascent found

The times keep circles out; the cuts make the bound good from the start. One thread, a fixed seed and a limit on nodes:
equal problems give equal answers, unless a problem is so hard that the seconds run out, where a faster machine may find
a better tree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fairlead.sync.arborescence import ROOT, Costs, DualBound, Seconds, distances, is_arc
from fairlead.sync.arrivals import Parents, earliest

if TYPE_CHECKING:
    from numpy.typing import NDArray

NODES_MAX = 20
"""How many nodes HiGHS looks at."""

SECONDS_MAX = 1.0
"""How long HiGHS may look for."""

ARCS_MAX = 2000
"""A problem with more arcs than this takes HiGHS seconds, and is left to the bound that is known."""

_SCALE = 100.0
_GAP = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme:
    """What is left of the problem: arcs that may be in a cheaper tree than the one of cost `ceiling`."""

    cost: Costs
    seconds: Seconds
    terminals: tuple[int, ...]
    optional: tuple[int, ...]
    deadline: float
    dual: DualBound
    ceiling: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The arcs that were chosen (None: no tree is cheaper), and what every tree costs at least."""

    parents: Parents | None
    bound: float


@dataclass(slots=True)
class _Rows:
    lower: list[float] = field(default_factory=list[float])
    upper: list[float] = field(default_factory=list[float])
    start: list[int] = field(default_factory=lambda: [0])
    index: list[int] = field(default_factory=list[int])
    value: list[float] = field(default_factory=list[float])

    def add(self, terms: Iterable[tuple[int, float]], *, lower: float = -math.inf, upper: float = math.inf) -> None:
        for index, value in terms:
            self.index.append(index)
            self.value.append(value)
        self.start.append(len(self.index))
        self.lower.append(lower)
        self.upper.append(upper)


def solve_programme(programme: Programme) -> Answer | None:
    """The cheapest tree in time, or the best found within the limit; None where HiGHS is not installed or gives up."""
    try:
        import highspy
    except ImportError:
        return None
    arcs = {(int(u), int(v)): n for n, (u, v) in enumerate(zip(*np.nonzero(is_arc(programme.cost)), strict=True))}
    if len(arcs) > ARCS_MAX:
        return None
    soonest, latest = _windows(programme)
    rows = _rows(programme, arcs, soonest, latest)
    unit = programme.ceiling / _SCALE
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(arcs) + len(soonest), len(rows.lower)
    model.col_cost_ = np.array([int(programme.cost[arc]) / unit for arc in arcs] + [0.0] * len(soonest))
    model.col_lower_ = np.concatenate([np.zeros(len(arcs)), soonest])
    model.col_upper_ = np.concatenate([np.ones(len(arcs)), latest])
    model.row_lower_, model.row_upper_ = np.array(rows.lower), np.array(rows.upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.array(rows.start)
    model.a_matrix_.index_, model.a_matrix_.value_ = np.array(rows.index), np.array(rows.value)
    whole, real = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
    model.integrality_ = [whole] * len(arcs) + [real] * len(soonest)
    solver = highspy.Highs()
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", 1),
        ("mip_rel_gap", 0.0),
        ("mip_abs_gap", _GAP),
        ("mip_feasibility_tolerance", 1e-9),
        ("primal_feasibility_tolerance", 1e-9),
        ("mip_max_nodes", NODES_MAX),
        ("time_limit", SECONDS_MAX),
    ):
        solver.setOptionValue(option, value)
    solver.passModel(model)
    solver.run()
    status, found = solver.getModelStatus(), solver.getInfo()
    if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return Answer(parents=None, bound=float(programme.ceiling))
    bound = float(found.mip_dual_bound) * unit if math.isfinite(found.mip_dual_bound) else 0.0
    if found.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return Answer(parents=None, bound=bound)
    values: list[float] = [float(value) for value in solver.getSolution().col_value]
    parents = {child: parent for (parent, child), column in arcs.items() if values[column] > 0.5}
    # What is within the gap of the answer is not told from it.
    is_optimal = status == highspy.HighsModelStatus.kOptimal
    return Answer(parents=parents, bound=math.inf if is_optimal else bound)


def _windows(programme: Programme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When each node can be reached at the soonest, and has to be at the latest to be of use; of the deadline."""
    soonest, _ = earliest(programme.cost, programme.seconds)
    lengths = np.where(is_arc(programme.cost), programme.seconds, np.inf)
    onward = distances(lengths.T.copy(), programme.terminals)
    first = np.where(np.isfinite(soonest), soonest, 0.0)
    last = np.where(np.isfinite(onward), programme.deadline - onward, programme.deadline)
    last[ROOT] = 0.0
    return first / programme.deadline, np.maximum(first, last) / programme.deadline


def _rows(
    programme: Programme,
    arcs: dict[tuple[int, int], int],
    soonest: NDArray[np.float64],
    latest: NDArray[np.float64],
) -> _Rows:
    rows = _Rows()
    into: dict[int, list[tuple[int, int]]] = {}
    for source, node in arcs:
        into.setdefault(node, []).append((source, node))
    for node in programme.terminals:
        rows.add([(arcs[arc], 1.0) for arc in into.get(node, ())], lower=1.0, upper=1.0)
    for node in programme.optional:
        rows.add([(arcs[arc], 1.0) for arc in into.get(node, ())], upper=1.0)
    for (source, node), column in arcs.items():
        if source in programme.optional:
            others = [(arcs[arc], -1.0) for arc in into.get(source, ()) if arc[0] != node]
            rows.add([(column, 1.0), *others], upper=0.0)
        seconds = float(programme.seconds[source, node]) / programme.deadline
        slack = float(latest[source]) + seconds - float(soonest[node])
        if slack > 0:
            first = len(arcs)
            terms = [(first + node, 1.0), (first + source, -1.0), (column, -slack)]
            rows.add(terms, lower=seconds - slack)
    for inside in programme.dual.cuts:
        crossing = [(column, 1.0) for (source, node), column in arcs.items() if inside[node] and not inside[source]]
        rows.add(crossing, lower=1.0)
    return rows
