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
from fairlead.serving.placement_availability import Availability, availability_of
from fairlead.serving.placement_copies import Copy
from fairlead.serving.placement_model import Solution
from fairlead.serving.placement_options import (
    GRAMS_PER_TONNE,
    SECONDS_PER_HOUR,
    InstanceOption,
    Problem,
    RegionOption,
    Rejection,
    RentKey,
    limit_of_round_trip,
)
from fairlead.serving.placement_request import PlacementRequest
from fairlead.serving.placement_shares import SHARE_DECIMALS

_USD_DECIMALS = 6
_GRAM_DECIMALS = 3
_MS_DECIMALS = 1
_MEDIAN = 0.5
_PERCENTILE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a placement costs in an hour.

    `cost_usd` is the sum of the three costs somebody bills hour by hour; `objective_usd` adds what carbon and waiting
    are priced at and what moving there costs, spread over its horizon. `carbon_g` is the sum of the three emissions, in
    gCO2e.
    """

    compute_usd: float
    serving_egress_usd: float
    replication_usd: float
    cost_usd: float
    carbon_usd: float
    latency_usd: float
    switching_usd: float
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
    """So many instances of one type, each with room for `replicas` replicas and drawing `power` before PUE.

    `accelerator_share` is how many boards each replica has. Where other models share the instances, `part` of each is
    this one's, by the resource that it takes most of, and so are the dollars and grams.
    """

    sku: str
    is_spot: bool
    count: int
    replicas: int
    accelerator: str | None
    accelerator_share: float
    price: Figure
    power: Figure
    compute_usd: float
    compute_g: float
    part: float
    shared_with: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyChoice:
    """Where a region gets one cargo (`model`, `features`) from, and what that costs and emits in an hour."""

    cargo: str
    source: RegionId
    tariff: Figure
    usd: float
    g: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One chosen region: what runs there, whom it serves, and what an hour of it costs and emits.

    `shares` holds, by area, the share of that area's requests answered here. `replicate_from` is where the model's copy
    comes from; `copies` has it and the features'.
    """

    region: RegionId
    jurisdiction: str
    instances: tuple[InstanceChoice, ...]
    shares: Mapping[str, float]
    replicas: int
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
    copies: tuple[CopyChoice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAnswer:
    """How one area is served: shares by region (they sum to 1) and the latency its requests see.

    `mean_ms` is weighted by share; `p50_ms` and `p95_ms` are the least latency that at least 50 and 95 % of the
    requests keep within: the network round trip, plus `processing_ms` where the request gives it. `within_limit` is the
    share of the requests that keep the limit.
    """

    area: str
    requests_per_second: float
    latency_limit_ms: float | None
    shares: Mapping[RegionId, float]
    round_trips: Mapping[RegionId, Figure]
    mean_ms: float
    p50_ms: float
    p95_ms: float
    within_limit: float
    latency_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One complete answer to where, how much and for whom."""

    regions: tuple[RegionId, ...]
    choices: tuple[Choice, ...]
    groups: tuple[GroupAnswer, ...]
    terms: Terms
    availability: Availability


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
class SwitchingAnswer:
    """Whether to leave the regions that run now: `gain_usd_per_hour` is what moving saves after it is paid for.

    `stay` is the least objective without a change of regions, None where they cannot satisfy the request any more.
    """

    is_moving: bool
    stay_usd_per_hour: float | None
    move_usd_per_hour: float
    gain_usd_per_hour: float | None
    moving_usd: float
    horizon_hours: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementAnswer:
    """The placement, what bound it, what came second, why every other region was left, and where the figures are from.

    `relative_gap` is what the solver left unproven: no placement's objective is lower by more than that share.
    `is_explained` is false where nobody looked for a runner-up and bounds. `switching` says whether to move,
    where the request says what runs now. `sources` are those of every figure used; `estimates` are the ones among them
    that nobody measured or published.
    """

    placement: Placement
    relative_gap: float
    is_explained: bool
    switching: SwitchingAnswer | None
    runner_up: RunnerUp | None
    bounds: tuple[Bound, ...]
    rejected: tuple[Rejection, ...]
    sources: tuple[str, ...]
    estimates: tuple[str, ...]
    methods: Mapping[str, str]

    def to_json(self) -> dict[str, JsonValue]:
        """The whole answer as plain JSON, fields under their own names."""
        return cast("dict[str, JsonValue]", to_plain(self))


def price_solution(problem: Problem, solution: Solution) -> Placement:
    """Put prices on what the solver decided."""
    options = {option.region.id: option for option in problem.regions}
    choices = tuple(_choice(problem, solution, options[region]) for region in solution.regions)
    groups = tuple(_group(problem, solution, index) for index in range(len(problem.request.demand)))
    return Placement(
        regions=solution.regions,
        choices=choices,
        groups=groups,
        terms=_terms(problem.request, choices, groups),
        availability=availability_of(problem, solution),
    )


def moving_usd(request: PlacementRequest, instances: Mapping[RentKey, tuple[int, float]]) -> float:
    """What moving to these instances (count and USD/h of one, by what is rented) costs once; 0 where nothing runs."""
    switching = request.switching
    if switching is None:
        return 0.0
    running = {RentKey(each.region, each.sku, each.is_spot): each.count for each in switching.current}
    before, after = {key.region for key in running}, {key.region for key in instances}
    beside = sum(
        max(0, count - running.get(key, 0)) * rent * switching.overlap_hours for key, (count, rent) in instances.items()
    )
    started = len(after - before) * switching.start_region_usd
    return started + len(before - after) * switching.stop_region_usd + beside


def figures_of(placement: Placement) -> Iterable[Figure]:
    """Every catalog figure that a placement rests on."""
    for choice in placement.choices:
        yield from (choice.internet_egress, choice.grid, choice.pue)
        yield from (copy.tariff for copy in choice.copies)
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
        _instance(request, each, solution.instances[each.key])
        for each in option.instances
        if each.key in solution.instances
    )
    replicas = sum(each.count * each.replicas for each in instances)
    room = sum(solution.instances.get(each.key, 0) * each.room for each in option.instances)
    hourly = load * SECONDS_PER_HOUR
    copies = tuple(_copy(copy) for copy in solution.copies if copy.destination == region.id)
    model = next((copy for copy in copies if copy.cargo == "model"), None)
    return Choice(
        region=region.id,
        jurisdiction=region.jurisdiction,
        instances=instances,
        shares={request.demand[group].area: share for group, share in sorted(here.items())},
        replicas=replicas,
        load_requests_per_second=round(load, 6),
        capacity_requests_per_second=round(room * request.resources.requests_per_second_per_replica, 6),
        compute_usd=_rounded((each.compute_usd for each in instances), _USD_DECIMALS),
        serving_egress_usd=round(hourly * option.egress_usd_per_request, _USD_DECIMALS),
        replication_usd=_rounded((copy.usd for copy in copies), _USD_DECIMALS),
        compute_g=_rounded((each.compute_g for each in instances), _GRAM_DECIMALS),
        serving_egress_g=round(hourly * option.egress_grams_per_request, _GRAM_DECIMALS),
        replication_g=_rounded((copy.g for copy in copies), _GRAM_DECIMALS),
        internet_egress=option.internet_egress,
        grid=region.carbon,
        pue=region.pue,
        replicate_from=None if model is None else model.source,
        replication_tariff=None if model is None else model.tariff,
        copies=copies,
    )


def _copy(copy: Copy) -> CopyChoice:
    return CopyChoice(
        cargo=copy.cargo,
        source=copy.source,
        tariff=copy.tariff,
        usd=round(copy.usd_per_hour, _USD_DECIMALS),
        g=round(copy.grams_per_hour, _GRAM_DECIMALS),
    )


def _instance(request: PlacementRequest, option: InstanceOption, count: int) -> InstanceChoice:
    return InstanceChoice(
        sku=option.price.sku,
        is_spot=option.key.is_spot,
        count=count,
        replicas=option.replicas,
        accelerator=option.price.accelerator,
        accelerator_share=request.resources.accelerator_share if option.price.accelerator else 0.0,
        price=option.rent,
        power=option.power,
        compute_usd=round(count * option.usd_per_hour, _USD_DECIMALS),
        compute_g=round(count * option.grams_per_hour, _GRAM_DECIMALS),
        part=round(option.part, _USD_DECIMALS),
        shared_with=option.shared_with,
    )


def _group(problem: Problem, solution: Solution, index: int) -> GroupAnswer:
    request = problem.request
    demand, own = request.demand[index], request.resources.processing_ms
    shares = {region: share for (group, region), share in solution.shares.items() if group == index}
    away = {option.region.id: option.round_trips[index] for option in problem.regions if option.region.id in shares}
    mean = sum(share * away[region].value for region, share in shares.items())
    waited_seconds = demand.requests_per_second * SECONDS_PER_HOUR * mean / 1000
    limit = limit_of_round_trip(request, demand)
    return GroupAnswer(
        area=demand.area,
        requests_per_second=demand.requests_per_second,
        latency_limit_ms=demand.latency_limit_ms,
        shares=shares,
        round_trips=away,
        mean_ms=round(mean + own, _MS_DECIMALS),
        p50_ms=round(_percentile(shares, away, _MEDIAN) + own, _MS_DECIMALS),
        p95_ms=round(_percentile(shares, away, _PERCENTILE) + own, _MS_DECIMALS),
        within_limit=round(
            sum(share for region, share in shares.items() if away[region].value <= limit), SHARE_DECIMALS
        ),
        latency_usd=round(waited_seconds * request.latency_price_usd_per_request_second, _USD_DECIMALS),
    )


def _percentile(shares: Mapping[RegionId, float], away: Mapping[RegionId, Figure], part: float) -> float:
    served = 0.0
    for region in sorted(shares, key=lambda each: away[each].value):
        served = round(served + shares[region], SHARE_DECIMALS)
        if served >= part:
            return away[region].value
    return max(away[region].value for region in shares)


def _terms(request: PlacementRequest, choices: tuple[Choice, ...], groups: tuple[GroupAnswer, ...]) -> Terms:
    compute = _rounded((each.compute_usd for each in choices), _USD_DECIMALS)
    egress = _rounded((each.serving_egress_usd for each in choices), _USD_DECIMALS)
    replication = _rounded((each.replication_usd for each in choices), _USD_DECIMALS)
    compute_g = _rounded((each.compute_g for each in choices), _GRAM_DECIMALS)
    egress_g = _rounded((each.serving_egress_g for each in choices), _GRAM_DECIMALS)
    replication_g = _rounded((each.replication_g for each in choices), _GRAM_DECIMALS)
    carbon_g = _rounded((compute_g, egress_g, replication_g), _GRAM_DECIMALS)
    cost = _rounded((compute, egress, replication), _USD_DECIMALS)
    carbon = round(carbon_g * request.carbon_price_usd_per_tonne / GRAMS_PER_TONNE, _USD_DECIMALS)
    latency = _rounded((each.latency_usd for each in groups), _USD_DECIMALS)
    rents = {
        RentKey(choice.region, each.sku, each.is_spot): (each.count, each.price.value)
        for choice in choices
        for each in choice.instances
    }
    horizon = 1.0 if request.switching is None else request.switching.horizon_hours
    switching = round(moving_usd(request, rents) / horizon, _USD_DECIMALS)
    return Terms(
        compute_usd=compute,
        serving_egress_usd=egress,
        replication_usd=replication,
        cost_usd=cost,
        carbon_usd=carbon,
        latency_usd=latency,
        switching_usd=switching,
        objective_usd=_rounded((cost, carbon, latency, switching), _USD_DECIMALS),
        compute_g=compute_g,
        serving_egress_g=egress_g,
        replication_g=replication_g,
        carbon_g=carbon_g,
    )


def _rounded(values: Iterable[float], decimals: int) -> float:
    """The sum of decimals of that many places, free of binary dust."""
    return round(sum(values), decimals) + 0.0


def to_plain(value: object) -> JsonValue:
    """Records, figures, mappings and tuples as plain JSON, fields under their own names."""
    if isinstance(value, Figure):
        return value.to_json()
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, tuple):
        return [to_plain(item) for item in cast("tuple[object, ...]", value)]
    return cast("JsonValue", value)
