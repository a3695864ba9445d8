"""What a bundle knows of its model's features: who asks for them gives what, and what is computed on demand.

The functions of on-demand views go into a bundle as their source text, by the version of the feature service that the
model version pins: in the endpoint, where the model's own code runs too, they run without Feast. What Feast pickled of
them stays out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.errors import FeatureServiceNotFound, InvalidInput, JsonValue
from fairlead.core.ids import Digest
from fairlead.featurestore.applied import PinnedService, find_pinned_service
from fairlead.featurestore.definitions import Column
from fairlead.featurestore.on_demand import OnDemandDefinition, function_text, read_pinned
from fairlead.featurestore.on_demand_code import MODES, FunctionNotLoadable, check_function
from fairlead.featurestore.services import OnDemandProjection
from fairlead.featurestore.tables import SnapshotRow
from fairlead.registry.tables import ModelVersionRow

PACKAGES = ("numpy", "pandas", "pyarrow")
"""What running the functions takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledFeatures:
    """The features of a model version. `keys` and `request` are what callers of `/predict` give.

    `facts` is what is written into the bundle of the functions, None where there are none.
    """

    digest: Digest
    keys: tuple[Column, ...]
    request: tuple[Column, ...] = ()
    facts: Mapping[str, JsonValue] | None = None


def find_service_digest(session: Session, version: ModelVersionRow) -> Digest | None:
    """The version of its feature service that a model version is bundled with: what it pins, or the present one.

    None where it takes no features, or the workspace does not know the service.
    """
    if version.feature_service is None:
        return None
    digest = version.feature_service_digest
    if digest is None and version.snapshot_digest is not None:
        query = select(SnapshotRow.service_digest).where(
            SnapshotRow.workspace_id == version.workspace_id, SnapshotRow.digest == version.snapshot_digest
        )
        digest = session.scalars(query.limit(1)).first()
    try:
        return find_pinned_service(session, version.workspace_id, version.feature_service, digest).digest
    except FeatureServiceNotFound:
        return None


def bundled_features(session: Session, workspace_id: str, service: str, digest: str) -> BundledFeatures:
    """What a bundle carries of a version of a feature service.

    Raises:
        InvalidInput: naming the on-demand view whose function cannot run in a bundle.
        FeatureServiceNotFound: if there is no such version.
    """
    pinned = find_pinned_service(session, workspace_id, service, digest)
    asked: dict[str, Column] = {}
    views: list[JsonValue] = []
    for taken in pinned.service.on_demand:
        view = read_pinned(pinned.on_demand[taken.view], pinned.views)
        asked |= {column.name: column for column in view.request}
        views.append(_facts(pinned, taken, view))
    hidden: list[JsonValue] = [
        [projection.alias, feature]
        for projection in pinned.service.projections
        for feature in projection.features
        if feature in projection.hidden
    ]
    return BundledFeatures(
        digest=pinned.digest,
        keys=pinned.keys,
        request=tuple(asked.values()),
        facts={"views": views, "hidden": hidden, "keys": [_named(key) for key in pinned.keys]} if views else None,
    )


def _facts(pinned: PinnedService, taken: OnDemandProjection, view: OnDemandDefinition) -> dict[str, JsonValue]:
    text, name = function_text(pinned.on_demand[taken.view])
    reason = f"its mode is {view.mode}" if view.mode not in MODES else None
    try:
        if reason is None:
            check_function(text, name)
    except FunctionNotLoadable as error:
        reason = str(error)
    if reason is not None:
        raise InvalidInput(
            f"The function of the on-demand view {view.name!r} cannot run in a bundle: {reason}.",
            hint="Give it mode pandas or python, import inside of it what it takes, and apply it; or bundle a service "
            "of your own: fairlead bundle REFERENCE --service FILE",
        )
    types = {column.name: column.type for column in view.features}
    return {
        "name": view.name,
        "alias": taken.alias,
        "mode": view.mode,
        "is_singleton": view.is_singleton,
        "inputs": [[each.view, name, _type(pinned, each.view, name)] for each in view.inputs for name in each.features],
        "request": [_named(column) for column in view.request],
        "features": [[name, types[name]] for name in taken.features],
        "function": name,
        "text": text,
    }


def _type(pinned: PinnedService, view: str, feature: str) -> str:
    column = pinned.views[view].feature(feature)
    assert column is not None  # noqa: S101  (the definition was read against the view)
    return column.type


def _named(column: Column) -> list[JsonValue]:
    return [column.name, column.type]


def entities_schema(features: BundledFeatures | None) -> dict[str, Any]:
    """The JSON Schema of what `/predict` is sent: a list for each join key, and for each value of the request."""
    schema: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "array"}}
    if features is None:
        return schema
    columns = [*features.keys, *features.request]
    properties = {column.name: {"type": "array", "items": _items(column.type)} for column in columns}
    return {**schema, "properties": properties, "required": [*properties]}


def _items(kind: str) -> dict[str, Any]:
    if kind.endswith("_LIST"):
        return {"type": ["array", "null"], "items": _items(kind.removesuffix("_LIST"))}
    if kind == "UNIX_TIMESTAMP":
        return {"type": ["string", "number", "null"], "format": "date-time"}
    if kind == "BYTES":
        return {"type": ["string", "null"], "contentEncoding": "base64"}
    name = {"BOOL": "boolean", "INT32": "integer", "INT64": "integer", "FLOAT": "number", "DOUBLE": "number"}
    return {"type": [name.get(kind, "string"), "null"]}
