"""What it takes to bring the model and its features to a region: straight from a holder, or by way of another region.

A copy comes from the cheapest region that has one already, or from another region of the placement that was fed so
itself: at most two hops, which keeps the programme linear and free of circles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairlead.catalog import Catalog, Figure
from fairlead.catalog.figures import BYTES_PER_GB
from fairlead.core.ids import RegionId
from fairlead.serving.placement_request import PlacementRequest

_BITS_PER_GBIT = 1e9
_LEAST_SAVING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Cargo:
    """Something that each region of the placement must have: a first copy of `bytes`, then `bytes_per_hour`."""

    name: str
    bytes: int
    bytes_per_hour: float
    holders: tuple[RegionId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One way to bring one cargo to one region; the first copy is spread over the amortisation, `seconds` it takes."""

    cargo: str
    source: RegionId
    destination: RegionId
    tariff: Figure
    usd_per_hour: float
    grams_per_hour: float
    seconds: float


def cargos_of(request: PlacementRequest) -> tuple[Cargo, ...]:
    """What has to travel for a request: nothing where no region holds it yet, for then nothing is known of its way."""
    found = [Cargo(name="model", bytes=request.artifact_bytes, bytes_per_hour=0.0, holders=request.existing_replicas)]
    features = request.features
    if features is not None:
        found.append(
            Cargo(
                name="features",
                bytes=features.bytes,
                bytes_per_hour=features.bytes_per_hour,
                holders=features.existing_replicas,
            )
        )
    return tuple(cargo for cargo in found if cargo.holders and (cargo.bytes or cargo.bytes_per_hour))


def direct_copy(request: PlacementRequest, catalog: Catalog, cargo: Cargo, region: RegionId) -> Copy | None:
    """The cheapest copy from a holder that is there by the deadline; None where none is, or where it is a holder."""
    copies = [copy_between(request, catalog, cargo, holder, region) for holder in sorted(set(cargo.holders))]
    in_time = [copy for copy in copies if _is_in_time(request, copy.seconds)]
    return min(in_time, key=lambda copy: (_weighed(request, copy), copy.source), default=None)


def relays_of(
    request: PlacementRequest, catalog: Catalog, directs: Mapping[tuple[str, RegionId], Copy]
) -> tuple[Copy, ...]:
    """The copies from one region that lacks a cargo to another that are better than straight from a holder.

    Better is cheaper, or, where the request weighs carbon, cleaner.
    """
    relays: list[Copy] = []
    weighs_carbon = (
        request.carbon_price_usd_per_tonne > 0
        or request.carbon_budget_g_per_hour is not None
        or "carbon" in request.order
    )
    for cargo in cargos_of(request):
        fed = {region: copy for (name, region), copy in directs.items() if name == cargo.name}
        for region, direct in fed.items():
            for other, first in fed.items():
                is_cheaper = catalog.egress(other, region).value < direct.tariff.value
                if other == region or not (is_cheaper or weighs_carbon):
                    continue
                copy = copy_between(request, catalog, cargo, other, region)
                is_better = is_cheaper or copy.grams_per_hour < direct.grams_per_hour
                if is_better and _is_in_time(request, first.seconds + copy.seconds):
                    relays.append(copy)
    return tuple(relays)


def copy_between(
    request: PlacementRequest, catalog: Catalog, cargo: Cargo, source: RegionId, destination: RegionId
) -> Copy:
    """One copy of a cargo from one region to another."""
    per_hour = cargo.bytes / request.amortization_hours + cargo.bytes_per_hour
    tariff = catalog.egress(source, destination)
    gram_per_gb = catalog.transfer_carbon(source, destination, BYTES_PER_GB).value
    seconds = 0.0
    if request.deadline_hours is not None and source != destination:
        gbits = catalog.expected_throughput(source, destination).value
        seconds = cargo.bytes * 8 / (gbits * _BITS_PER_GBIT)
    return Copy(
        cargo=cargo.name,
        source=source,
        destination=destination,
        tariff=tariff,
        usd_per_hour=per_hour / BYTES_PER_GB * tariff.value,
        grams_per_hour=per_hour / BYTES_PER_GB * gram_per_gb,
        seconds=seconds,
    )


def feed(
    request: PlacementRequest, directs: Mapping[tuple[str, RegionId], Copy], relays: Iterable[Copy]
) -> tuple[Copy, ...]:
    """The copies that feed the regions of `directs`: relays are taken one more at a time, while that saves anything."""
    by_way: dict[tuple[str, RegionId], list[Copy]] = {}
    for copy in relays:
        by_way.setdefault((copy.cargo, copy.destination), []).append(copy)
    chosen: list[Copy] = []
    for cargo in sorted({name for name, _ in directs}):
        lacking = {region: copy for (name, region), copy in sorted(directs.items()) if name == cargo}

        def fed_by(
            hubs: frozenset[RegionId], cargo: str = cargo, lacking: Mapping[RegionId, Copy] = lacking
        ) -> list[Copy]:
            return [
                direct
                if region in hubs
                else min(
                    (direct, *(copy for copy in by_way.get((cargo, region), ()) if copy.source in hubs)),
                    key=lambda copy: (_weighed(request, copy), copy.source),
                )
                for region, direct in lacking.items()
            ]

        hubs: frozenset[RegionId] = frozenset()
        best = fed_by(hubs)
        while len(hubs) < len(lacking):
            more = min(
                (hubs | {region} for region in lacking if region not in hubs),
                key=lambda each: (_total(request, fed_by(each)), sorted(each)),
            )
            if _total(request, fed_by(more)) >= _total(request, best) - _LEAST_SAVING:
                break
            hubs, best = more, fed_by(more)
        chosen += best
    return tuple(chosen)


def _total(request: PlacementRequest, copies: Iterable[Copy]) -> float:
    return sum(_weighed(request, copy) for copy in copies)


def _weighed(request: PlacementRequest, copy: Copy) -> float:
    return copy.usd_per_hour + request.carbon_price_usd_per_tonne / 1e6 * copy.grams_per_hour


def _is_in_time(request: PlacementRequest, seconds: float) -> bool:
    return request.deadline_hours is None or seconds <= request.deadline_hours * 3600
