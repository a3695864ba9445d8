"""From a request to a problem: the hard limits applied, and every coefficient the solver will see, with its source.

What a rule forbids never becomes a variable: a region outside the residency class is not dear, it is absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fairlead.catalog import Catalog, Figure, Price, Region, permits
from fairlead.catalog.figures import BYTES_PER_GB
from fairlead.catalog.power import instance_power
from fairlead.core.ids import RegionId
from fairlead.serving.placement_copies import Copy, cargos_of, direct_copy, relays_of
from fairlead.serving.placement_request import Demand, PlacementRequest, Quota, Resources, RunningInstances

UTILIZATION = 0.5
"""The share of full load at which instances are taken to run for their power; Cloud Carbon Footprint's assumption."""
GRAMS_PER_TONNE = 1_000_000
SECONDS_PER_HOUR = 3600
_FITS = 1e-9
_WHOLE_CATALOG = 16
"""From so many regions on, copies that are cheap beside the instances are priced straight from a holder."""
_CHEAP = 1e-4


class RentKey(NamedTuple):
    """What is rented: an instance type in a region, on demand or spot."""

    region: RegionId
    sku: str
    is_spot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceOption:
    """One instance type in one region: how many replicas it holds, dollars and gCO2e an hour.

    `room` is what counts of the replicas: all of them, or on spot the share of the time that the instance is there.
    Where models share the instance, `part` of it is this model's, and so are the dollars and grams.
    """

    key: RentKey
    price: Price
    rent: Figure
    replicas: int
    room: float
    usd_per_hour: float
    power: Figure
    grams_per_hour: float
    part: float = 1.0
    shared_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionOption:
    """One region that no rule forbids.

    `round_trips` holds a figure for each demand group (by its index) that the region may answer at all.
    """

    region: Region
    instances: tuple[InstanceOption, ...]
    round_trips: Mapping[int, Figure]
    internet_egress: Figure
    egress_usd_per_request: float
    egress_grams_per_request: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A part of one group's requests that the same regions may answer (indices into the problem's regions).

    A group whose limit holds for 95 % of its requests is two parcels: 95 % go only to regions within the limit.
    """

    group: int
    share: float
    load_replicas: float
    requests_per_hour: float
    regions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why a region was not chosen: the first rule that excludes it, or `not-chosen` where only the objective did."""

    region: RegionId
    rule: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is left to decide: regions in order of id, and the request they came from.

    `directs` is, by cargo and region, the copy from a holder for each region that lacks the cargo. `relays` are copies
    between regions that lack it; None where they are too cheap to sway the choice and are looked at after it.
    """

    request: PlacementRequest
    catalog: Catalog
    regions: tuple[RegionOption, ...]
    parcels: tuple[Parcel, ...]
    directs: Mapping[tuple[str, RegionId], Copy]
    relays: tuple[Copy, ...] | None
    rejected: tuple[Rejection, ...]

    @property
    def load_replicas(self) -> float:
        """The whole demand, in fully loaded replicas."""
        return sum(parcel.load_replicas for parcel in self.parcels)


def build_problem(request: PlacementRequest, catalog: Catalog) -> Problem:
    """Apply the hard limits in a fixed order and price what remains."""
    options: list[RegionOption] = []
    rejected: list[Rejection] = []
    directs: dict[tuple[str, RegionId], Copy] = {}
    for region in sorted(catalog.regions(), key=lambda each: each.id):
        reason = _forbidden(request, region) or _unable(request, catalog, region)
        if reason is None:
            fed, reason = _fed(request, catalog, region)
            directs.update(fed)
        if reason is None:
            option = _option(request, catalog, region)
            reason = _too_far(request, catalog, option) if not option.round_trips else None
            if reason is None:
                options.append(option)
                continue
        directs = {key: copy for key, copy in directs.items() if key[1] != region.id}
        rejected.append(Rejection(region=region.id, rule=reason[0], detail=reason[1]))
    regions = tuple(options)
    parcels = _parcels(request, regions)
    return Problem(
        request=request,
        catalog=catalog,
        regions=regions,
        parcels=parcels,
        directs=directs,
        relays=None if _are_cheap(request, regions, directs) else relays_of(request, catalog, directs),
        rejected=tuple(rejected),
    )


def replicas_per_instance(price: Price, needs: Resources) -> int:
    """How many replicas fit one instance; none where architecture, accelerator or type is another.

    An instance with an accelerator is never rented for a model that needs none: it is the dearer way to get vCPUs, and
    the scarcer.
    """
    if price.accelerator != needs.accelerator or price.architecture != needs.architecture:
        return 0
    if needs.instance_types is not None and price.sku not in needs.instance_types:
        return 0
    # A hair of tolerance, so that 0.1 vCPU fits ten times into one.
    fits = math.floor(min(price.vcpus / needs.vcpus, price.memory_gib / needs.memory_gib) + _FITS)
    if needs.accelerator is None:
        return fits
    share = needs.accelerator_share
    # A replica with a part of a board has it on one board: two thirds twice do not fit into one and a third.
    boards = price.accelerator_count
    return min(fits, boards * math.floor(1 / share + _FITS) if share <= 1 else math.floor(boards / share + _FITS))


def use_of(quota: Quota, option: InstanceOption) -> float:
    """What one instance takes of a quota."""
    if quota.scope not in ("*", option.key.region, option.key.region.partition(":")[0]):
        return 0.0
    if quota.of == "vcpus":
        return float(option.price.vcpus)
    if quota.of == option.price.accelerator:
        return float(option.price.accelerator_count)
    return float(quota.of == option.price.sku)


def limit_of_round_trip(request: PlacementRequest, group: Demand) -> float:
    """The round trip in ms that leaves the model its own time within the group's limit."""
    limit = group.latency_limit_ms
    return math.inf if limit is None else limit - request.resources.processing_ms


