"""Feature services as values: the features that one model takes, in the order it takes them.

A service may take features of on-demand views. What those are made of is then fetched along: *hidden* features, which
the one who computes the on-demand features takes away again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairlead.core.errors import FeatureDefinitionInvalid, JsonValue
from fairlead.core.ids import Digest
from fairlead.featurestore.definitions import SERVICE, ViewDefinition, read_columns
from fairlead.featurestore.feast_json import column_name, inner, list_of, name_of, object_of
from fairlead.featurestore.on_demand import OnDemandDefinition


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Some features of one view, as a service takes them. `join_key_map` is from the view's key to the caller's.

    The `hidden` ones among them are fetched for on-demand views alone.
    """

    view: str
    alias: str
    features: tuple[str, ...]
    join_key_map: Mapping[str, str]
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDemandProjection:
    """Some features of one on-demand view, as a service takes them."""

    view: str
    alias: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDefinition:
    """The features one model takes, in the order it takes them: those that are stored, and those computed on demand."""

    name: str
    projections: tuple[Projection, ...]
    on_demand: tuple[OnDemandProjection, ...] = ()

    def content(
        self, view_digests: Mapping[str, Digest], on_demand_digests: Mapping[str, Digest]
    ) -> dict[str, JsonValue]:
        """What of it changes values or schema, with the version of every view that it pins.

        The order of views and features counts: models read columns in that order.
        """
        content: dict[str, JsonValue] = {
            "format": 1,
            "kind": SERVICE,
            "name": self.name,
            "views": [_projection_content(projection, view_digests) for projection in self.projections],
        }
        if self.on_demand:
            content["on_demand"] = [
                {
                    "view": each.view,
                    "view_digest": on_demand_digests[each.view],
                    "alias": each.alias,
                    "features": list(each.features),
                }
                for each in self.on_demand
            ]
        return content


def _projection_content(projection: Projection, view_digests: Mapping[str, Digest]) -> dict[str, JsonValue]:
    hidden: list[JsonValue] = [*sorted(projection.hidden)]
    return {
        "view": projection.view,
        "view_digest": view_digests[projection.view],
        "alias": projection.alias,
        "features": list(projection.features),
        "join_key_map": dict(projection.join_key_map),
        **({"hidden": hidden} if hidden else {}),
    }


def service_from_content(content: Mapping[str, Any]) -> tuple[ServiceDefinition, dict[str, Digest]]:
    """The service that a stored content describes, and the version of each view that it pins."""
    views: list[dict[str, Any]] = content["views"]
    on_demand: list[dict[str, Any]] = content.get("on_demand", [])
    service = ServiceDefinition(
        name=content["name"],
        projections=tuple(
            Projection(
                view=view["view"],
                alias=view["alias"],
                features=tuple(view["features"]),
                join_key_map=view["join_key_map"],
                hidden=frozenset(view.get("hidden", ())),
            )
            for view in views
        ),
        on_demand=tuple(
            OnDemandProjection(view=each["view"], alias=each["alias"], features=tuple(each["features"]))
            for each in on_demand
        ),
    )
    return service, {view["view"]: Digest(view["view_digest"]) for view in views}


def on_demand_digests(content: Mapping[str, Any]) -> dict[str, Digest]:
    """The version of each on-demand view that a stored content pins, by name."""
    return {each["view"]: Digest(each["view_digest"]) for each in content.get("on_demand", [])}


def read_service(
    spec: object, views: Mapping[str, ViewDefinition], on_demand: Mapping[str, OnDemandDefinition]
) -> ServiceDefinition:
    """Read Feast's JSON of a feature service over views that are known.

    Raises:
        FeatureDefinitionInvalid: naming the service and the view or feature that does not exist.
    """
    members, name = inner(spec, SERVICE), name_of(SERVICE, spec)
    projections: list[Projection] = []
    computed: list[OnDemandProjection] = []
    for each in list_of(members.get("features"), SERVICE):
        taken = object_of(each, SERVICE)
        if str(taken.get("featureViewName", "")) in on_demand:
            computed.append(_read_on_demand(name, taken, on_demand))
        else:
            projections.append(_read_projection(name, taken, views))
    if not projections and not computed:
        raise FeatureDefinitionInvalid(
            f"Service {name!r} takes no features.", hint="Name the views it takes: features=[view].", service=name
        )
    aliases = [projection.alias for projection in (*projections, *computed)]
    if repeated := sorted({alias for alias in aliases if aliases.count(alias) > 1}):
        raise FeatureDefinitionInvalid(
            f"Service {name!r} takes view {repeated[0]!r} twice under one name.",
            hint='Name one of them: view.with_name("other").',
            service=name,
        )
    needed = [each for view in computed for each in on_demand[view.view].inputs]
    for each in needed:
        projections = _fetch_along(projections, each.view, each.features)
    return ServiceDefinition(name=name, projections=tuple(projections), on_demand=tuple(computed))


