"""Feature definitions as values: read from Feast's protobuf JSON, and named by what they mean.

An entity, a feature view or a feature service comes as Feast writes it (`MessageToDict(obj.to_proto())`). What is kept
of it is its *content*: everything that changes the values or the schema somebody reads, and nothing else. Its digest is
the sha256 of the content's canonical JSON, so a description, a tag or an owner makes no new version, and going back
to an earlier definition is that earlier version again.

A definition is data. Nothing here runs code that came with it, and what could only work by running code here (views
that a transformation fills) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from fairlead.catalog.residency import Residency
from fairlead.core.canonical import canonical_json
from fairlead.core.errors import FeatureDefinitionInvalid, JsonValue
from fairlead.core.ids import Digest, sha256_digest
from fairlead.featurestore.feast_json import column_name, inner, list_of, name_of, object_of
from fairlead.featurestore.residency_tags import read_column_residency, read_residency
from fairlead.featurestore.source_definitions import SourceDefinition, read_source, source_from_content
from fairlead.featurestore.streams import StreamDefinition, read_stream, stream_from_content, transformation_digest

HOME_TAG = "fairlead.home"
"""The tag that names the region where a view's source is read and joins run; it changes no value, so no version."""

ENTITY, VIEW, SERVICE = "Entity", "FeatureView", "FeatureService"
STREAM_VIEW = "StreamFeatureView"
"""Feast's kind of a view whose stream goes through a transformation; here it is a view like others."""

# Feast's value types and the DuckDB types that hold them.
_SCALARS = {
    "INT32": "INTEGER",
    "INT64": "BIGINT",
    "FLOAT": "FLOAT",
    "DOUBLE": "DOUBLE",
    "STRING": "VARCHAR",
    "BOOL": "BOOLEAN",
    "BYTES": "BLOB",
    "UNIX_TIMESTAMP": "TIMESTAMPTZ",
}
DUCKDB_TYPES = _SCALARS | {f"{name}_LIST": f"{kind}[]" for name, kind in _SCALARS.items()}
# What is kept as one of those: JSON as its text, whatever Feast calls it.
_KEPT_AS = {
    "JSON": "STRING",
    "MAP": "STRING",
    "SCALAR_MAP": "STRING",
    "STRUCT": "STRING",
    "UUID": "STRING",
    "TIME_UUID": "STRING",
    "PDF_BYTES": "BYTES",
    "IMAGE_BYTES": "BYTES",
}
KEY_TYPES = frozenset({"INT32", "INT64", "STRING"})

DUMMY_ENTITY = "__dummy"
"""What Feast calls the entity of a view that has none; nobody may define it."""

