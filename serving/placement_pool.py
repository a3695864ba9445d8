"""Small models that share accelerators: where each runs and which of them run together, decided at once.

    Y[m,r]    1 where model m runs in region r
    X[m,g,r]  share of a parcel of its requests that the region answers
    N[r,o,p]  instances of type o filled by pattern p, whole

A pattern holds models that may all be in the region, so packing breaks no rule of any of them. The regions looked at
are the cheapest for each parcel and the cheapest of all, not the whole catalog; among them the answer is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fairlead.catalog import Catalog, Price
from fairlead.catalog.power import instance_power
from fairlead.core.errors import InvalidInput
from fairlead.core.ids import RegionId
from fairlead.serving.placement_answer import price_solution
from fairlead.serving.placement_blocks import FLEET_GAP, Plan, quotas_touched
from fairlead.serving.placement_model import Solution, aim_of
from fairlead.serving.placement_options import (
    UTILIZATION,
    InstanceOption,
    Problem,
    RegionOption,
    RentKey,
    build_problem,
    use_of,
)
from fairlead.serving.placement_packing import Pattern, full_patterns
from fairlead.serving.placement_programme import Programme, Values, minimise
from fairlead.serving.placement_request import PlacementRequest, Quota, Resources
from fairlead.serving.placement_shares import SHARE_DECIMALS

_REGIONS_OF_A_PARCEL = 3
_REGIONS_OF_ALL = 6
_UNPOOLED = ("survive", "spot", "switching", "budget_usd_per_hour", "carbon_budget_g_per_hour")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filled:
    """Instances of one type in one region, filled by one pattern over the models that may be there."""

    region: RegionId
    price: Price
    models: tuple[str, ...]
    pattern: Pattern
    grams_per_hour: float
    column: int


class PoolBlock:
    """Models that run side by side on the same instances."""

    def __init__(
        self, name: str, requests: Mapping[str, PlacementRequest], catalog: Catalog, quotas: Sequence[Quota]
    ) -> None:
        self.name = name
        self._catalog = catalog
        check_pool(name, requests)
        self._problems = {model: build_problem(request, catalog) for model, request in sorted(requests.items())}
        self._regions = _regions_of(self._problems.values())
        self.may_use = frozenset[int]().union(*(quotas_touched(each, quotas) for each in self._problems.values()))

    def plan(self, quotas: Sequence[Quota], prices: Sequence[float], *, within: Sequence[float] | None) -> Plan | None:
        """See `Block`."""
        if any(not parcel.regions for problem in self._problems.values() for parcel in problem.parcels):
            return None
        built = _Built(self._problems, self._regions, self._catalog)
        programme = built.programme
        for each in built.filled:
            uses = [use_of(quota, _option(each, ())) for quota in quotas]
            programme.cost[each.column] += sum(use * price for use, price in zip(uses, prices, strict=True))
        for index, quota in enumerate(quotas if within is not None else ()):
            terms = [(each.column, use_of(quota, _option(each, ()))) for each in built.filled]
            programme.row(terms, upper=max(0.0, (within or ())[index]))
        values = minimise(programme, relative_gap=FLEET_GAP)
        if values is None:
            return None
        return built.plan(values, quotas)


def check_pool(name: str, requests: Mapping[str, PlacementRequest]) -> None:
    """Refuse models that cannot share an instance, and what a pool cannot promise.

    Raises:
        InvalidInput: naming the model and the member.
    """
    kinds = {(each.resources.accelerator, each.resources.architecture) for each in requests.values()}
    if len(kinds) > 1:
        raise InvalidInput(
            f"The models of pool {name!r} ask for different accelerators or architectures.",
            hint="Give a pool to models that run on the same kind of instance.",
        )
    for model, request in requests.items():
        plain = PlacementRequest(demand=request.demand, resources=request.resources)
        for member in _UNPOOLED:
            if getattr(request, member) != getattr(plain, member):
                raise InvalidInput(f"{model}: {member} is not for a model that shares instances (pool {name!r}).")


class _Built:
    """A pool as a programme, and the way back."""

    def __init__(self, problems: Mapping[str, Problem], regions: Sequence[RegionId], catalog: Catalog) -> None:
        self._problems = problems
        self.programme = Programme()
        self.filled: list[_Filled] = []
        self._runs: dict[tuple[str, RegionId], int] = {}
        self._shares: dict[tuple[str, int, RegionId], int] = {}
        for region in regions:
            self._region(region, catalog)
        for model, problem in problems.items():
            self._model(model, problem)

    def _region(self, region: RegionId, catalog: Catalog) -> None:
        able = tuple(
            model
            for model, problem in self._problems.items()
            if any(each.region.id == region for each in problem.regions)
        )
        needs = tuple(self._problems[model].request.resources for model in able)
        grams_price = aim_of(self._problems[able[0]].request).grams
        first = len(self.filled)
        for price in catalog.prices(region):
            power = instance_power(price, utilization=UTILIZATION)
            kind = (needs[0].accelerator, needs[0].architecture)
            if power is None or (price.accelerator, price.architecture) != kind:
                continue
            where = catalog.region(region)
            grams = power.value / 1000 * where.pue.value * where.carbon.value
            usd = price.on_demand.value + grams_price * grams
            for pattern in full_patterns(price, needs):
                column = self.programme.column(usd, is_whole=True)
                self.filled.append(
                    _Filled(
                        region=region, price=price, models=able, pattern=pattern, grams_per_hour=grams, column=column
                    )
                )
        here = self.filled[first:]
        for index, model in enumerate(able):
            self._model_in_region(model, region, [(each.column, float(each.pattern[index])) for each in here])

    def _model_in_region(self, model: str, region: RegionId, room: Sequence[tuple[int, float]]) -> None:
        problem = self._problems[model]
        aim = aim_of(problem.request)
        place = next(index for index, each in enumerate(problem.regions) if each.region.id == region)
        option = problem.regions[place]
        copies = [copy for (_, where), copy in problem.directs.items() if where == region]
        runs = self.programme.column(
            sum(copy.usd_per_hour + aim.grams * copy.grams_per_hour for copy in copies), 1.0, is_whole=True
        )
        self._runs[model, region] = runs
        load: list[tuple[int, float]] = []
        for index, parcel in enumerate(problem.parcels):
            if place not in parcel.regions:
                continue
            per_request = option.egress_usd_per_request + aim.grams * option.egress_grams_per_request
            per_request += aim.request_seconds * option.round_trips[parcel.group].value / 1000
            column = self.programme.column(parcel.requests_per_hour * per_request, 1.0)
            self._shares[model, index, region] = column
            self.programme.row([(column, 1.0), (runs, -1.0)], upper=0.0)
            load.append((column, -parcel.load_replicas))
        self.programme.row([*room, *load], lower=0.0)
        self.programme.row([*room, (runs, -1.0)], lower=0.0)

    def _model(self, model: str, problem: Problem) -> None:
        for index in range(len(problem.parcels)):
            columns = [column for (name, parcel, _), column in self._shares.items() if (name, parcel) == (model, index)]
            self.programme.row([(column, 1.0) for column in columns], lower=1.0, upper=1.0)
        mine = {region: column for (name, region), column in self._runs.items() if name == model}
        self.programme.row([(column, 1.0) for column in mine.values()], lower=float(problem.request.min_regions))
        if problem.request.min_clouds > 1:
            clouds: list[tuple[int, float]] = []
            for cloud in sorted({region.partition(":")[0] for region in mine}):
                there = [(column, 1.0) for region, column in mine.items() if region.startswith(f"{cloud}:")]
                clouds.append((self.programme.column(0.0, 1.0, is_whole=True), 1.0))
                self.programme.row([(clouds[-1][0], -1.0), *there], lower=0.0)
            self.programme.row(clouds, lower=float(problem.request.min_clouds))

    def plan(self, values: Values, quotas: Sequence[Quota]) -> Plan:
        """The values of the columns as each model's placement."""
        chosen = [(each, round(values.columns[each.column])) for each in self.filled]
        rented = [(each, count) for each, count in chosen if count]
        uses = tuple(sum(count * use_of(quota, _option(each, ())) for each, count in rented) for quota in quotas)
        placements = {model: price_solution(*self._solution(model, rented, values)) for model in self._problems}
        return Plan(
            objective=round(sum(each.terms.objective_usd for each in placements.values()), 6),
            bound=values.bound,
            uses=uses,
            placements=placements,
        )

    def _solution(self, model: str, rented: Sequence[tuple[_Filled, int]], values: Values) -> tuple[Problem, Solution]:
        problem = self._problems[model]
        used = {
            region for (name, region), column in self._runs.items() if name == model and values.columns[column] > 0.5
        }
        resources = {name: each.request.resources for name, each in self._problems.items()}
        options: dict[RegionId, list[InstanceOption]] = {region: [] for region in used}
        instances: dict[RentKey, int] = {}
        for number, (each, count) in enumerate(rented):
            runs = {
                name: replicas
                for name, replicas in zip(each.models, each.pattern, strict=True)
                if replicas and values.columns[self._runs[name, each.region]] > 0.5
            }
            if each.region in used and model in runs:
                option = _option(each, _parts(each.price, runs, resources), model=model, number=number)
                option = replace(option, replicas=runs[model], room=float(runs[model]))
                options[each.region].append(option)
                instances[option.key] = count
        shares: dict[tuple[int, RegionId], float] = {}
        for (name, index, region), column in self._shares.items():
            if name == model and values.columns[column] > 1e-6:
                parcel = problem.parcels[index]
                key = (parcel.group, region)
                shares[key] = round(shares.get(key, 0.0) + values.columns[column] * parcel.share, SHARE_DECIMALS)
        for group in range(len(problem.request.demand)):
            mine = {key: share for key, share in shares.items() if key[0] == group}
            largest = max(mine, key=lambda key: (mine[key], key))
            shares[largest] = round(1 - sum(share for key, share in mine.items() if key != largest), SHARE_DECIMALS)
        regions: list[RegionOption] = [
            replace(each, instances=tuple(options.get(each.region.id, ()))) for each in problem.regions
        ]
        return replace(problem, regions=tuple(regions)), Solution(
            regions=tuple(sorted(used)),
            instances=instances,
            shares=shares,
            copies=tuple(copy for (_, where), copy in sorted(problem.directs.items()) if where in used),
            objective=math.nan,
            bound=math.nan,
            usd=math.nan,
            grams=math.nan,
            request_seconds=math.nan,
        )


