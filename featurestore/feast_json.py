"""Reading Feast's JSON (`MessageToDict(obj.to_proto())`) as data: what is no object, list or name of it is refused."""

from __future__ import annotations

from typing import Any, cast

from fairlead.core.errors import FeatureDefinitionInvalid
from fairlead.core.ids import parse_name

_FORBIDDEN_IN_COLUMNS = frozenset('"\x00')


def name_of(kind: str, spec: object) -> str:
    """The name of an object in Feast's JSON.

    Raises:
        FeatureDefinitionInvalid: if it has no `name`, or is not an object of JSON.
        InvalidName: if the name breaks a rule of names.
    """
    return parse_name(str(inner(spec, kind).get("name", "")), what=kind)


def tags_of(kind: str, spec: object) -> dict[str, str]:
    """The tags of an object in Feast's JSON."""
    return {str(key): str(value) for key, value in object_of(inner(spec, kind).get("tags", {}), kind).items()}


def inner(spec: object, kind: str) -> dict[str, Any]:
    """The members of an object in Feast's JSON that a person wrote."""
    # Feast wraps what a person wrote in `spec` and what it found out in `meta`; either form is taken.
    members = object_of(spec, kind)
    return object_of(members["spec"], kind) if "spec" in members else members


def object_of(value: object, kind: str) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        FeatureDefinitionInvalid: if it is none.
    """
    if not isinstance(value, dict):
        raise FeatureDefinitionInvalid(
            f"A {kind} is not given as Feast's JSON.", hint="Send MessageToDict(obj.to_proto())."
        )
    return cast("dict[str, Any]", value)


def list_of(value: object, kind: str) -> list[object]:
    """A list of JSON; none is an empty one.

    Raises:
        FeatureDefinitionInvalid: if it is none.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise FeatureDefinitionInvalid(
            f"A {kind} is not given as Feast's JSON.", hint="Send MessageToDict(obj.to_proto())."
        )
    return cast("list[object]", value)


def column_name(name: str, kind: str, owner: str) -> str:
    """A text that may name a column.

    Raises:
        FeatureDefinitionInvalid: if it may not.
    """
    if not name or len(name) > 255 or set(name) & _FORBIDDEN_IN_COLUMNS or name.startswith("__"):
        raise FeatureDefinitionInvalid(
            f"{kind} {owner!r} names a column {name[:80]!r}, which cannot be one.",
            hint='Use 1 to 255 characters without quotes (") that do not begin with two underscores.',
        )
    return name