# Parts of a view whose values would come from running somebody's code or from another kind of source.
_UNSUPPORTED_IN_VIEWS = {
    "featureTransformation": "a transformation",
    "userDefinedFunction": "a user-defined function",
    "sourceViews": "other views as its source",
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A named value of a Feast type, such as `FLOAT` or `STRING_LIST`."""

    name: str
    type: str


DUMMY_KEY = Column(name="__dummy_id", type="STRING")
"""The key of a view without an entity, as in Feast: `DUMMY_VALUE` in every row. Nobody is asked for it."""

DUMMY_VALUE = ""
_DUMMY_FIELD = {"name": DUMMY_KEY.name, "valueType": DUMMY_KEY.type}


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityDefinition:
    """What features describe, and the column that says which one. Without a type, the views' schemas give it."""

    name: str
    join_key: str
    type: str | None

    def content(self) -> dict[str, JsonValue]:
        """What of it changes values or schema."""
        return {"format": 1, "kind": ENTITY, "name": self.name, "join_key": self.join_key, "type": self.type}


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewDefinition:
    """A named group of features of the same entities from one source.

    `ttl_seconds` is how long after its event time a value is still given out; None is for ever. It is decimal text.
    `stream` brings rows as they happen; `transformation` names what a stream's rows go through before. `home` is the
    region where its source is read and joins run, None where the view says nothing; like `residency`, no part of its
    content. `column_residency` holds the class of features that are under another one than the view.
    """

    name: str
    entities: tuple[str, ...]
    keys: tuple[Column, ...]
    features: tuple[Column, ...]
    source: SourceDefinition
    ttl_seconds: str | None
    residency: Residency
    stream: StreamDefinition | None = None
    transformation: str | None = None
    home: str | None = None
    column_residency: Mapping[str, Residency] = field(default_factory=dict[str, Residency])

    def content(self) -> dict[str, JsonValue]:
        """What of it changes values or schema. Features are in order of name: their order in the list says nothing."""
        return {
            "format": 1,
            "kind": VIEW,
            "name": self.name,
            "entities": list(self.entities),
            "keys": columns_content(self.keys),
            "features": columns_content(sorted(self.features, key=lambda column: column.name)),
            "source": self.source.content(),
            "ttl_seconds": self.ttl_seconds,
            **({} if self.stream is None else {"stream": self.stream.content()}),
            **({} if self.transformation is None else {"transformation": self.transformation}),
        }

    @property
    def digest(self) -> Digest:
        """The name of this version of the view."""
        return content_digest(self.content())

    @property
    def asked_keys(self) -> tuple[Column, ...]:
        """The keys that whoever asks for features gives: none of a view without an entity."""
        return tuple(key for key in self.keys if key != DUMMY_KEY)

    def feature(self, name: str) -> Column | None:
        """The feature of that name, or None."""
        return next((column for column in self.features if column.name == name), None)

    def residency_of(self, feature: str) -> Residency:
        """The class that a feature's values are under."""
        return self.column_residency.get(feature, self.residency)


def content_digest(content: dict[str, JsonValue]) -> Digest:
    """The sha256 of a content's canonical JSON."""
    return sha256_digest(canonical_json(content))


def view_from_content(
    content: Mapping[str, Any],
    residency: str,
    home: str | None = None,
    column_residency: Mapping[str, str] | None = None,
) -> ViewDefinition:
    """The view that a stored content describes; the inverse of `ViewDefinition.content`."""
    return ViewDefinition(
        name=content["name"],
        entities=tuple(content["entities"]),
        keys=tuple(Column(**column) for column in content["keys"]),
        features=tuple(Column(**column) for column in content["features"]),
        source=source_from_content(content["source"]),
        ttl_seconds=content["ttl_seconds"],
        residency=Residency(residency),
        stream=stream_from_content(content["stream"]) if "stream" in content else None,
        transformation=content.get("transformation"),
        home=home,
        column_residency={
            name: Residency(under) for name, under in (column_residency or {}).items() if under != residency
        },
    )


def read_entity(spec: object) -> EntityDefinition:
    """Read Feast's JSON of an entity.

    Raises:
        FeatureDefinitionInvalid: if something is missing or of a kind that has no meaning here.
    """
    members = inner(spec, ENTITY)
    name = name_of(ENTITY, members)
    kind = str(members.get("valueType", "INVALID"))
    if kind not in KEY_TYPES and kind != "INVALID":
        raise FeatureDefinitionInvalid(
            f"Entity {name!r} has keys of type {kind[:40]}, and keys are whole numbers or strings.",
            hint=f"Give it value_type=ValueType.INT64 or ValueType.STRING: Entity(name={name!r}, value_type=...).",
            entity=name,
        )
    if name == DUMMY_ENTITY:
        raise FeatureDefinitionInvalid(
            f"An entity is called {name!r}, a name that Feast keeps for views without one.",
            hint="Call it otherwise; for features that are about no entity, leave it out: entities=[].",
            entity=name,
        )
    join_key = column_name(str(members.get("joinKey") or name), ENTITY, name)
    return EntityDefinition(name=name, join_key=join_key, type=kind if kind in KEY_TYPES else None)


def read_view(spec: object, entities: Mapping[str, EntityDefinition]) -> ViewDefinition:
    """Read Feast's JSON of a feature view over entities that are known.

    Raises:
        FeatureDefinitionInvalid: naming the view and what is missing, unknown or not supported.
    """
    members = inner(spec, VIEW)
    name = name_of(VIEW, members)
    streamed: Any = members.get("streamSource")
    for member, what in _UNSUPPORTED_IN_VIEWS.items():
        # Whoever runs a stream transforms its rows before they are in the batch source, which is what is read here.
        if members.get(member) and not (streamed and member != "sourceViews"):
            raise FeatureDefinitionInvalid(
                f"View {name!r} has {what}, which is not supported yet.",
                hint="Compute its rows where your code runs, write them to Parquet, and take that as its source.",
                view=name,
            )
    about = _read_entities(members)
    keys = _read_keys(name, about, members, entities)
    if not members.get("batchSource"):
        raise FeatureDefinitionInvalid(
            f"View {name!r} has no source.", hint="Give it source=FileSource(...).", view=name
        )
    source = read_source(members["batchSource"], owner=name)
    # Feast lists a stream view's keys among its features as well.
    listed = [each for each in list_of(members.get("features"), VIEW) if each != _DUMMY_FIELD]
    features = tuple(each for each in read_columns(name, listed) if each not in keys)
    if not features:
        raise FeatureDefinitionInvalid(
            f"View {name!r} names no features.", hint="List them: schema=[Field(name=..., dtype=...)].", view=name
        )
    names = [column.name for column in (*keys, *features)] + [source.timestamp_field]
    names += [source.created_timestamp_column] if source.created_timestamp_column else []
    # DuckDB does not tell column names apart by case.
    if repeated := sorted({each for each in names if [other.lower() for other in names].count(each.lower()) > 1}):
        raise FeatureDefinitionInvalid(
            f"View {name!r} has more than one column {repeated[0]!r}.", hint="Give each column its own name.", view=name
        )
    tags = object_of(members.get("tags", {}), VIEW)
    residency = read_residency(members)
    return ViewDefinition(
        name=name,
        entities=about,
        keys=keys,
        features=features,
        source=source,
        ttl_seconds=_read_ttl(name, members.get("ttl")),
        residency=residency,
        stream=read_stream(object_of(streamed, VIEW), owner=name) if streamed else None,
        transformation=transformation_digest(members) if streamed else None,
        home=str(tags.get(HOME_TAG, "")).strip() or None,
        column_residency=read_column_residency(name, members, {key.name for key in keys}, residency),
    )


def _read_entities(members: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(each) for each in list_of(members.get("entities"), VIEW)) or (DUMMY_ENTITY,)


def _read_keys(
    name: str, names: Sequence[str], members: dict[str, Any], entities: Mapping[str, EntityDefinition]
) -> tuple[Column, ...]:
    if names == (DUMMY_ENTITY,):
        return (DUMMY_KEY,)
    if unknown := [each for each in names if each not in entities]:
        raise FeatureDefinitionInvalid(
            f"View {name!r} is about the entity {unknown[0][:80]!r}, which is not defined.",
            hint="Apply the entity together with the view.",
            view=name,
        )
    declared = {column.name: column.type for column in read_columns(name, members.get("entityColumns"))}
    return tuple(_read_key(name, entities[each], declared) for each in names)


def _read_key(view: str, entity: EntityDefinition, declared: Mapping[str, str]) -> Column:
    kind = declared.get(entity.join_key) or entity.type
    if kind is None or kind not in KEY_TYPES or (entity.type is not None and kind != entity.type):
        raise FeatureDefinitionInvalid(
            f"View {view!r} does not say of one type that keys may have what {entity.join_key!r} is.",
            hint=f"Add Field(name={entity.join_key!r}, dtype=...) to its schema: Int64, Int32 or String.",
            view=view,
        )
    return Column(name=entity.join_key, type=kind)


def read_columns(view: str, value: object) -> tuple[Column, ...]:
    """Read Feast's JSON of features or columns; `view` names whose they are.

    Raises:
        FeatureDefinitionInvalid: if one has no name or a type that is not supported.
    """
    found: list[Column] = []
    for each in list_of(value, VIEW):
        members = object_of(each, VIEW)
        name, kind = column_name(str(members.get("name", "")), VIEW, view), str(members.get("valueType", "INVALID"))
        kind = _KEPT_AS.get(kind, kind)
        if kind not in DUCKDB_TYPES:
            raise FeatureDefinitionInvalid(
                f"Feature {name!r} of view {view!r} is of type {kind[:40]}, which is not supported.",
                hint=f"Use one of: {', '.join(sorted({*DUCKDB_TYPES, *_KEPT_AS}))}.",
                view=view,
            )
        found.append(Column(name=name, type=kind))
    return tuple(found)


def _read_ttl(view: str, value: object) -> str | None:
    if value is None:
        return None
    match = _DURATION.fullmatch(str(value))
    try:
        seconds = Decimal(match[1] if match else "")
    except InvalidOperation:
        raise FeatureDefinitionInvalid(
            f"View {view!r} has the TTL {str(value)[:40]!r}, which is no length of time.",
            hint="Give a timedelta.",
            view=view,
        ) from None
    return None if seconds == 0 else format(seconds.normalize(), "f")


def columns_content(columns: Sequence[Column]) -> list[JsonValue]:
    """Columns as plain JSON."""
    return [{"name": column.name, "type": column.type} for column in columns]
