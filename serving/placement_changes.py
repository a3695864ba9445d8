"""What if: a request with something changed, and what that does to the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fairlead.catalog import Catalog
from fairlead.core.ids import RegionId
from fairlead.serving.placement_answer import Placement, Terms
from fairlead.serving.placement_reading import clouds_of, in_range, read_list, read_number, read_text, refuse_member
from fairlead.serving.placement_request import Demand, PlacementRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What to change: clouds and regions to do without, one latency limit for all, so many times the demand.

    `carbon_price_usd_per_tonne` and the budgets replace the request's own.
    """

    without: tuple[str, ...] = ()
    carbon_price_usd_per_tonne: float | None = None
    latency_limit_ms: float | None = None
    demand_times: float | None = None
    budget_usd_per_hour: float | None = None
    carbon_budget_g_per_hour: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was changed, what the answer was before, and the terms of the new one minus the old one's."""

    changes: tuple[str, ...]
    regions_before: tuple[RegionId, ...]
    terms_before: Terms
    difference: Terms


def change_from_json(document: object, pointer: str) -> Change:
    """Read a change from plain JSON; its members are the fields of `Change`.

    Raises:
        InvalidInput: with the JSON pointer of the member.
    """
    if not isinstance(document, Mapping):
        refuse_member(pointer, f"{pointer} is not an object.")
    read: dict[str, object] = {}
    for name, value in document.items():  # pyright: ignore[reportUnknownVariableType]  (any JSON)
        at = f"{pointer}/{name}"
        if name == "without":
            read[name] = read_list(read_text)(value, at)
        elif name in Change.__slots__:
            read[name] = read_number(value, at)
        else:
            refuse_member(at, f"There is no change {str(name)[:80]!r}.", hint=f"Known: {', '.join(Change.__slots__)}.")
    return Change(**read)  # pyright: ignore[reportArgumentType]  (each reader gives its field's type)


def apply_change(request: PlacementRequest, change: Change, catalog: Catalog) -> PlacementRequest:
    """The request with the change made.

    Raises:
        InvalidInput, UnknownRegion: if it names a cloud or region that there is none of, or a number beyond sense.
    """
    clouds = clouds_of(catalog)
    without = [name for name in change.without if name in clouds]
    regions = [catalog.region(name).id for name in change.without if name not in clouds]
    request = replace(
        request,
        denied_clouds=(*request.denied_clouds, *without),
        denied_regions=(*request.denied_regions, *regions),
    )
    if change.carbon_price_usd_per_tonne is not None:
        request = replace(request, carbon_price_usd_per_tonne=change.carbon_price_usd_per_tonne)
    if change.budget_usd_per_hour is not None:
        request = replace(request, budget_usd_per_hour=change.budget_usd_per_hour)
    if change.carbon_budget_g_per_hour is not None:
        request = replace(request, carbon_budget_g_per_hour=change.carbon_budget_g_per_hour)
    if change.latency_limit_ms is not None:
        limit = change.latency_limit_ms
        request = _each_group(request, lambda group: replace(group, latency_limit_ms=limit))
    if change.demand_times is not None:
        times = change.demand_times
        in_range(times, "/what_if/demand_times", above=0)
        request = scale_demand(request, times)
    return request


def describe_change(change: Change) -> tuple[str, ...]:
    """The change in words, one phrase each."""
    said = [f"without {name}" for name in change.without]
    for value, words in (
        (change.carbon_price_usd_per_tonne, "carbon at {:g} USD/t"),
        (change.latency_limit_ms, "every latency limit at {:g} ms"),
        (change.demand_times, "{:g} times the demand"),
        (change.budget_usd_per_hour, "at most {:g} USD/h"),
        (change.carbon_budget_g_per_hour, "at most {:g} gCO2e/h"),
    ):
        if value is not None:
            said.append(words.format(value))
    return tuple(said)


def compare(change: Change, before: Placement, after: Placement) -> Comparison:
    """The new placement beside the old one."""
    return Comparison(
        changes=describe_change(change),
        regions_before=before.regions,
        terms_before=before.terms,
        difference=after.terms.minus(before.terms),
    )


def scale_demand(request: PlacementRequest, times: float) -> PlacementRequest:
    """The request with so many times the requests from every area."""
    return _each_group(request, lambda group: replace(group, requests_per_second=group.requests_per_second * times))


def _each_group(request: PlacementRequest, change: Callable[[Demand], Demand]) -> PlacementRequest:
    return replace(request, demand=tuple(change(group) for group in request.demand))