def _regions_of(problems: Iterable[Problem]) -> tuple[RegionId, ...]:
    """The cheapest regions for each parcel of each model, and the cheapest of all."""
    kept: set[RegionId] = set()
    for problem in problems:
        rents = [
            (min((each.usd_per_hour / each.replicas for each in option.instances), default=math.inf), option.region.id)
            for option in problem.regions
        ]
        kept.update(region for _, region in sorted(rents)[:_REGIONS_OF_ALL])
        for parcel in problem.parcels:
            kept.update(region for _, region in sorted(rents[index] for index in parcel.regions)[:_REGIONS_OF_A_PARCEL])
    return tuple(sorted(kept))


def _parts(price: Price, runs: Mapping[str, int], resources: Mapping[str, Resources]) -> tuple[tuple[str, float], ...]:
    """What part of an instance is whose: by the resource that each model takes most of, so that the parts sum to 1."""
    taken: dict[str, float] = {}
    for name, replicas in runs.items():
        needs = resources[name]
        boards = needs.accelerator_share / price.accelerator_count if price.accelerator_count else 0.0
        taken[name] = replicas * max(needs.vcpus / price.vcpus, needs.memory_gib / price.memory_gib, boards)
    total = sum(taken.values())
    return tuple((name, part / total) for name, part in taken.items())


def _option(
    each: _Filled, parts: tuple[tuple[str, float], ...], *, model: str | None = None, number: int = 0
) -> InstanceOption:
    power = instance_power(each.price, utilization=UTILIZATION)
    if power is None:  # such an instance gave no column
        raise AssertionError(each.price.sku)
    part = dict(parts).get(model or "", 1.0)
    return InstanceOption(
        key=RentKey(each.region, f"{each.price.sku}#{number}" if model else each.price.sku),
        price=each.price,
        rent=each.price.on_demand,
        replicas=1,
        room=1.0,
        usd_per_hour=each.price.on_demand.value * part,
        power=power,
        grams_per_hour=each.grams_per_hour * part,
        part=part,
        shared_with=tuple(name for name, _ in parts if name != model),
    )
