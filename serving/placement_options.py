"""From a request to a problem: the hard limits applied, and every coefficient the solver will see, with its source.

What a rule forbids never becomes a variable: a region outside the residency class is not dear, it is absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.catalog import Catalog, Figure, Price, Region, permits
from fairlead.catalog.figures import BYTES_PER_GB
from fairlead.catalog.power import instance_power
from fairlead.core.ids import RegionId
from fairlead.serving.placement_request import PlacementRequest, Resources

UTILIZATION = 0.5
"""The share of full load at which instances are taken to run for their power; Cloud Carbon Footprint's assumption."""
GRAMS_PER_TONNE = 1_000_000
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceOption:
    """One instance type in one region: how many replicas it holds, dollars and gCO2e an hour."""

    price: Price
    replicas: int
    usd_per_hour: float
    power: Figure
    grams_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionOption:
    """One region that no rule forbids.

    `round_trips` holds a figure for each demand group (by its index) that the latency limit lets this region serve.
    `replication_usd_per_hour` and `replication_grams_per_hour` are the copy of the artifact from `replicate_from`,
    amortised; zero where a replica exists, or where none exists anywhere.
    """

    region: Region
    instances: tuple[InstanceOption, ...]
    round_trips: Mapping[int, Figure]
    internet_egress: Figure
    egress_usd_per_request: float
    egress_grams_per_request: float
    replicate_from: RegionId | None
    replication_tariff: Figure | None
    replication_usd_per_hour: float
    replication_grams_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why a region was not chosen: the first rule that excludes it, or `not-chosen` where only the objective did."""

    region: RegionId
    rule: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is left to decide: regions in order of id, and the request they came from."""

    request: PlacementRequest
    regions: tuple[RegionOption, ...]
    rejected: tuple[Rejection, ...]

    def load_replicas(self, group: int) -> float:
        """A group's demand, in fully loaded replicas."""
        demand = self.request.demand[group].requests_per_second
        return demand / self.request.resources.requests_per_second_per_replica


def build_problem(request: PlacementRequest, catalog: Catalog) -> Problem:
    """Apply the hard limits in a fixed order and price what remains."""
    options: list[RegionOption] = []
    rejected: list[Rejection] = []
    for region in sorted(catalog.regions(), key=lambda each: each.id):
        reason = _forbidden(request, region)
        if reason is None:
            option = _option(request, catalog, region)
            reason = _unable(request, catalog, option)
            if reason is None:
                options.append(option)
                continue
        rule, detail = reason
        rejected.append(Rejection(region=region.id, rule=rule, detail=detail))
    return Problem(request=request, regions=tuple(options), rejected=tuple(rejected))


def replicas_per_instance(price: Price, needs: Resources) -> int:
    """How many replicas fit one instance; none where architecture or accelerator is another.

    An instance with an accelerator is never rented for a model that needs none: it is the dearer way to get vCPUs, and
    the scarcer.
    """
    if price.accelerator != needs.accelerator or price.architecture != needs.architecture:
        return 0
    # A hair of tolerance, so that 0.1 vCPU fits ten times into one.
    fits = math.floor(min(price.vcpus / needs.vcpus, price.memory_gib / needs.memory_gib) + 1e-9)
    return fits if needs.accelerator is None else min(fits, price.accelerator_count)


def _forbidden(request: PlacementRequest, region: Region) -> tuple[str, str] | None:
    if not permits(request.residency, region.jurisdiction):
        return "residency", f"{region.jurisdiction} is outside residency class {request.residency!r}"
    if request.candidate_regions is not None and region.id not in request.candidate_regions:
        return "candidate-regions", "there is no location in it"
    if request.allowed_regions is not None and region.id not in request.allowed_regions:
        return "allowed-regions", "it is not among the allowed regions"
    if region.id in request.denied_regions:
        return "denied-regions", "it is denied"
    return None