def _forbidden(request: PlacementRequest, region: Region) -> tuple[str, str] | None:
    if not permits(request.residency, region.jurisdiction):
        return "residency", f"{region.jurisdiction} is outside residency class {request.residency!r}"
    if request.candidate_regions is not None and region.id not in request.candidate_regions:
        return "candidate-regions", "there is no location in it"
    if request.allowed_clouds is not None and region.cloud not in request.allowed_clouds:
        return "allowed-clouds", f"{region.cloud} is not among the allowed clouds"
    if region.cloud in request.denied_clouds:
        return "denied-clouds", f"{region.cloud} is denied"
    if request.allowed_regions is not None and region.id not in request.allowed_regions:
        return "allowed-regions", "it is not among the allowed regions"
    if region.id in request.denied_regions:
        return "denied-regions", "it is denied"
    return None


def _unable(request: PlacementRequest, catalog: Catalog, region: Region) -> tuple[str, str] | None:
    prices = catalog.prices(region.id)
    if any(replicas_per_instance(price, request.resources) for price in prices):
        return None
    if not prices:
        return "resources", "no source gives a price for its instances"
    needs = request.resources
    board = f" with {needs.accelerator_share:g} {needs.accelerator}" if needs.accelerator else ""
    size = f"{needs.vcpus:g} vCPU and {needs.memory_gib:g} GiB"
    return "resources", f"no priced {needs.architecture} instance holds {size}{board}"


def _fed(
    request: PlacementRequest, catalog: Catalog, region: Region
) -> tuple[dict[tuple[str, RegionId], Copy], tuple[str, str] | None]:
    fed: dict[tuple[str, RegionId], Copy] = {}
    for cargo in cargos_of(request):
        if region.id in cargo.holders:
            continue
        copy = direct_copy(request, catalog, cargo, region.id)
        if copy is None:
            hours = request.deadline_hours or 0
            return {}, ("deadline", f"no copy of the {cargo.name} is there within {hours:g} h")
        fed[cargo.name, region.id] = copy
    return fed, None


def _too_far(request: PlacementRequest, catalog: Catalog, option: RegionOption) -> tuple[str, str]:
    nearest = min(request.demand, key=lambda group: catalog.area_round_trip(group.area, option.region.id).value)
    away = catalog.area_round_trip(nearest.area, option.region.id)
    own = request.resources.processing_ms
    work = f" and the model takes {own:g} ms" if own else ""
    return (
        "latency",
        f"even {nearest.area} is {away} away{work}, over its limit of {nearest.latency_limit_ms or 0:g} ms",
    )


