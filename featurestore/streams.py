"""Where rows of a view come from as they happen, beside its batch source: read from Feast's JSON, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import FeatureDefinitionInvalid, JsonValue
from fairlead.core.ids import parse_name, sha256_digest

PUSH = "PUSH_SOURCE"
# Feast's options of each kind of stream, and which of them say where its rows are.
_KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    PUSH: ("", ()),
    "STREAM_KAFKA": ("kafkaOptions", ("kafkaBootstrapServers", "topic", "messageFormat")),
    "STREAM_KINESIS": ("kinesisOptions", ("region", "streamName", "recordFormat")),
    "CUSTOM_SOURCE": ("customOptions", ("configuration",)),
}
STREAM_KINDS = ("PushSource", "KafkaSource", "KinesisSource")
"""Feast's classes of stream sources; each brings its batch source along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDefinition:
    """A stream of rows: pushed by name, or read from a topic. `place` is what Feast's options say of where it is."""

    name: str
    kind: str
    place: Mapping[str, JsonValue]

    def content(self) -> dict[str, JsonValue]:
        """What of it changes which rows come."""
        return {"name": self.name, "kind": self.kind, "place": dict(self.place)}

    def to_feast(self) -> dict[str, JsonValue]:
        """Feast's JSON of it, as far as it is kept."""
        options, _ = _KINDS[self.kind]
        return {"name": self.name, "type": self.kind, **({options: dict(self.place)} if options else {})}


def stream_from_content(content: Mapping[str, Any]) -> StreamDefinition:
    """The inverse of `StreamDefinition.content`."""
    return StreamDefinition(name=content["name"], kind=content["kind"], place=content["place"])


def read_stream(members: Mapping[str, Any], *, owner: str) -> StreamDefinition:
    """Read Feast's JSON of a stream source; `owner` names its view, or itself.

    Raises:
        FeatureDefinitionInvalid: if it is of a kind that has no meaning here.
        InvalidName: if the name breaks a rule of names.
    """
    kind = str(members.get("type", ""))
    if kind not in _KINDS:
        raise FeatureDefinitionInvalid(
            f"{owner!r} has a stream source of kind {kind[:40]!r}, which is not supported.",
            hint="Use a feast.PushSource, KafkaSource or KinesisSource.",
        )
    options, wanted = _KINDS[kind]
    said: Any = members.get(options, {}) if options else {}
    place: dict[str, JsonValue] = {name: said[name] for name in wanted if isinstance(said, dict) and name in said}
    return StreamDefinition(name=parse_name(str(members.get("name", "")), what="stream source"), kind=kind, place=place)


def transformation_digest(members: Mapping[str, Any]) -> str | None:
    """The sha256 of what a stream view's rows go through before they are in its batch source; None: nothing.

    Whoever runs the stream runs it; here it only makes another version. Of a function its source text counts, or
    where there is none its pickled bytes, which are never loaded.
    """
    transformation: Any = members.get("featureTransformation") or {}
    function: Any = members.get("userDefinedFunction") or transformation.get("userDefinedFunction") or {}
    said = {
        "function": function.get("bodyText") or function.get("body"),
        "other": {key: value for key, value in transformation.items() if key != "userDefinedFunction"} or None,
        "aggregations": members.get("aggregations") or None,
    }
    return sha256_digest(canonical_json(said)) if any(said.values()) else None
