"""How much of the demand a placement is expected to answer, when regions fail one by one and come back.

    A = sum over sets L of at most two lost regions:  prod(1 - A[r] for r in L) x prod(A[r] for r not in L) x f(L)

f(L) is the share of the demand that the room left answers within every limit. Three regions lost at once count as
nothing answered, so A is a lower bound, and so is each A[r]: what the clouds' service level agreements promise for
instances of one region, not what anybody measured. Regions are taken to fail apart from each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

from fairlead.catalog import Figure
from fairlead.core.ids import RegionId
from fairlead.serving.placement_model import Solution
from fairlead.serving.placement_options import Problem
from fairlead.serving.placement_survival import answered

AVAILABILITY_METHOD = (
    "sum over losses of at most two regions of their probability x the share of demand that the rest answers; regions "
    "fail apart from each other, each as often as its service level agreement allows"
)
_MOST_LOST = 2
_DECIMALS = 8
_UNPROMISED = Figure(value=99.0, unit="%", source="assumed: no agreement is known for this cloud", is_estimate=True)
# (one instance, several instances spread over the region's zones), in per cent of a month.
_PROMISED = MappingProxyType(
    {
        "aws": (99.5, 99.99, "Amazon Compute Service Level Agreement, instance and region level, 2022-05"),
        "gcp": (99.9, 99.99, "Compute Engine Service Level Agreement, one instance and several zones, 2024-06"),
        "azure": (
            99.9,
            99.99,
            "Azure SLA for Online Services, one VM with premium disks and VMs in two zones, 2024-11",
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """The expected share of requests that are answered, and what each region was taken to be up, in per cent."""

    expected: float
    by_region: Mapping[RegionId, Figure]


def availability_of(problem: Problem, solution: Solution) -> Availability:
    """What to expect of a placement."""
    index = {option.region.id: number for number, option in enumerate(problem.regions)}
    room = dict.fromkeys(solution.regions, 0.0)
    counts = dict.fromkeys(solution.regions, 0)
    for region in solution.regions:
        for each in problem.regions[index[region]].instances:
            count = solution.instances.get(each.key, 0)
            counts[region] += count
            room[region] += count * each.room
    by_region = {region: _promised(region, counts[region]) for region in solution.regions}
    up = {region: figure.value / 100 for region, figure in by_region.items()}
    total = problem.load_replicas
    expected = 0.0
    for lost in range(min(_MOST_LOST, len(up)) + 1):
        for gone in combinations(sorted(up), lost):
            chance = 1.0
            for region, share in up.items():
                chance *= 1 - share if region in gone else share
            left = {index[region]: 0.0 if region in gone else space for region, space in room.items()}
            expected += chance * (answered(problem, left)[0] / total)
    return Availability(expected=round(min(expected, 1.0), _DECIMALS), by_region=by_region)


def _promised(region: RegionId, instances: int) -> Figure:
    promised = _PROMISED.get(region.partition(":")[0])
    if promised is None:
        return _UNPROMISED
    one, several, source = promised
    return Figure(value=one if instances == 1 else several, unit="%", source=source, is_estimate=True)
