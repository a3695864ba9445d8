"""What is different between two versions of a view, of a service, or between two snapshots, and what it means.

A difference says at which member of the content it is and what it does to whoever reads: it *breaks* a reader (a
feature or a key is gone, or of another type), changes *values* that the same question gets, or *adds* something that
nobody asked for before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fairlead.core.errors import JsonValue
from fairlead.featurestore.definitions import DUMMY_ENTITY

Effect = Literal["breaks", "values", "adds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference. `path` names what differs (`view cells / feature radius`); None: it is not on that side."""

    path: str
    effect: Effect
    before: JsonValue
    after: JsonValue
    feature: str | None = None


def view_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """What differs between two contents of a feature view."""
    at = f"view {after['name']}"
    found: list[Difference] = []
    if before["name"] != after["name"]:
        found.append(_difference(f"{at} / name", "values", before["name"], after["name"]))
    for member in ("keys", "entities"):
        old, new = before[member], after[member]
        if old != new:
            # A join needs every key, so one more breaks it as well.
            effect: Effect = "breaks" if member == "keys" else "values"
            found.append(_difference(f"{at} / {member}", effect, _named(old), _named(new)))
    found += _column_differences(at, before["features"], after["features"])
    found += _member_differences(f"{at} / source", before["source"], after["source"])
    if before["ttl_seconds"] != after["ttl_seconds"]:
        found.append(_difference(f"{at} / ttl_seconds", "values", before["ttl_seconds"], after["ttl_seconds"]))
    return found


def service_differences(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    views_before: Mapping[str, Mapping[str, Any]],
    views_after: Mapping[str, Mapping[str, Any]],
) -> list[Difference]:
    """What differs between two contents of a feature service; the views are the contents that each pins, by name."""
    at = f"service {after['name']}"
    old = {view["alias"]: view for view in before["views"]}
    new = {view["alias"]: view for view in after["views"]}
    found: list[Difference] = []
    for alias in sorted({*old, *new}):
        where = f"{at} / view {alias}"
        if alias not in new or alias not in old:
            gone = alias not in new
            taken = old[alias]["features"] if gone else new[alias]["features"]
            found += [
                _difference(
                    f"{where} / feature {name}", "breaks" if gone else "adds", name if gone else None,
                    None if gone else name, feature=name,
                )
                for name in taken
            ]  # fmt: skip
            continue
        found += _taken_differences(where, old[alias], new[alias])
    # A view that is taken twice is described once.
    for name in sorted(views_before.keys() & views_after.keys()):
        found += view_differences(views_before[name], views_after[name])
    return found


def snapshot_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """What differs between the data of two snapshots: `{as_of, parts: {view: {digest, rows, statistics}}}` each."""
    found: list[Difference] = []
    if before["as_of"] != after["as_of"]:
        found.append(_difference("as_of", "values", before["as_of"], after["as_of"]))
    for view in sorted({*before["parts"], *after["parts"]}):
        at = f"data of {view}"
        old, new = before["parts"].get(view), after["parts"].get(view)
        if old is None or new is None:
            found.append(
                _difference(at, "adds" if old is None else "breaks", old and old["digest"], new and new["digest"])
            )
            continue
        if old["digest"] == new["digest"]:
            continue
        found.append(_difference(f"{at} / digest", "values", old["digest"], new["digest"]))
        facts_of_old: dict[str, Any] = {"rows": old["rows"], **(old["statistics"] or {})}
        facts_of_new: dict[str, Any] = {"rows": new["rows"], **(new["statistics"] or {})}
        found += _member_differences(at, facts_of_old, facts_of_new)
    return found


def _taken_differences(at: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    found = [
        _difference(f"{at} / feature {name}", "breaks", name, None, feature=name)
        for name in old["features"]
        if name not in new["features"]
    ]
    found += [
        _difference(f"{at} / feature {name}", "adds", None, name, feature=name)
        for name in new["features"]
        if name not in old["features"]
    ]
    if old["view"] != new["view"]:
        found.append(_difference(f"{at} / view", "values", old["view"], new["view"]))
    if old["join_key_map"] != new["join_key_map"]:
        found.append(_difference(f"{at} / join_key_map", "breaks", old["join_key_map"], new["join_key_map"]))
    kept = [name for name in old["features"] if name in new["features"]]
    if kept != [name for name in new["features"] if name in old["features"]]:
        found.append(_difference(f"{at} / order of features", "values", old["features"], new["features"]))
    return found


def _column_differences(
    at: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[Difference]:
    before = {column["name"]: column["type"] for column in old}
    after = {column["name"]: column["type"] for column in new}
    found: list[Difference] = []
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            effect: Effect = "breaks" if name in before else "adds"
            path = f"{at} / feature {name}"
            found.append(_difference(path, effect, before.get(name), after.get(name), feature=name))
    return found


def _member_differences(at: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    found: list[Difference] = []
    for name in sorted({*old, *new}):
        one, other = old.get(name), new.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _member_differences(f"{at} / {name}", one, other)
        elif one != other:
            found.append(_difference(f"{at} / {name}", "values", one, other))
    return found


def _difference(path: str, effect: Effect, before: Any, after: Any, *, feature: str | None = None) -> Difference:
    return Difference(path=path, effect=effect, before=before, after=after, feature=feature)


def _named(columns: Sequence[Any]) -> list[JsonValue]:
    return [
        each if isinstance(each, str) else f"{each['name']}: {each['type']}" for each in columns if each != DUMMY_ENTITY
    ]