def _unable(request: PlacementRequest, catalog: Catalog, option: RegionOption) -> tuple[str, str] | None:
    if not option.instances:
        if not catalog.prices(option.region.id):
            return "resources", "no source gives a price for its instances"
        needs = request.resources
        board = f" with one {needs.accelerator}" if needs.accelerator else ""
        size = f"{needs.vcpus:g} vCPU and {needs.memory_gib:g} GiB"
        return "resources", f"no priced {needs.architecture} instance holds {size}{board}"
    if not option.round_trips:
        group = min(
            range(len(request.demand)),
            key=lambda index: catalog.area_round_trip(request.demand[index].area, option.region.id).value,
        )
        nearest = request.demand[group]
        away = catalog.area_round_trip(nearest.area, option.region.id)
        limit = nearest.latency_limit_ms
        return "latency", f"even {nearest.area} is {away} away, over its limit of {limit or 0:g} ms"
    return None


def _option(request: PlacementRequest, catalog: Catalog, region: Region) -> RegionOption:
    size = request.resources.bytes_per_request
    internet = catalog.internet_egress(region.id)
    source, tariff, dollars, grams = _replication(request, catalog, region)
    round_trips: dict[int, Figure] = {}
    for index, group in enumerate(request.demand):
        away = catalog.area_round_trip(group.area, region.id)
        if group.latency_limit_ms is None or away.value <= group.latency_limit_ms:
            round_trips[index] = away
    return RegionOption(
        region=region,
        instances=_instances(request, catalog, region),
        round_trips=round_trips,
        internet_egress=internet,
        egress_usd_per_request=size / BYTES_PER_GB * internet.value,
        egress_grams_per_request=catalog.internet_transfer_carbon(region.id, size).value,
        replicate_from=source,
        replication_tariff=tariff,
        replication_usd_per_hour=dollars,
        replication_grams_per_hour=grams,
    )


def _replication(
    request: PlacementRequest, catalog: Catalog, region: Region
) -> tuple[RegionId | None, Figure | None, float, float]:
    if region.id in request.existing_replicas or not request.existing_replicas or not request.artifact_bytes:
        return None, None, 0.0, 0.0
    size = request.artifact_bytes
    source = min(request.existing_replicas, key=lambda each: (catalog.egress(each, region.id).value, each))
    dollars = catalog.transfer_cost(source, region.id, size).value / request.amortization_hours
    grams = catalog.transfer_carbon(source, region.id, size).value / request.amortization_hours
    return source, catalog.egress(source, region.id), dollars, grams


def _instances(request: PlacementRequest, catalog: Catalog, region: Region) -> tuple[InstanceOption, ...]:
    """The instance types that fit, without those that others beat in dollars, in carbon and in replicas alike."""
    found: list[InstanceOption] = []
    for price in catalog.prices(region.id):
        replicas = replicas_per_instance(price, request.resources)
        power = instance_power(price, utilization=UTILIZATION)
        if not replicas or power is None:
            continue
        found.append(
            InstanceOption(
                price=price,
                replicas=replicas,
                usd_per_hour=price.on_demand.value,
                power=power,
                grams_per_hour=power.value / 1000 * region.pue.value * region.carbon.value,
            )
        )
    return tuple(each for each in found if not any(_beats(other, each) for other in found if other is not each))


def _beats(one: InstanceOption, other: InstanceOption) -> bool:
    """Whether some whole number of `one` does all that `other` does for no more; equals are told apart by sku."""
    count = math.ceil(other.replicas / one.replicas)
    dollars, grams = count * one.usd_per_hour, count * one.grams_per_hour
    if dollars > other.usd_per_hour or grams > other.grams_per_hour:
        return False
    is_equal = count == 1 and (dollars, grams, one.replicas) == (
        other.usd_per_hour,
        other.grams_per_hour,
        other.replicas,
    )
    return not is_equal or one.price.sku < other.price.sku