def _option(request: PlacementRequest, catalog: Catalog, region: Region) -> RegionOption:
    size = request.resources.bytes_per_request
    internet = catalog.internet_egress(region.id)
    round_trips: dict[int, Figure] = {}
    for index, group in enumerate(request.demand):
        away = catalog.area_round_trip(group.area, region.id)
        if group.share_within_limit < 1 or away.value <= limit_of_round_trip(request, group):
            round_trips[index] = away
    return RegionOption(
        region=region,
        instances=_instances(request, catalog, region),
        round_trips=round_trips,
        internet_egress=internet,
        egress_usd_per_request=size / BYTES_PER_GB * internet.value,
        egress_grams_per_request=catalog.internet_transfer_carbon(region.id, size).value,
    )


def _parcels(request: PlacementRequest, regions: tuple[RegionOption, ...]) -> tuple[Parcel, ...]:
    parcels: list[Parcel] = []
    for group, demand in enumerate(request.demand):
        limit = limit_of_round_trip(request, demand)
        able = tuple(index for index, option in enumerate(regions) if group in option.round_trips)
        within = tuple(index for index in able if regions[index].round_trips[group].value <= limit)
        held = demand.share_within_limit
        parts = [(1.0, able)] if within == able else [(held, within), (1.0 - held, able)]
        for share, where in parts:
            requests = demand.requests_per_second * share
            parcels.append(
                Parcel(
                    group=group,
                    share=share,
                    load_replicas=requests / request.resources.requests_per_second_per_replica,
                    requests_per_hour=requests * SECONDS_PER_HOUR,
                    regions=where,
                )
            )
    return tuple(parcels)


def _instances(request: PlacementRequest, catalog: Catalog, region: Region) -> tuple[InstanceOption, ...]:
    """The instance types that fit, without those that others beat in dollars, in carbon and in replicas alike."""
    found: list[InstanceOption] = []
    for price in catalog.prices(region.id):
        replicas = replicas_per_instance(price, request.resources)
        power = instance_power(price, utilization=UTILIZATION)
        if not replicas or power is None:
            continue
        grams = power.value / 1000 * region.pue.value * region.carbon.value
        for rent, is_spot in ((price.on_demand, False), (price.spot, True)):
            if rent is None or (is_spot and (request.spot is None or not request.spot.max_share)):
                continue
            present = request.spot.present if is_spot and request.spot is not None else 1.0
            found.append(
                InstanceOption(
                    key=RentKey(region.id, price.sku, is_spot),
                    price=price,
                    rent=rent,
                    replicas=replicas,
                    room=replicas * present,
                    usd_per_hour=rent.value,
                    power=power,
                    grams_per_hour=grams,
                )
            )
    running = {RentKey(each.region, each.sku, each.is_spot) for each in _running(request)}
    quotas = request.quotas
    return tuple(
        each
        for each in found
        if each.key in running or not any(_beats(other, each, quotas) for other in found if other is not each)
    )


def _running(request: PlacementRequest) -> tuple[RunningInstances, ...]:
    return () if request.switching is None else request.switching.current


def _beats(one: InstanceOption, other: InstanceOption, quotas: tuple[Quota, ...]) -> bool:
    """Whether some whole number of `one` does all that `other` does for no more; equals are told apart by sku."""
    if one.key.is_spot != other.key.is_spot:
        return False
    count = math.ceil(other.replicas / one.replicas)
    dollars, grams = count * one.usd_per_hour, count * one.grams_per_hour
    if dollars > other.usd_per_hour or grams > other.grams_per_hour:
        return False
    if any(count * use_of(quota, one) > use_of(quota, other) for quota in quotas):
        return False
    is_equal = count == 1 and (dollars, grams, one.replicas) == (
        other.usd_per_hour,
        other.grams_per_hour,
        other.replicas,
    )
    return not is_equal or one.price.sku < other.price.sku


def _are_cheap(
    request: PlacementRequest, regions: tuple[RegionOption, ...], directs: Mapping[tuple[str, RegionId], Copy]
) -> bool:
    """Whether all copies together cost too little beside the instances to sway a choice among many regions."""
    if len(regions) < _WHOLE_CATALOG:
        return False
    rate = request.resources.requests_per_second_per_replica
    replicas = sum(group.requests_per_second for group in request.demand) / rate
    rents = [each.usd_per_hour / each.replicas for option in regions for each in option.instances]
    price = request.carbon_price_usd_per_tonne / GRAMS_PER_TONNE
    copies = sum(copy.usd_per_hour + price * copy.grams_per_hour for copy in directs.values())
    return copies <= _CHEAP * replicas * min(rents, default=0.0)
