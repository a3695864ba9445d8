"""Residency classes as definitions say them: a view's tag, and the tags of its fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fairlead.catalog.residency import UNRESTRICTED, Residency, is_within, parse_residency
from fairlead.core.errors import FeatureDefinitionInvalid
from fairlead.featurestore.feast_json import inner, list_of, object_of

RESIDENCY_TAG = "fairlead.residency"
_VIEW = "FeatureView"


def read_residency(members: Mapping[str, Any]) -> Residency:
    """The class of a view or a field in Feast's JSON.

    Raises:
        UnknownResidency: if its tag names no class.
    """
    tags = object_of(members.get("tags", {}), _VIEW)
    return parse_residency(str(tags.get(RESIDENCY_TAG, UNRESTRICTED)))


def read_column_residency(
    view: str, members: Mapping[str, Any], keys: Collection[str], residency: Residency
) -> dict[str, Residency]:
    """The classes of the fields of a view that are under another one than the view.

    Raises:
        FeatureDefinitionInvalid: if a key has one, or a field may be where the view's keys may not.
        UnknownResidency: if a tag names no class.
    """
    found: dict[str, Residency] = {}
    for member in ("features", "entityColumns"):
        for each in list_of(members.get(member), _VIEW):
            column = object_of(each, _VIEW)
            if RESIDENCY_TAG not in object_of(column.get("tags", {}), _VIEW):
                continue
            name, under = str(column.get("name", "")), read_residency(column)
            if under == residency:
                continue
            if name in keys:
                raise FeatureDefinitionInvalid(
                    f"The key {name!r} of view {view!r} is under {under!r}, and keys lie with every feature.",
                    hint=f"Put the view under that class: tags={{{RESIDENCY_TAG!r}: {str(under)!r}}}.",
                    view=view,
                )
            if not is_within(under, residency):
                raise FeatureDefinitionInvalid(
                    f"Feature {name!r} of view {view!r} is under {under!r}, and may so be where the view's keys, which "
                    f"are under {residency!r}, may not.",
                    hint="Give it a class within the view's, or put it into a view of its own.",
                    view=view,
                )
            found[name] = under
    return found


def changed_class(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """The first feature whose class would become another one, or None."""
    return next((name for name in sorted(before) if after.get(name, before[name]) != before[name]), None)


def feature_names(spec: Mapping[str, Any]) -> list[str]:
    """The names of a view's features in Feast's JSON."""
    return [str(object_of(each, _VIEW).get("name", "")) for each in list_of(inner(spec, _VIEW).get("features"), _VIEW)]
