"""A fleet: many models placed together under the quotas that they share, some of them side by side on accelerators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from fairlead.catalog import Catalog, load_catalog
from fairlead.core.errors import JsonValue
from fairlead.serving.placement_answer import Placement, to_plain
from fairlead.serving.placement_blocks import Block, ModelBlock
from fairlead.serving.placement_fleet import mix_plans
from fairlead.serving.placement_pool import PoolBlock
from fairlead.serving.placement_reading import (
    MAX_QUOTAS,
    read_list,
    read_record,
    read_text,
    refuse_member,
    request_from_json,
    validate,
    validate_quota,
)
from fairlead.serving.placement_request import PlacementRequest, Quota

MOST_MODELS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetModel:
    """One model of a fleet; models that name the same `pool` may share instances."""

    name: str
    request: PlacementRequest
    pool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRequest:
    """Models, and the quotas that all of them share."""

    models: tuple[FleetModel, ...]
    quotas: tuple[Quota, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUse:
    """What a fleet takes of a quota, and what one more unit would save in USD an hour."""

    quota: Quota
    used: float
    price_usd_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetAnswer:
    """A placement for each model; `relative_gap` is how far the objective may be above the least there is.

    `bound_usd` is that least, proven over all mixes of placements; for models in pools, over the regions that were
    looked at. `rounds` is how often prices of the quotas were tried.
    """

    placements: Mapping[str, Placement]
    cost_usd: float
    carbon_g: float
    objective_usd: float
    bound_usd: float
    relative_gap: float
    quotas: tuple[QuotaUse, ...]
    rounds: int

    def to_json(self) -> dict[str, JsonValue]:
        """The whole answer as plain JSON, fields under their own names."""
        return cast("dict[str, JsonValue]", to_plain(self))


def fleet_from_json(document: Mapping[str, object]) -> FleetRequest:
    """Read a fleet from plain JSON: `models` (name, request, pool), `quotas`, and `defaults` for every request.

    Raises:
        InvalidInput: with the JSON pointer of the member.
    """
    for name in document:
        if name not in ("models", "quotas", "defaults"):
            refuse_member(
                f"/{name}", f"There is no member {name[:80]!r} here.", hint="Known: models, quotas, defaults."
            )
    if "models" not in document:
        refuse_member("/models", "/models is missing.")
    defaults = _object(document.get("defaults", {}), "/defaults")

    def model(value: object, pointer: str) -> FleetModel:
        members = _object(value, pointer)
        for name in members:
            if name not in ("name", "request", "pool"):
                refuse_member(f"{pointer}/{name}", f"There is no member {name[:80]!r} here.")
        request = defaults | _object(members.get("request", {}), f"{pointer}/request")
        pool = members.get("pool")
        return FleetModel(
            name=read_text(members.get("name"), f"{pointer}/name"),
            request=request_from_json(request, f"{pointer}/request"),
            pool=None if pool is None else read_text(pool, f"{pointer}/pool"),
        )

    quotas = read_list(lambda value, pointer: read_record(value, pointer, Quota))
    return FleetRequest(
        models=read_list(model)(document["models"], "/models"),
        quotas=quotas(document.get("quotas", []), "/quotas"),
    )


def place_fleet(fleet: FleetRequest, catalog: Catalog | None = None) -> FleetAnswer:
    """Place every model at the least objective of all together, within half a per cent of the bound where it can.

    Raises:
        InvalidInput: if a request or quota makes no sense; `pointer` names the member.
        PlacementInfeasible: naming the model that has no placement, or the quotas that no mix keeps.
        MissingExtra: if HiGHS is not installed.
    """
    catalog = catalog or load_catalog()
    _validate(fleet, catalog)
    mix = mix_plans(_blocks(fleet, catalog), fleet.quotas)
    found = {name: placement for plan in mix.plans for name, placement in plan.placements.items()}
    placements = {model.name: found[model.name] for model in fleet.models}
    uses = [sum(plan.uses[index] for plan in mix.plans) for index in range(len(fleet.quotas))]
    return FleetAnswer(
        placements=placements,
        cost_usd=round(sum(each.terms.cost_usd for each in placements.values()), 6),
        carbon_g=round(sum(each.terms.carbon_g for each in placements.values()), 3),
        objective_usd=round(mix.objective, 6),
        bound_usd=round(mix.bound, 6),
        relative_gap=round(1 - mix.bound / mix.objective, 6) if mix.objective > 0 else 0.0,
        quotas=tuple(
            QuotaUse(quota=quota, used=round(used, 6), price_usd_per_hour=round(price, 6))
            for quota, used, price in zip(fleet.quotas, uses, mix.quota_prices, strict=True)
        ),
        rounds=mix.rounds,
    )


def _blocks(fleet: FleetRequest, catalog: Catalog) -> list[Block]:
    pools: dict[str, dict[str, PlacementRequest]] = {}
    blocks: list[Block] = []
    for model in fleet.models:
        if model.pool is None:
            blocks.append(ModelBlock(model.name, model.request, catalog, fleet.quotas))
        else:
            pools.setdefault(model.pool, {})[model.name] = model.request
    blocks += [PoolBlock(name, requests, catalog, fleet.quotas) for name, requests in pools.items()]
    return blocks


def _validate(fleet: FleetRequest, catalog: Catalog) -> None:
    if not fleet.models:
        refuse_member("/models", "The fleet is empty: name at least one model.")
    if len(fleet.models) > MOST_MODELS:
        refuse_member("/models", f"There are {len(fleet.models)} models; at most {MOST_MODELS} are placed at once.")
    if len(fleet.quotas) > MAX_QUOTAS:
        refuse_member("/quotas", f"There are {len(fleet.quotas)} quotas; at most {MAX_QUOTAS} are taken.")
    seen: set[str] = set()
    for index, model in enumerate(fleet.models):
        at = f"/models/{index}"
        if model.name in seen:
            refuse_member(f"{at}/name", f"{model.name[:80]!r} is named twice.")
        seen.add(model.name)
        validate(model.request, catalog, f"{at}/request")
        if model.request.order:
            refuse_member(
                f"{at}/request/order", "A fleet has one objective: give prices of carbon and latency instead."
            )
    for index, quota in enumerate(fleet.quotas):
        validate_quota(quota, f"/quotas/{index}", catalog)


def _object(value: object, pointer: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        refuse_member(pointer, f"{pointer} is not an object.")
    return {str(name): item for name, item in cast("Mapping[object, object]", value).items()}
