"""Reading definitions that were sent, together with those that are there: each kind on what is below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from fairlead.catalog.residency import UNRESTRICTED, Residency
from fairlead.core.errors import FeatureDefinitionInvalid, InvalidInput, JsonValue
from fairlead.core.ids import Digest
from fairlead.featurestore.definitions import (
    ENTITY,
    SERVICE,
    STREAM_VIEW,
    VIEW,
    EntityDefinition,
    content_digest,
    read_entity,
    read_view,
)
from fairlead.featurestore.feast_json import inner, name_of, object_of
from fairlead.featurestore.on_demand import ON_DEMAND, read_on_demand
from fairlead.featurestore.services import read_service
from fairlead.featurestore.source_definitions import SOURCE_KINDS, read_source
from fairlead.featurestore.streams import STREAM_KINDS, read_stream
from fairlead.registry.limits import parse_json

KINDS = (ENTITY, VIEW, STREAM_VIEW, ON_DEMAND, SERVICE, *SOURCE_KINDS, *STREAM_KINDS)
_MAX_OBJECTS = 2000

Key = tuple[str, str]
"""The kind and name of a definition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureObject:
    """One thing to apply: its kind, and what Feast makes of it as JSON."""

    kind: str
    spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadDefinition:
    """A definition: its content, the content's digest, the residency class of its data, and what was sent.

    `column_residency` has the class of each feature of a view.
    """

    content: dict[str, JsonValue]
    digest: Digest
    residency: Residency
    spec: Mapping[str, Any]
    column_residency: Mapping[str, Residency] = field(default_factory=dict[str, Residency])


def by_name(objects: Sequence[FeatureObject]) -> dict[Key, Mapping[str, Any]]:
    """What was sent, by kind and name.

    Raises:
        FeatureDefinitionInvalid: if something is of no kind that is known, or one name is sent twice and differs.
        InvalidInput: if it is too much.
    """
    if len(objects) > _MAX_OBJECTS:
        raise InvalidInput(f"{len(objects)} definitions are more than {_MAX_OBJECTS}.", hint="Apply them in parts.")
    found: dict[Key, Mapping[str, Any]] = {}
    for each in objects:
        if each.kind not in KINDS:
            raise FeatureDefinitionInvalid(
                f"Definitions of kind {each.kind[:60]!r} are not supported yet.",
                hint=f"Supported are: {', '.join(KINDS)}. Compute what others do before it is written to Parquet.",
                kind=each.kind[:60],
            )
        # A stream view is a view, and takes its name.
        key = (VIEW if each.kind == STREAM_VIEW else each.kind, name_of(each.kind, each.spec))
        spec = parse_json(_without_times(each.spec), what=f"definition of {key[1]!r}")
        if found.setdefault(key, spec) != spec:
            raise FeatureDefinitionInvalid(
                f"There are two definitions of the {each.kind} {key[1]!r}.", hint="Send one of them."
            )
    return found


def _without_times(value: Any) -> Any:
    """Without what Feast notes of when an object was made (`meta`): it differs each time and means nothing."""
    if isinstance(value, Mapping):
        members = cast("Mapping[str, Any]", value)
        return {
            key: _without_times(item)
            for key, item in members.items()
            if not (key == "meta" and isinstance(item, Mapping))
        }
    if isinstance(value, list):
        return [_without_times(item) for item in cast("list[Any]", value)]
    return value


def read_all(specs: Mapping[Key, Mapping[str, Any]]) -> dict[Key, ReadDefinition]:
    """Read everything anew, each kind on what is below it."""

    def of_kind(kind: str) -> dict[str, Mapping[str, Any]]:
        return {name: spec for (each, name), spec in specs.items() if each == kind}

    entities: dict[str, EntityDefinition] = {name: read_entity(spec) for name, spec in of_kind(ENTITY).items()}
    views = {name: read_view(spec, entities) for name, spec in of_kind(VIEW).items()}
    on_demand = {name: read_on_demand(inner(spec, ON_DEMAND), views) for name, spec in of_kind(ON_DEMAND).items()}
    services = {name: read_service(spec, views, on_demand) for name, spec in of_kind(SERVICE).items()}
    digests = {name: view.digest for name, view in views.items()}
    computed = {name: content_digest(view.content(digests)) for name, view in on_demand.items()}
    contents: dict[Key, tuple[dict[str, JsonValue], Residency]] = {
        (ENTITY, name): (entity.content(), UNRESTRICTED) for name, entity in entities.items()
    }
    for kind in SOURCE_KINDS:
        for name, spec in of_kind(kind).items():
            contents[kind, name] = (read_source(spec).content() | {"name": name}, UNRESTRICTED)
    for kind in STREAM_KINDS:
        for name, spec in of_kind(kind).items():
            contents[kind, name] = (_stream_content(kind, name, spec), UNRESTRICTED)
    contents |= {(VIEW, name): (view.content(), view.residency) for name, view in views.items()}
    contents |= {(ON_DEMAND, name): (view.content(digests), view.residency) for name, view in on_demand.items()}
    contents |= {
        (SERVICE, name): (service.content(digests, computed), UNRESTRICTED) for name, service in services.items()
    }
    classes = {
        (VIEW, name): {feature.name: view.residency_of(feature.name) for feature in view.features}
        for name, view in views.items()
    }
    return {
        key: ReadDefinition(
            content=content,
            digest=content_digest(content),
            residency=residency,
            spec=specs[key],
            column_residency=classes.get(key, {}),
        )
        for key, (content, residency) in contents.items()
    }


def _stream_content(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, JsonValue]:
    members = inner(spec, kind)
    batch = members.get("batchSource")
    return {
        "format": 1,
        "kind": kind,
        **read_stream(members, owner=name).content(),
        "batch_source": read_source(object_of(batch, kind), owner=name).content() if batch else None,
    }
