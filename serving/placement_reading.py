"""Reading a placement request from JSON, and refusing one that makes no sense by the pointer of its wrong member."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, NoReturn, TypeVar, cast

from fairlead.catalog import Catalog, Residency, check, parse_residency
from fairlead.core.errors import FairleadError, InvalidInput, JsonValue
from fairlead.core.ids import RegionId
from fairlead.serving.placement_request import (
    AIMS,
    ARCHITECTURES,
    SURVIVABLE,
    Demand,
    Features,
    PlacementRequest,
    Quota,
    Resources,
    RunningInstances,
    Spot,
    Switching,
)

MAX_DEMAND_GROUPS = 200
MAX_REPLICAS = 100_000
MAX_QUOTAS = 1000
_MAX_NUMBER = 1e15

T = TypeVar("T")
Reader = Callable[[object, str], Any]


def request_from_json(document: object, pointer: str = "") -> PlacementRequest:
    """Read a request from plain JSON; its members are the fields of `PlacementRequest`.

    Raises:
        InvalidInput: with the JSON pointer of the member in the attribute `pointer`.
    """
    return read_record(document, pointer, PlacementRequest)


def read_record(value: object, pointer: str, record: type[T]) -> T:
    """Read an object whose members are the fields of one of the request's records.

    Raises:
        InvalidInput: naming a member that is missing, unknown or of another type.
    """
    if not isinstance(value, Mapping):
        refuse_member(pointer, f"{pointer or 'The request'} is not an object.")
    members = cast("Mapping[object, object]", value)
    known = fields(record)  # pyright: ignore[reportArgumentType]  (only our dataclasses)
    names = [field.name for field in known]
    for name in members:
        if name not in names:
            hint = f"Known: {', '.join(names)}."
            at = f"{pointer}/{_escape(str(name))}"
            refuse_member(at, f"There is no member {str(name)[:80]!r} here.", hint=hint)
    read: dict[str, object] = {}
    for field in known:
        at = f"{pointer}/{field.name}"
        if field.name in members:
            read[field.name] = _READERS[record][field.name](members[field.name], at)
        elif field.default is MISSING:
            refuse_member(at, f"{at} is missing.")
    return record(**read)


def validate(request: PlacementRequest, catalog: Catalog, pointer: str = "") -> None:
    """Refuse a request that makes no sense, naming the member by its JSON pointer, below `pointer`.

    Raises:
        InvalidInput: (or its subclasses UnknownRegion, UnknownArea) with the attribute `pointer`.
        ResidencyViolation: if an existing replica is already where the residency class forbids it.
    """
    try:
        _validate(request, catalog)
    except FairleadError as error:
        error.attributes["pointer"] = f"{pointer}{error.attributes.get('pointer', '')}"
        raise


def _validate(request: PlacementRequest, catalog: Catalog) -> None:
    _validate_demand(request, catalog)
    _validate_resources(request, catalog)
    for name in ("min_replicas", "min_regions", "min_clouds"):
        in_range(getattr(request, name), f"/{name}", least=1)
    in_range(request.min_replicas, "/min_replicas", most=MAX_REPLICAS)
    for name in (
        "artifact_bytes",
        "carbon_price_usd_per_tonne",
        "latency_price_usd_per_request_second",
        "budget_usd_per_hour",
        "carbon_budget_g_per_hour",
        "order_slack",
    ):
        in_range(getattr(request, name), f"/{name}", least=0)
    for name in ("amortization_hours", "deadline_hours"):
        in_range(getattr(request, name), f"/{name}", above=0)
    _validate_places(request, catalog)
    _validate_aims(request)
    _validate_spot(request.spot)
    if len(request.quotas) > MAX_QUOTAS:
        refuse_member("/quotas", f"There are {len(request.quotas)} quotas; at most {MAX_QUOTAS} are taken.")
    for index, quota in enumerate(request.quotas):
        validate_quota(quota, f"/quotas/{index}", catalog)
    _validate_switching(request.switching, catalog)


def validate_quota(quota: Quota, pointer: str, catalog: Catalog) -> None:
    """Refuse a quota on what the catalog does not know.

    Raises:
        InvalidInput: (or its subclass UnknownRegion) with the attribute `pointer`.
    """
    if quota.scope != "*" and quota.scope not in clouds_of(catalog):
        _located(f"{pointer}/scope", lambda: catalog.region(quota.scope))
    in_range(quota.limit, f"{pointer}/limit", least=0)
    boards = catalog.accelerators()
    if quota.of != "vcpus" and quota.of not in boards and not _is_sku(catalog, quota.of):
        detail = f"A quota is of vcpus, of an accelerator or of an instance type; {quota.of[:80]!r} is none."
        refuse_member(f"{pointer}/of", detail, hint=f"Accelerators: {', '.join(boards)}.")


def clouds_of(catalog: Catalog) -> tuple[str, ...]:
    """The clouds that have a region, by name."""
    return tuple(sorted({region.cloud for region in catalog.regions()}))


def _validate_demand(request: PlacementRequest, catalog: Catalog) -> None:
    if not request.demand:
        refuse_member("/demand", "Demand is empty: name at least one area.")
    if len(request.demand) > MAX_DEMAND_GROUPS:
        detail = f"Demand has {len(request.demand)} groups; at most {MAX_DEMAND_GROUPS} are solved at once."
        refuse_member("/demand", detail)
    seen: set[str] = set()
    for index, group in enumerate(request.demand):
        at = f"/demand/{index}"
        _located(f"{at}/area", lambda area=group.area: catalog.area(area))
        if group.area in seen:
            refuse_member(f"{at}/area", f"{group.area!r} is named twice: add up its requests.")
        seen.add(group.area)
        in_range(group.requests_per_second, f"{at}/requests_per_second", above=0)
        in_range(group.latency_limit_ms, f"{at}/latency_limit_ms", above=0)
        in_range(group.share_within_limit, f"{at}/share_within_limit", above=0, most=1)


def _validate_resources(request: PlacementRequest, catalog: Catalog) -> None:
    needs = request.resources
    for name in ("vcpus", "memory_gib", "requests_per_second_per_replica"):
        in_range(getattr(needs, name), f"/resources/{name}", above=0)
    in_range(needs.bytes_per_request, "/resources/bytes_per_request", least=0)
    in_range(needs.processing_ms, "/resources/processing_ms", least=0)
    if needs.architecture not in ARCHITECTURES:
        detail = f"There is no architecture {needs.architecture[:80]!r} here."
        refuse_member("/resources/architecture", detail, hint=f"Known: {', '.join(ARCHITECTURES)}.")
    boards = catalog.accelerators()
    if needs.accelerator is not None and needs.accelerator not in boards:
        detail = f"The catalog has no accelerator {needs.accelerator[:80]!r}."
        refuse_member("/resources/accelerator", detail, hint=f"Known: {', '.join(boards)}.")
    in_range(needs.accelerator_share, "/resources/accelerator_share", above=0, most=1024)
    if needs.accelerator_share > 1 and needs.accelerator_share != int(needs.accelerator_share):
        detail = f"accelerator_share is {needs.accelerator_share:g}; above 1 it is a whole number of boards."
        refuse_member("/resources/accelerator_share", detail)
    for index, sku in enumerate(needs.instance_types or ()):
        if not _is_sku(catalog, sku):
            detail = f"The catalog has no instance type {sku[:80]!r}."
            refuse_member(f"/resources/instance_types/{index}", detail)
    total = sum(group.requests_per_second for group in request.demand)
    if total / needs.requests_per_second_per_replica > MAX_REPLICAS:
        at = "/resources/requests_per_second_per_replica"
        refuse_member(at, f"The demand needs more than {MAX_REPLICAS} replicas.")


def _validate_places(request: PlacementRequest, catalog: Catalog) -> None:
    named: dict[str, Sequence[str] | None] = {
        "/candidate_regions": request.candidate_regions,
        "/allowed_regions": request.allowed_regions,
        "/denied_regions": request.denied_regions,
        "/existing_replicas": request.existing_replicas,
    }
    parse_residency(request.residency)
    holders = {"/existing_replicas": request.existing_replicas}
    if request.features is not None:
        in_range(request.features.bytes, "/features/bytes", least=0)
        in_range(request.features.bytes_per_hour, "/features/bytes_per_hour", least=0)
        holders["/features/existing_replicas"] = request.features.existing_replicas
    for pointer, regions in (named | holders).items():
        for index, region in enumerate(regions or ()):
            _located(f"{pointer}/{index}", lambda region=region: catalog.region(region))
    for pointer, regions in holders.items():
        for index, region in enumerate(regions):
            _located(f"{pointer}/{index}", lambda region=region: check(request.residency, region))
    clouds = clouds_of(catalog)
    for name in ("allowed_clouds", "denied_clouds"):
        for index, cloud in enumerate(getattr(request, name) or ()):
            if cloud not in clouds:
                detail = f"The catalog has no cloud {cloud[:80]!r}."
                refuse_member(f"/{name}/{index}", detail, hint=f"Known: {', '.join(clouds)}.")


def _validate_aims(request: PlacementRequest) -> None:
    for index, aim in enumerate(request.order):
        at = f"/order/{index}"
        if aim in request.order[:index]:
            refuse_member(at, f"{aim!r} is named twice.")
        if aim == "compliance" and index:
            refuse_member(at, "Compliance comes first wherever it is named: hard limits are never traded.")
    prices = request.carbon_price_usd_per_tonne or request.latency_price_usd_per_request_second
    if request.order and prices:
        detail = "Give an order of aims, or prices of carbon and latency that weigh them, not both."
        refuse_member("/order", detail)
    if request.order and request.switching is not None:
        detail = (
            "What it costs to switch is weighed in dollars: give prices of carbon and latency, not an order of aims."
        )
        refuse_member("/switching", detail)


def _validate_spot(spot: Spot | None) -> None:
    if spot is None:
        return
    in_range(spot.max_share, "/spot/max_share", least=0, most=1)
    in_range(spot.min_share, "/spot/min_share", least=0, most=spot.max_share)
    in_range(spot.interruptions_per_hour, "/spot/interruptions_per_hour", least=0, most=60)
    in_range(spot.recovery_minutes, "/spot/recovery_minutes", least=0, most=60)


def _validate_switching(switching: Switching | None, catalog: Catalog) -> None:
    if switching is None:
        return
    in_range(switching.horizon_hours, "/switching/horizon_hours", above=0)
    for name in ("start_region_usd", "stop_region_usd", "overlap_hours", "least_gain_usd_per_hour"):
        in_range(getattr(switching, name), f"/switching/{name}", least=0)
    for index, each in enumerate(switching.current):
        at = f"/switching/current/{index}"
        _located(f"{at}/region", lambda region=each.region: catalog.region(region))
        in_range(each.count, f"{at}/count", least=1, most=MAX_REPLICAS)


def _is_sku(catalog: Catalog, sku: str) -> bool:
    return any(price.sku == sku for region in catalog.regions() for price in catalog.prices(region.id))


def _located(pointer: str, question: Callable[[], object]) -> None:
    try:
        question()
    except FairleadError as error:
        error.attributes["pointer"] = pointer
        raise


def in_range(
    value: float | None,
    pointer: str,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float = _MAX_NUMBER,
) -> None:
    """Refuse a number that is beyond sense; None, which is no number, passes.

    Raises:
        InvalidInput: with the attribute `pointer`.
    """
    if value is None:
        return
    name = pointer.rpartition("/")[2]
    if not math.isfinite(value) or value > _MAX_NUMBER:
        refuse_member(pointer, f"{name} is {value}, which is beyond any real placement.")
    if above is not None and value <= above:
        refuse_member(pointer, f"{name} is {value:g}; it must be more than {above:g}.")
    if least is not None and value < least:
        refuse_member(pointer, f"{name} is {value:g}; it must be at least {least:g}.")
    if value > most:
        refuse_member(pointer, f"{name} is {value:g}; it must be at most {most:g}.")


def read_list(read: Reader) -> Reader:
    """A reader of lists of what `read` reads, as tuples."""

    def reader(value: object, pointer: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            refuse_member(pointer, f"{pointer} is not a list.")
        items = cast("Sequence[object]", value)
        return tuple(read(item, f"{pointer}/{index}") for index, item in enumerate(items))

    return reader


def read_text(value: object, pointer: str) -> str:
    """A text as it is.

    Raises:
        InvalidInput: with the attribute `pointer`.
    """
    if not isinstance(value, str):
        refuse_member(pointer, f"{pointer} is not a text.")
    return value


def read_number(value: object, pointer: str) -> float:
    """A number, whole or not.

    Raises:
        InvalidInput: with the attribute `pointer`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse_member(pointer, f"{pointer} is not a number.")
    try:
        return float(value)
    except OverflowError:
        refuse_member(pointer, f"{pointer} is too large.")


