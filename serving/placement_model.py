"""The mixed-integer programme, and nothing else: what `docs/explanation/placement.md` writes out, in HiGHS.

Variables, for regions r that no rule forbids, instance types s and demand groups g:

    y[r]    1 where the region is used
    n[r,s]  instances rented, whole
    x[g,r]  share of the group's requests that the region answers, from 0 to 1
    z[c]    1 where the cloud is used

One thread and a fixed seed, columns in order of region id: equal requests give equal answers. Where totals differ by
less than a hundredth of a cent an hour, the smaller region id wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fairlead.core.errors import FairleadError, MissingExtra
from fairlead.core.ids import RegionId
from fairlead.serving.placement_options import GRAMS_PER_TONNE, SECONDS_PER_HOUR, Problem

SHARE_DECIMALS = 9
_LEAST_SHARE = 1e-6
_TIE_USD_PER_HOUR = 1e-7
_RELATIVE_GAP = 0.0
_NO_LIMIT = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What the solver decided: instances by (region, sku), and each group's shares by region, which sum to 1."""

    regions: tuple[RegionId, ...]
    instances: Mapping[tuple[RegionId, str], int]
    shares: Mapping[tuple[int, RegionId], float]


@dataclass(slots=True)
class _Programme:
    """Columns and rows as HiGHS takes them, row by row."""

    cost: list[float] = field(default_factory=list[float])
    upper: list[float] = field(default_factory=list[float])
    is_whole: list[bool] = field(default_factory=list[bool])
    row_lower: list[float] = field(default_factory=list[float])
    row_upper: list[float] = field(default_factory=list[float])
    start: list[int] = field(default_factory=lambda: [0])
    index: list[int] = field(default_factory=list[int])
    value: list[float] = field(default_factory=list[float])

    def column(self, cost: float, upper: float, *, is_whole: bool) -> int:
        self.cost.append(cost)
        self.upper.append(upper)
        self.is_whole.append(is_whole)
        return len(self.cost) - 1

    def row(self, terms: Sequence[tuple[int, float]], *, lower: float = -_NO_LIMIT, upper: float = _NO_LIMIT) -> None:
        for index, value in terms:
            if value:
                self.index.append(index)
                self.value.append(value)
        self.start.append(len(self.index))
        self.row_lower.append(lower)
        self.row_upper.append(upper)


def solve(problem: Problem, *, excluded: frozenset[RegionId] | None = None) -> Solution | None:
    """The cheapest placement, or None where there is none; `excluded` is a set of regions that may not be the answer.

    Raises:
        MissingExtra: if HiGHS is not installed.
    """
    if not problem.regions:
        return None
    programme = _Programme()
    used, rented, served = _columns(problem, programme)
    _demand_rows(problem, programme, used, served)
    _capacity_rows(problem, programme, used, rented, served)
    _diversity_rows(problem, programme, used)
    _budget_row(problem, programme, used, rented, served)
    if excluded is not None:
        # At least one region differs: one of the set is left, or one outside it is used.
        terms = [(column, -1.0 if region in excluded else 1.0) for region, column in used.items()]
        programme.row(terms, lower=1.0 - len(excluded))
    values = _run(programme)
    if values is None:
        return None
    return _read(problem, values, rented, served)


def _columns(
    problem: Problem, programme: _Programme
) -> tuple[dict[RegionId, int], dict[tuple[RegionId, str], int], dict[tuple[int, RegionId], int]]:
    request = problem.request
    carbon_price = request.carbon_price_usd_per_tonne / GRAMS_PER_TONNE
    all_replicas = sum(problem.load_replicas(group) for group in range(len(request.demand)))
    used: dict[RegionId, int] = {}
    rented: dict[tuple[RegionId, str], int] = {}
    served: dict[tuple[int, RegionId], int] = {}
    for rank, option in enumerate(problem.regions):
        region = option.region.id
        fixed = option.replication_usd_per_hour + carbon_price * option.replication_grams_per_hour
        used[region] = programme.column(fixed + rank * _TIE_USD_PER_HOUR, 1.0, is_whole=True)
        for instance in option.instances:
            most = max(1, math.ceil(all_replicas / instance.replicas - 1e-9))
            dollars = instance.usd_per_hour + carbon_price * instance.grams_per_hour
            rented[region, instance.price.sku] = programme.column(dollars, most, is_whole=True)
        for group, away in option.round_trips.items():
            requests = request.demand[group].requests_per_second * SECONDS_PER_HOUR
            dollars = option.egress_usd_per_request + carbon_price * option.egress_grams_per_request
            dollars += request.latency_price_usd_per_request_second * away.value / 1000
            served[group, region] = programme.column(requests * dollars, 1.0, is_whole=False)
    return used, rented, served


def _demand_rows(
    problem: Problem, programme: _Programme, used: Mapping[RegionId, int], served: Mapping[tuple[int, RegionId], int]
) -> None:
    for group in range(len(problem.request.demand)):
        shares = [column for (index, _), column in served.items() if index == group]
        programme.row([(column, 1.0) for column in shares], lower=1.0, upper=1.0)
    for (_, region), column in served.items():
        programme.row([(column, 1.0), (used[region], -1.0)], upper=0.0)


