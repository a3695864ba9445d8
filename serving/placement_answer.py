"""What a placement answers: the choice, its price term by term, and why nothing else was chosen.

Dollars are rounded to a millionth and grams to a thousandth of a unit where they first appear, and every total is the
sum of the rounded terms: what is shown adds up, exactly as it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import cast

from fairlead.catalog import Figure
from fairlead.core.errors import JsonValue
from fairlead.core.ids import RegionId
from fairlead.serving.placement_model import SHARE_DECIMALS, Solution
from fairlead.serving.placement_options import (
    GRAMS_PER_TONNE,
    SECONDS_PER_HOUR,
    InstanceOption,
    Problem,
    RegionOption,
    Rejection,
)

_USD_DECIMALS = 6
_GRAM_DECIMALS = 3
_MS_DECIMALS = 1
_PERCENTILE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a placement costs in an hour.

    `cost_usd` is the sum of the three costs somebody bills; `objective_usd` adds what carbon and waiting are priced at,
    and is what the solver minimised. `carbon_g` is the sum of the three emissions, in gCO2e.
    """

    compute_usd: float
    serving_egress_usd: float
    replication_usd: float
    cost_usd: float
    carbon_usd: float
    latency_usd: float
    objective_usd: float
    compute_g: float
    serving_egress_g: float
    replication_g: float
    carbon_g: float

    def minus(self, other: Terms) -> Terms:
        """The difference of every term."""
        return Terms(
            **{
                field.name: _rounded(
                    (getattr(self, field.name), -getattr(other, field.name)),
                    _GRAM_DECIMALS if field.name.endswith("_g") else _USD_DECIMALS,
                )
                for field in fields(Terms)
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceChoice:
    """So many instances of one type, each with room for `replicas` replicas and drawing `power` before PUE."""

    sku: str
    count: int
    replicas: int
    accelerator: str | None
    price: Figure
    power: Figure
    compute_usd: float
    compute_g: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One chosen region: what runs there, whom it serves, and what an hour of it costs and emits.

    `shares` holds, by area, the share of that area's requests answered here.
    """

    region: RegionId
    jurisdiction: str
    instances: tuple[InstanceChoice, ...]
    shares: Mapping[str, float]
    load_requests_per_second: float
    capacity_requests_per_second: float
    compute_usd: float
    serving_egress_usd: float
    replication_usd: float
    compute_g: float
    serving_egress_g: float
    replication_g: float
    internet_egress: Figure
    grid: Figure
    pue: Figure
    replicate_from: RegionId | None
    replication_tariff: Figure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAnswer:
    """How one area is served: shares by region (they sum to 1) and the network round trip its requests see.

    `mean_ms` is weighted by share; `p95_ms` is the smallest round trip that at least 95 % of the requests keep within.
    Both leave out the time the model takes.
    """

    area: str
    requests_per_second: float
    latency_limit_ms: float | None
    shares: Mapping[RegionId, float]
    round_trips: Mapping[RegionId, Figure]
    mean_ms: float
    p95_ms: float
    latency_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One complete answer to where, how much and for whom."""

    regions: tuple[RegionId, ...]
    choices: tuple[Choice, ...]
    groups: tuple[GroupAnswer, ...]
    terms: Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerUp:
    """The best placement on any other set of regions; `difference` is its terms minus the chosen ones."""

    placement: Placement
    difference: Terms
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A limit that the answer presses against: without it (or, for a count, with one less) the objective would fall."""

    limit: str
    detail: str
    saves_usd_per_hour: float
    regions: tuple[RegionId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementAnswer:
    """The placement, what bound it, what came second, why every other region was left, and where the figures are from.

    `sources` are those of every figure used; `estimates` are the ones among them that nobody measured or published.
    """

    placement: Placement
    runner_up: RunnerUp | None
    bounds: tuple[Bound, ...]
    rejected: tuple[Rejection, ...]
    sources: tuple[str, ...]
    estimates: tuple[str, ...]
    methods: Mapping[str, str]

    def to_json(self) -> dict[str, JsonValue]:
        """The whole answer as plain JSON, fields under their own names."""
        return cast("dict[str, JsonValue]", _plain(self))


def price_solution(problem: Problem, solution: Solution) -> Placement:
    """Put prices on what the solver decided."""
    options = {option.region.id: option for option in problem.regions}
    choices = tuple(_choice(problem, solution, options[region]) for region in solution.regions)
    groups = tuple(_group(problem, solution, index) for index in range(len(problem.request.demand)))
    return Placement(regions=solution.regions, choices=choices, groups=groups, terms=_terms(problem, choices, groups))


def figures_of(placement: Placement) -> Iterable[Figure]:
    """Every catalog figure that a placement rests on."""
    for choice in placement.choices:
        yield from (choice.internet_egress, choice.grid, choice.pue)
        if choice.replication_tariff is not None:
            yield choice.replication_tariff
        for instance in choice.instances:
            yield from (instance.price, instance.power)
    for group in placement.groups:
        yield from group.round_trips.values()


def _choice(problem: Problem, solution: Solution, option: RegionOption) -> Choice:
    request = problem.request
    region = option.region
    here = {group: share for (group, where), share in solution.shares.items() if where == region.id}
    load = sum(request.demand[group].requests_per_second * share for group, share in here.items())
    instances = tuple(
        _instance(each, solution.instances[region.id, each.price.sku])
        for each in option.instances
        if (region.id, each.price.sku) in solution.instances
    )
    replicas = sum(each.count * each.replicas for each in instances)
    hourly = load * SECONDS_PER_HOUR
    return Choice(
        region=region.id,
        jurisdiction=region.jurisdiction,
        instances=instances,
        shares={request.demand[group].area: share for group, share in sorted(here.items())},
        load_requests_per_second=round(load, 6),
        capacity_requests_per_second=replicas * request.resources.requests_per_second_per_replica,
        compute_usd=_rounded((each.compute_usd for each in instances), _USD_DECIMALS),
        serving_egress_usd=round(hourly * option.egress_usd_per_request, _USD_DECIMALS),
        replication_usd=round(option.replication_usd_per_hour, _USD_DECIMALS),
        compute_g=_rounded((each.compute_g for each in instances), _GRAM_DECIMALS),
        serving_egress_g=round(hourly * option.egress_grams_per_request, _GRAM_DECIMALS),
        replication_g=round(option.replication_grams_per_hour, _GRAM_DECIMALS),
        internet_egress=option.internet_egress,
        grid=region.carbon,
        pue=region.pue,
        replicate_from=option.replicate_from,
        replication_tariff=option.replication_tariff,
    )


def _instance(option: InstanceOption, count: int) -> InstanceChoice:
    return InstanceChoice(
        sku=option.price.sku,
        count=count,
        replicas=option.replicas,
        accelerator=option.price.accelerator,
        price=option.price.on_demand,
        power=option.power,
        compute_usd=round(count * option.usd_per_hour, _USD_DECIMALS),
        compute_g=round(count * option.grams_per_hour, _GRAM_DECIMALS),
    )


def _group(problem: Problem, solution: Solution, index: int) -> GroupAnswer:
    demand = problem.request.demand[index]
    shares = {region: share for (group, region), share in solution.shares.items() if group == index}
    away = {option.region.id: option.round_trips[index] for option in problem.regions if option.region.id in shares}
    mean = sum(share * away[region].value for region, share in shares.items())
    served = 0.0
    p95 = 0.0
    for region in sorted(shares, key=lambda each: away[each].value):
        served = round(served + shares[region], SHARE_DECIMALS)
        p95 = away[region].value
        if served >= _PERCENTILE:
            break
    waited_seconds = demand.requests_per_second * SECONDS_PER_HOUR * mean / 1000
    return GroupAnswer(
        area=demand.area,
        requests_per_second=demand.requests_per_second,
        latency_limit_ms=demand.latency_limit_ms,
        shares=shares,
        round_trips=away,
        mean_ms=round(mean, _MS_DECIMALS),
        p95_ms=round(p95, _MS_DECIMALS),
        latency_usd=round(waited_seconds * problem.request.latency_price_usd_per_request_second, _USD_DECIMALS),
    )


def _terms(problem: Problem, choices: tuple[Choice, ...], groups: tuple[GroupAnswer, ...]) -> Terms:
    compute = _rounded((each.compute_usd for each in choices), _USD_DECIMALS)
    egress = _rounded((each.serving_egress_usd for each in choices), _USD_DECIMALS)
    replication = _rounded((each.replication_usd for each in choices), _USD_DECIMALS)
    compute_g = _rounded((each.compute_g for each in choices), _GRAM_DECIMALS)
    egress_g = _rounded((each.serving_egress_g for each in choices), _GRAM_DECIMALS)
    replication_g = _rounded((each.replication_g for each in choices), _GRAM_DECIMALS)
    carbon_g = _rounded((compute_g, egress_g, replication_g), _GRAM_DECIMALS)
    cost = _rounded((compute, egress, replication), _USD_DECIMALS)
    carbon = round(carbon_g * problem.request.carbon_price_usd_per_tonne / GRAMS_PER_TONNE, _USD_DECIMALS)
    latency = _rounded((each.latency_usd for each in groups), _USD_DECIMALS)
    return Terms(
        compute_usd=compute,
        serving_egress_usd=egress,
        replication_usd=replication,
        cost_usd=cost,
        carbon_usd=carbon,
        latency_usd=latency,
        objective_usd=_rounded((cost, carbon, latency), _USD_DECIMALS),
        compute_g=compute_g,
        serving_egress_g=egress_g,
        replication_g=replication_g,
        carbon_g=carbon_g,
    )


def _rounded(values: Iterable[float], decimals: int) -> float:
    """The sum of decimals of that many places, free of binary dust."""
    return round(sum(values), decimals) + 0.0


def _plain(value: object) -> JsonValue:
    if isinstance(value, Figure):
        return value.to_json()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    return cast("JsonValue", value)