def _fetch_along(projections: Sequence[Projection], view: str, features: Sequence[str]) -> list[Projection]:
    """The projections, with what an on-demand view is made of."""
    found: list[Projection] = []
    is_there = False
    for each in projections:
        # A function reads the view under its own name and keys, so no other projection of it will do.
        if each.view == view and each.alias == view and not each.join_key_map:
            missing = tuple(name for name in features if name not in each.features)
            found.append(replace(each, features=(*each.features, *missing), hidden=each.hidden | set(missing)))
            is_there = True
        else:
            found.append(each)
    if not is_there:
        if any(each.alias == view for each in projections):
            raise FeatureDefinitionInvalid(
                f"An on-demand view is made of {view!r}, which the service takes with other join keys.",
                hint=f"Take it under another name: {view}.with_name(...).with_join_key_map(...).",
                view=view,
            )
        found.append(
            Projection(view=view, alias=view, features=tuple(features), join_key_map={}, hidden=frozenset(features))
        )
    return found


def _read_on_demand(
    service: str, members: Mapping[str, Any], on_demand: Mapping[str, OnDemandDefinition]
) -> OnDemandProjection:
    view = on_demand[str(members["featureViewName"])]
    known = [column.name for column in view.features]
    wanted = tuple(column.name for column in read_columns(view.name, members.get("featureColumns")))
    unknown = [each for each in wanted if each not in known]
    if unknown:
        raise FeatureDefinitionInvalid(
            f"Service {service!r} takes {unknown[0]!r}, which on-demand view {view.name!r} does not make.",
            hint=f"It makes: {', '.join(known)}.",
            service=service,
            view=view.name,
        )
    return OnDemandProjection(
        view=view.name,
        alias=column_name(str(members.get("featureViewNameAlias") or view.name), SERVICE, service),
        features=wanted or tuple(known),
    )


def _read_projection(service: str, members: dict[str, Any], views: Mapping[str, ViewDefinition]) -> Projection:
    name = str(members.get("featureViewName", ""))
    view = views.get(name)
    if view is None:
        raise FeatureDefinitionInvalid(
            f"Service {service!r} takes features of {name[:80]!r}, and there is no such feature view.",
            hint="Apply the view together with the service.",
            service=service,
            view=name,
        )
    wanted = tuple(column.name for column in read_columns(name, members.get("featureColumns")))
    unknown = [feature for feature in wanted if view.feature(feature) is None]
    if unknown:
        raise FeatureDefinitionInvalid(
            f"Service {service!r} takes {unknown[0]!r}, which view {name!r} does not have.",
            hint=f"The view has: {', '.join(column.name for column in view.features)}.",
            service=service,
            view=name,
        )
    key_map = {str(key): str(value) for key, value in object_of(members.get("joinKeyMap", {}), SERVICE).items()}
    if strangers := sorted(set(key_map) - {column.name for column in view.asked_keys}):
        raise FeatureDefinitionInvalid(
            f"Service {service!r} maps the join key {strangers[0]!r}, which view {name!r} does not have.",
            hint=f"The view's keys are: {', '.join(column.name for column in view.asked_keys) or 'none'}.",
            service=service,
            view=name,
        )
    return Projection(
        view=name,
        alias=column_name(str(members.get("featureViewNameAlias") or name), SERVICE, service),
        features=wanted or tuple(column.name for column in view.features),
        join_key_map=dict(sorted(key_map.items())),
    )