def _capacity_rows(
    problem: Problem,
    programme: _Programme,
    used: Mapping[RegionId, int],
    rented: Mapping[tuple[RegionId, str], int],
    served: Mapping[tuple[int, RegionId], int],
) -> None:
    for option in problem.regions:
        region = option.region.id
        capacity = [(rented[region, each.price.sku], float(each.replicas)) for each in option.instances]
        load = [(served[group, region], -problem.load_replicas(group)) for group in option.round_trips]
        programme.row([*capacity, *load], lower=0.0)
        # A region is used exactly where something runs in it, with traffic or (for availability) without.
        programme.row([*((column, 1.0) for column, _ in capacity), (used[region], -1.0)], lower=0.0)
        for column, _ in capacity:
            programme.row([(column, 1.0), (used[region], -programme.upper[column])], upper=0.0)


def _diversity_rows(problem: Problem, programme: _Programme, used: Mapping[RegionId, int]) -> None:
    request = problem.request
    if request.min_regions > 1:
        programme.row([(column, 1.0) for column in used.values()], lower=float(request.min_regions))
    if request.min_clouds > 1:
        clouds: dict[str, list[int]] = {}
        for option in problem.regions:
            clouds.setdefault(option.region.cloud, []).append(used[option.region.id])
        chosen: list[int] = []
        for columns in clouds.values():
            chosen.append(programme.column(0.0, 1.0, is_whole=True))
            programme.row([(chosen[-1], -1.0), *((column, 1.0) for column in columns)], lower=0.0)
        programme.row([(column, 1.0) for column in chosen], lower=float(request.min_clouds))


def _budget_row(
    problem: Problem,
    programme: _Programme,
    used: Mapping[RegionId, int],
    rented: Mapping[tuple[RegionId, str], int],
    served: Mapping[tuple[int, RegionId], int],
) -> None:
    request = problem.request
    if request.budget_usd_per_hour is None:
        return
    terms: list[tuple[int, float]] = []
    for option in problem.regions:
        region = option.region.id
        terms.append((used[region], option.replication_usd_per_hour))
        terms += [(rented[region, each.price.sku], each.usd_per_hour) for each in option.instances]
        for group in option.round_trips:
            requests = request.demand[group].requests_per_second * SECONDS_PER_HOUR
            terms.append((served[group, region], requests * option.egress_usd_per_request))
    programme.row(terms, upper=request.budget_usd_per_hour)


def _run(programme: _Programme) -> list[float] | None:
    try:
        import highspy
        import numpy as np
    except ImportError:
        raise MissingExtra(
            "Placement needs HiGHS, which is not installed.", hint="Run: pip install 'fairlead[server]'"
        ) from None
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(programme.cost), len(programme.row_lower)
    model.col_cost_ = np.array(programme.cost)
    model.col_lower_ = np.zeros(len(programme.cost))
    model.col_upper_ = np.array(programme.upper)
    model.row_lower_, model.row_upper_ = np.array(programme.row_lower), np.array(programme.row_upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.array(programme.start)
    model.a_matrix_.index_, model.a_matrix_.value_ = np.array(programme.index), np.array(programme.value)
    whole, real = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
    model.integrality_ = [whole if is_whole else real for is_whole in programme.is_whole]
    solver = highspy.Highs()
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", 1),
        ("mip_rel_gap", _RELATIVE_GAP),
        ("mip_abs_gap", _TIE_USD_PER_HOUR / 10),
        ("mip_feasibility_tolerance", 1e-9),
        ("primal_feasibility_tolerance", 1e-9),
    ):
        solver.setOptionValue(option, value)
    solver.passModel(model)
    solver.run()
    status = solver.getModelStatus()
    if status == highspy.HighsModelStatus.kOptimal:
        return [float(value) for value in solver.getSolution().col_value]
    if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return None
    raise FairleadError(f"The solver stopped without an answer: {solver.modelStatusToString(status)}.")


def _read(
    problem: Problem,
    values: Sequence[float],
    rented: Mapping[tuple[RegionId, str], int],
    served: Mapping[tuple[int, RegionId], int],
) -> Solution:
    instances = {key: round(values[column]) for key, column in rented.items() if values[column] > 0.5}
    shares: dict[tuple[int, RegionId], float] = {}
    for group in range(len(problem.request.demand)):
        found = {region: values[column] for (index, region), column in served.items() if index == group}
        # A millionth of a group's requests is the solver's dust, not a decision.
        kept = {region: round(share, SHARE_DECIMALS) for region, share in found.items() if share >= _LEAST_SHARE}
        # What that took or gave goes to the largest share, so that the shares of a group are exactly one.
        largest = max(kept, key=lambda region: (kept[region], region))
        kept[largest] = round(1.0 - sum(share for region, share in kept.items() if region != largest), SHARE_DECIMALS)
        shares.update({(group, region): share for region, share in sorted(kept.items())})
    regions = tuple(sorted({region for region, _ in instances}))
    return Solution(regions=regions, instances=instances, shares=shares)
