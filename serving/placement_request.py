"""What a placement is asked for: who calls from where, what a replica needs, where it may run, what matters.

Field names carry their units and are the same in Python and in JSON, so the pointer in an error names both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NoReturn, TypeVar, cast

from fairlead.catalog import UNRESTRICTED, Catalog, Residency, check, parse_residency
from fairlead.core.errors import FairleadError, InvalidInput, JsonValue
from fairlead.core.ids import RegionId

ARCHITECTURES = ("x86_64", "arm64")
MAX_DEMAND_GROUPS = 200
MAX_REPLICAS = 100_000
_MAX_NUMBER = 1e15

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Requests from the users of one area; `latency_limit_ms` bounds the network round trip to whoever answers."""

    area: str
    requests_per_second: float
    latency_limit_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one replica of the model needs, and what it then answers.

    `accelerator` names a whole board (`T4`, `L4`, `A100-80` ...) that one replica has to itself. `bytes_per_request` is
    the size of an answer: what leaves the region. One bundle is deployed everywhere, so all instances have one
    `architecture`: `x86_64` or `arm64`.
    """

    vcpus: float
    memory_gib: float
    requests_per_second_per_replica: float
    bytes_per_request: int = 0
    accelerator: str | None = None
    architecture: str = "x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRequest:
    """One placement problem; all that is not stated is free.

    `candidate_regions` are those with a location, or None for the whole catalog. `allowed_regions` and `denied_regions`
    narrow them further. A chosen region that is not among `existing_replicas` pays for its copy of `artifact_bytes`,
    spread over `amortization_hours`. `carbon_price_usd_per_tonne` and `latency_price_usd_per_request_second` (the worth
    of one request waiting one second less) put carbon and waiting beside dollars in the one objective;
    `budget_usd_per_hour` bounds the dollars alone.
    """

    demand: tuple[Demand, ...]
    resources: Resources
    residency: Residency = UNRESTRICTED
    candidate_regions: tuple[RegionId, ...] | None = None
    allowed_regions: tuple[RegionId, ...] | None = None
    denied_regions: tuple[RegionId, ...] = ()
    min_regions: int = 1
    min_clouds: int = 1
    existing_replicas: tuple[RegionId, ...] = ()
    artifact_bytes: int = 0
    amortization_hours: float = 720.0
    carbon_price_usd_per_tonne: float = 0.0
    latency_price_usd_per_request_second: float = 0.0
    budget_usd_per_hour: float | None = None


def request_from_json(document: object) -> PlacementRequest:
    """Read a request from plain JSON; its members are the fields of `PlacementRequest`.

    Raises:
        InvalidInput: with the JSON pointer of the member in the attribute `pointer`.
    """
    members = _object(document, "", PlacementRequest)
    for name in ("demand", "resources"):
        if name not in members:
            _refuse(f"/{name}", f"/{name} is missing.")
    known: dict[str, object] = {}
    readers: dict[str, Callable[[object, str], object]] = {
        "demand": _demand,
        "resources": _resources,
        "residency": _residency,
        "candidate_regions": _optional(_regions),
        "allowed_regions": _optional(_regions),
        "denied_regions": _regions,
        "min_regions": _whole,
        "min_clouds": _whole,
        "existing_replicas": _regions,
        "artifact_bytes": _whole,
        "amortization_hours": _number,
        "carbon_price_usd_per_tonne": _number,
        "latency_price_usd_per_request_second": _number,
        "budget_usd_per_hour": _optional(_number),
    }
    for name, value in members.items():
        known[name] = readers[name](value, f"/{name}")
    return PlacementRequest(**known)  # pyright: ignore[reportArgumentType]  (each reader gives its field's type)


def validate(request: PlacementRequest, catalog: Catalog) -> None:
    """Refuse a request that makes no sense, naming the member by its JSON pointer.

    Raises:
        InvalidInput: (or its subclasses UnknownRegion, UnknownArea) with the attribute `pointer`.
        ResidencyViolation: if an existing replica is already where the residency class forbids it.
    """
    _validate_demand(request, catalog)
    _validate_resources(request, catalog)
    _in_range(request.min_regions, "/min_regions", least=1)
    _in_range(request.min_clouds, "/min_clouds", least=1)
    _in_range(request.artifact_bytes, "/artifact_bytes", least=0)
    _in_range(request.amortization_hours, "/amortization_hours", above=0)
    _in_range(request.carbon_price_usd_per_tonne, "/carbon_price_usd_per_tonne", least=0)
    _in_range(request.latency_price_usd_per_request_second, "/latency_price_usd_per_request_second", least=0)
    if request.budget_usd_per_hour is not None:
        _in_range(request.budget_usd_per_hour, "/budget_usd_per_hour", least=0)
    for name in ("candidate_regions", "allowed_regions", "denied_regions", "existing_replicas"):
        regions = cast("tuple[RegionId, ...] | None", getattr(request, name))
        for index, region in enumerate(regions or ()):
            _located(f"/{name}/{index}", lambda region=region: catalog.region(region))
    parse_residency(request.residency)
    for index, region in enumerate(request.existing_replicas):
        _located(f"/existing_replicas/{index}", lambda region=region: check(request.residency, region))


def _validate_demand(request: PlacementRequest, catalog: Catalog) -> None:
    if not request.demand:
        _refuse("/demand", "Demand is empty: name at least one area.")
    if len(request.demand) > MAX_DEMAND_GROUPS:
        _refuse("/demand", f"Demand has {len(request.demand)} groups; at most {MAX_DEMAND_GROUPS} are solved at once.")
    seen: set[str] = set()
    for index, group in enumerate(request.demand):
        at = f"/demand/{index}"
        _located(f"{at}/area", lambda area=group.area: catalog.area(area))
        if group.area in seen:
            _refuse(f"{at}/area", f"{group.area!r} is named twice: add up its requests.")
        seen.add(group.area)
        _in_range(group.requests_per_second, f"{at}/requests_per_second", above=0)
        if group.latency_limit_ms is not None:
            _in_range(group.latency_limit_ms, f"{at}/latency_limit_ms", above=0)


def _validate_resources(request: PlacementRequest, catalog: Catalog) -> None:
    needs = request.resources
    for name in ("vcpus", "memory_gib", "requests_per_second_per_replica"):
        _in_range(cast("float", getattr(needs, name)), f"/resources/{name}", above=0)
    _in_range(needs.bytes_per_request, "/resources/bytes_per_request", least=0)
    if needs.architecture not in ARCHITECTURES:
        detail = f"There is no architecture {needs.architecture[:80]!r} here."
        _refuse("/resources/architecture", detail, hint=f"Known: {', '.join(ARCHITECTURES)}.")
    boards = catalog.accelerators()
    if needs.accelerator is not None and needs.accelerator not in boards:
        detail = f"The catalog has no accelerator {needs.accelerator[:80]!r}."
        _refuse("/resources/accelerator", detail, hint=f"Known: {', '.join(boards)}.")
    total = sum(group.requests_per_second for group in request.demand)
    if total / needs.requests_per_second_per_replica > MAX_REPLICAS:
        _refuse("/resources/requests_per_second_per_replica", f"The demand needs more than {MAX_REPLICAS} replicas.")


def _located(pointer: str, question: Callable[[], object]) -> None:
    try:
        question()
    except FairleadError as error:
        error.attributes["pointer"] = pointer
        raise


def _in_range(value: float, pointer: str, *, above: float | None = None, least: float | None = None) -> None:
    name = pointer.rpartition("/")[2]
    if not math.isfinite(value) or value > _MAX_NUMBER:
        _refuse(pointer, f"{name} is {value}, which is beyond any real placement.")
    if above is not None and value <= above:
        _refuse(pointer, f"{name} is {value:g}; it must be more than {above:g}.")
    if least is not None and value < least:
        _refuse(pointer, f"{name} is {value:g}; it must be at least {least:g}.")


def _object(value: object, pointer: str, record: type[object]) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        _refuse(pointer, f"{pointer or 'The request'} is not an object.")
    members = cast("Mapping[str, object]", value)
    names = [field.name for field in fields(record)]  # pyright: ignore[reportArgumentType]  (only our dataclasses)
    for name in members:
        if name not in names:
            hint = f"Known: {', '.join(names)}."
            _refuse(f"{pointer}/{_escape(str(name))}", f"There is no member {str(name)[:80]!r} here.", hint=hint)
    return members


def _member(members: Mapping[str, object], name: str, pointer: str, read: Callable[[object, str], T]) -> T:
    if name not in members:
        _refuse(f"{pointer}/{name}", f"{pointer}/{name} is missing.")
    return read(members[name], f"{pointer}/{name}")


def _demand(value: object, pointer: str) -> tuple[Demand, ...]:
    groups: list[Demand] = []
    for index, item in enumerate(_list(value, pointer)):
        at = f"{pointer}/{index}"
        members = _object(item, at, Demand)
        groups.append(
            Demand(
                area=_member(members, "area", at, _text),
                requests_per_second=_member(members, "requests_per_second", at, _number),
                latency_limit_ms=_optional(_number)(members.get("latency_limit_ms"), f"{at}/latency_limit_ms"),
            )
        )
    return tuple(groups)


def _resources(value: object, pointer: str) -> Resources:
    members = _object(value, pointer, Resources)
    return Resources(
        vcpus=_member(members, "vcpus", pointer, _number),
        memory_gib=_member(members, "memory_gib", pointer, _number),
        requests_per_second_per_replica=_member(members, "requests_per_second_per_replica", pointer, _number),
        bytes_per_request=_whole(members.get("bytes_per_request", 0), f"{pointer}/bytes_per_request"),
        accelerator=_optional(_text)(members.get("accelerator"), f"{pointer}/accelerator"),
        architecture=_text(members.get("architecture", "x86_64"), f"{pointer}/architecture"),
    )


def _residency(value: object, pointer: str) -> Residency:
    try:
        return parse_residency(_text(value, pointer))
    except InvalidInput as error:
        error.attributes["pointer"] = pointer
        raise


def _regions(value: object, pointer: str) -> tuple[RegionId, ...]:
    return tuple(RegionId(_text(item, f"{pointer}/{index}")) for index, item in enumerate(_list(value, pointer)))


def _list(value: object, pointer: str) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        _refuse(pointer, f"{pointer} is not a list.")
    return cast("Sequence[object]", value)


def _text(value: object, pointer: str) -> str:
    if not isinstance(value, str):
        _refuse(pointer, f"{pointer} is not a text.")
    return value


def _number(value: object, pointer: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(pointer, f"{pointer} is not a number.")
    try:
        return float(value)
    except OverflowError:
        _refuse(pointer, f"{pointer} is too large.")


def _whole(value: object, pointer: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(pointer, f"{pointer} is not a whole number.")
    return value


def _optional(read: Callable[[object, str], T]) -> Callable[[object, str], T | None]:
    return lambda value, pointer: None if value is None else read(value, pointer)


def _escape(name: str) -> str:
    return name[:80].replace("~", "~0").replace("/", "~1")


def _refuse(pointer: str, detail: str, *, hint: str | None = None) -> NoReturn:
    attributes: dict[str, JsonValue] = {"pointer": pointer}
    raise InvalidInput(detail, hint=hint, **attributes)