def _truth(value: object, pointer: str) -> bool:
    if not isinstance(value, bool):
        refuse_member(pointer, f"{pointer} is neither true nor false.")
    return value


def _whole(value: object, pointer: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        refuse_member(pointer, f"{pointer} is not a whole number.")
    return value


def _residency(value: object, pointer: str) -> Residency:
    try:
        return parse_residency(read_text(value, pointer))
    except InvalidInput as error:
        error.attributes["pointer"] = pointer
        raise


def _region(value: object, pointer: str) -> RegionId:
    return RegionId(read_text(value, pointer))


def _one_of(names: Sequence[str]) -> Reader:
    def reader(value: object, pointer: str) -> str:
        text = read_text(value, pointer)
        if text not in names:
            refuse_member(pointer, f"{text[:80]!r} is none of: {', '.join(names)}.")
        return text

    return reader


def _optional(read: Reader) -> Reader:
    return lambda value, pointer: None if value is None else read(value, pointer)


def _record(record: type[object]) -> Reader:
    return lambda value, pointer: read_record(value, pointer, record)


def _escape(name: str) -> str:
    return name[:80].replace("~", "~0").replace("/", "~1")


def refuse_member(pointer: str, detail: str, *, hint: str | None = None) -> NoReturn:
    """Refuse a request by the pointer of what is wrong in it.

    Raises:
        InvalidInput: always.
    """
    attributes: dict[str, JsonValue] = {"pointer": pointer}
    raise InvalidInput(detail, hint=hint, **attributes)


_REGIONS = read_list(_region)
_READERS: Mapping[type[object], Mapping[str, Reader]] = {
    Demand: {
        "area": read_text,
        "requests_per_second": read_number,
        "latency_limit_ms": _optional(read_number),
        "share_within_limit": read_number,
    },
    Resources: {
        "vcpus": read_number,
        "memory_gib": read_number,
        "requests_per_second_per_replica": read_number,
        "bytes_per_request": _whole,
        "accelerator": _optional(read_text),
        "accelerator_share": read_number,
        "architecture": read_text,
        "instance_types": _optional(read_list(read_text)),
        "processing_ms": read_number,
    },
    Features: {"bytes": _whole, "bytes_per_hour": read_number, "existing_replicas": _REGIONS},
    Spot: {
        "max_share": read_number,
        "min_share": read_number,
        "interruptions_per_hour": read_number,
        "recovery_minutes": read_number,
    },
    Quota: {"scope": read_text, "of": read_text, "limit": read_number},
    RunningInstances: {"region": _region, "sku": read_text, "count": _whole, "is_spot": _truth},
    Switching: {
        "current": read_list(_record(RunningInstances)),
        "horizon_hours": read_number,
        "start_region_usd": read_number,
        "stop_region_usd": read_number,
        "overlap_hours": read_number,
        "least_gain_usd_per_hour": read_number,
    },
    PlacementRequest: {
        "demand": read_list(_record(Demand)),
        "resources": _record(Resources),
        "residency": _residency,
        "candidate_regions": _optional(_REGIONS),
        "allowed_regions": _optional(_REGIONS),
        "denied_regions": _REGIONS,
        "allowed_clouds": _optional(read_list(read_text)),
        "denied_clouds": read_list(read_text),
        "min_replicas": _whole,
        "min_regions": _whole,
        "min_clouds": _whole,
        "survive": _optional(_one_of(SURVIVABLE)),
        "existing_replicas": _REGIONS,
        "artifact_bytes": _whole,
        "features": _optional(_record(Features)),
        "amortization_hours": read_number,
        "deadline_hours": _optional(read_number),
        "spot": _optional(_record(Spot)),
        "quotas": read_list(_record(Quota)),
        "carbon_price_usd_per_tonne": read_number,
        "latency_price_usd_per_request_second": read_number,
        "order": read_list(_one_of(AIMS)),
        "order_slack": read_number,
        "budget_usd_per_hour": _optional(read_number),
        "carbon_budget_g_per_hour": _optional(read_number),
        "switching": _optional(_record(Switching)),
    },
}
