"""From lots back to groups: who is answered where, once it is known how much each region answers.

Requests of one lot cost the same in any region of the answer, group by group, so they go where they wait least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairlead.core.ids import RegionId
from fairlead.serving.placement_options import Problem
from fairlead.serving.placement_programme import Programme, minimise
from fairlead.serving.placement_pruning import Lot

SHARE_DECIMALS = 9
_LEAST_SHARE = 1e-6


def split_lots(problem: Problem, lots: Sequence[tuple[Lot, Mapping[int, float]]]) -> dict[tuple[int, RegionId], float]:
    """Each group's shares by region; a lot's `shares` by region are of all its requests, and each group's sum to 1."""
    found: dict[int, dict[int, float]] = {group: {} for group in range(len(problem.request.demand))}
    for lot, shares in lots:
        kept = {region: share for region, share in shares.items() if share >= _LEAST_SHARE}
        scale = sum(kept.values())
        kept = {region: share / scale for region, share in kept.items()}
        for parcel, region, share in _nearest_first(problem, lot, kept):
            group = problem.parcels[parcel].group
            found[group][region] = found[group].get(region, 0.0) + share * problem.parcels[parcel].share
    answer: dict[tuple[int, RegionId], float] = {}
    for group, shares in found.items():
        # A millionth of a group's requests is the solver's dust, not a decision.
        kept = {region: round(share, SHARE_DECIMALS) for region, share in shares.items() if share >= _LEAST_SHARE}
        # What that took or gave goes to the largest share, so that the shares of a group are exactly one.
        largest = max(kept, key=lambda region: (kept[region], region))
        kept[largest] = round(1.0 - sum(share for region, share in kept.items() if region != largest), SHARE_DECIMALS)
        answer.update({(group, problem.regions[region].region.id): share for region, share in sorted(kept.items())})
    return answer


def _nearest_first(problem: Problem, lot: Lot, shares: Mapping[int, float]) -> list[tuple[int, int, float]]:
    """(parcel, region, share of the parcel), with the least waiting that keeps each region's part of the lot."""
    if len(lot.parcels) == 1 or len(shares) == 1:
        return [(parcel, region, share) for parcel in lot.parcels for region, share in shares.items()]
    programme = Programme()
    columns: dict[tuple[int, int], int] = {}
    for parcel in lot.parcels:
        each = problem.parcels[parcel]
        for region in shares:
            away = problem.regions[region].round_trips[each.group].value
            columns[parcel, region] = programme.column(each.load_replicas * away, 1.0)
        programme.row([(columns[parcel, region], 1.0) for region in shares], lower=1.0, upper=1.0)
    *some, _ = shares  # the last region's part follows from the others'
    for region in some:
        part = shares[region] * lot.load_replicas
        terms = [(columns[parcel, region], problem.parcels[parcel].load_replicas) for parcel in lot.parcels]
        programme.row(terms, lower=part * (1 - _LEAST_SHARE), upper=part * (1 + _LEAST_SHARE))
    values = minimise(programme, relative_gap=0.0)
    if values is None:  # the parts add up, so this is the arithmetic's dust: every parcel is split alike
        return [(parcel, region, share) for parcel in lot.parcels for region, share in shares.items()]
    return [(parcel, region, values.columns[column]) for (parcel, region), column in columns.items()]
