"""On-demand views: features that a function makes of others and of what the request says, when they are asked for.

The function is code, so here it is only kept and named by its source text; it runs where the caller is (the SDK, Feast
in the caller's process) or in a feature server that was started to run code, and never in the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from fairlead.catalog.residency import UNRESTRICTED, Residency
from fairlead.core.canonical import canonical_json
from fairlead.core.errors import FeatureDefinitionInvalid, JsonValue
from fairlead.core.ids import Digest, parse_name, sha256_digest
from fairlead.featurestore.definitions import Column, ViewDefinition, columns_content, read_columns
from fairlead.featurestore.feast_json import inner

ON_DEMAND = "OnDemandFeatureView"
_MODES = ("pandas", "python", "substrait")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDemandInput:
    """Features of one view that the function is given."""

    view: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDemandDefinition:
    """Features made of others. `request` are the columns that the caller sends along; `function` names the code.

    A singleton's function is given one row at a time.

    Their residency class is that of the one view under a class among their inputs.
    """

    name: str
    inputs: tuple[OnDemandInput, ...]
    request: tuple[Column, ...]
    features: tuple[Column, ...]
    mode: str
    function: str
    residency: Residency
    is_singleton: bool = False

    def content(self, view_digests: Mapping[str, Digest]) -> dict[str, JsonValue]:
        """What of it changes values or schema, with the version of every view that it is made of."""
        return {
            "format": 1,
            "kind": ON_DEMAND,
            "name": self.name,
            "inputs": [
                {"view": each.view, "view_digest": view_digests[each.view], "features": list(each.features)}
                for each in self.inputs
            ],
            "request": columns_content(self.request),
            "features": columns_content(self.features),
            "mode": self.mode,
            "function": self.function,
            **({"is_singleton": True} if self.is_singleton else {}),
        }


def read_on_demand(members: Mapping[str, Any], views: Mapping[str, ViewDefinition]) -> OnDemandDefinition:
    """Read the members of Feast's JSON of an on-demand view over views that are known.

    Raises:
        FeatureDefinitionInvalid: naming the view and what is missing, unknown or not supported.
    """
    name = parse_name(str(members.get("name", "")), what=ON_DEMAND)
    inputs: list[OnDemandInput] = []
    request: list[Column] = []
    for source in cast("Mapping[str, dict[str, Any]]", members.get("sources") or {}).values():
        if "requestDataSource" in source:
            request += read_columns(name, source["requestDataSource"].get("requestDataOptions", {}).get("schema"))
        else:
            inputs.append(_read_input(name, source, views))
    if members.get("writeToOnlineStore"):
        raise FeatureDefinitionInvalid(
            f"On-demand view {name!r} asks to be written to the online store, where its function would have to run.",
            hint="Leave write_to_online_store out: it is computed when it is asked for.",
            view=name,
        )
    features = read_columns(name, members.get("features"))
    mode, function = _read_function(name, members)
    if not features or not inputs:
        raise FeatureDefinitionInvalid(
            f"On-demand view {name!r} has no {'source view' if features else 'features'}.",
            hint="Give it sources=[view, ...] and schema=[Field(...), ...].",
            view=name,
        )
    classes = sorted({views[each.view].residency for each in inputs} - {UNRESTRICTED})
    if len(classes) > 1:
        raise FeatureDefinitionInvalid(
            f"On-demand view {name!r} is made of views under {' and '.join(classes)}, which no place may have both of.",
            hint="Make it of views under one residency class.",
            view=name,
        )
    return OnDemandDefinition(
        name=name,
        inputs=tuple(sorted(inputs, key=lambda each: each.view)),
        request=tuple(sorted(request, key=lambda column: column.name)),
        features=features,
        mode=mode,
        function=function,
        residency=Residency(classes[0]) if classes else UNRESTRICTED,
        is_singleton=bool(members.get("singleton")),
    )


def read_pinned(spec: object, views: Mapping[str, ViewDefinition]) -> OnDemandDefinition:
    """Read what was applied of an on-demand view, as `read_on_demand`."""
    return read_on_demand(inner(spec, ON_DEMAND), views)


def function_text(spec: object) -> tuple[str, str | None]:
    """The source text of what was applied of an on-demand view, and the name of its function, if that is said.

    The text is empty where Feast kept none: of a Substrait plan, or a function whose source it did not find.
    """
    said = _said(inner(spec, ON_DEMAND))
    return str(said.get("bodyText") or ""), said.get("name") and str(said["name"])


def _read_input(name: str, source: Mapping[str, Any], views: Mapping[str, ViewDefinition]) -> OnDemandInput:
    projection: dict[str, Any] = source.get("featureViewProjection") or {}
    view_name = str(projection.get("featureViewName", ""))
    view = views.get(view_name)
    if view is None:
        raise FeatureDefinitionInvalid(
            f"On-demand view {name!r} is made of {view_name[:80]!r}, and there is no such feature view.",
            hint="Apply the view together with it. On-demand views of on-demand views are not supported.",
            view=name,
        )
    taken = tuple(column.name for column in read_columns(name, projection.get("featureColumns")))
    unknown = [each for each in taken if view.feature(each) is None]
    if unknown:
        raise FeatureDefinitionInvalid(
            f"On-demand view {name!r} is made of {unknown[0]!r}, which view {view_name!r} does not have.",
            hint=f"The view has: {', '.join(column.name for column in view.features)}.",
            view=name,
        )
    return OnDemandInput(view=view_name, features=taken or tuple(column.name for column in view.features))


def _read_function(name: str, members: Mapping[str, Any]) -> tuple[str, str]:
    said = _said(members)
    text = said.get("bodyText") or said.get("body") or said.get("substraitPlan")
    mode = str(members.get("mode") or said.get("mode") or "pandas")
    if not text or mode not in _MODES:
        raise FeatureDefinitionInvalid(
            f"On-demand view {name!r} has no function that is known here (mode {mode[:40]!r}).",
            hint=f"Decorate a function with @on_demand_feature_view(mode=...): one of {', '.join(_MODES)}.",
            view=name,
        )
    return mode, sha256_digest(canonical_json({"text": text, "name": said.get("name"), "mode": mode}))


def _said(members: Mapping[str, Any]) -> dict[str, Any]:
    """What Feast's JSON says of the function, in whichever place."""
    transformation: dict[str, Any] = members.get("featureTransformation") or {}
    return (
        transformation.get("userDefinedFunction")
        or members.get("userDefinedFunction")
        or transformation.get("substraitTransformation")
        or {}
    )
