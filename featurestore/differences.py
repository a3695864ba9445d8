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
from fairlead.featurestore.definitions import DUMMY_ENTITY, DUMMY_KEY, SERVICE, VIEW, columns_content
from fairlead.featurestore.on_demand import ON_DEMAND

Effect = Literal["breaks", "values", "adds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference. `path` names what differs (`view cells / feature radius`); None: it is not on that side."""

    path: str
    effect: Effect
    before: JsonValue
    after: JsonValue
    feature: str | None = None


def definition_differences(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """What differs between two contents of one kind; of a service, what its views are is left to the views."""
    if kind == VIEW:
        return view_differences(before, after)
    if kind == ON_DEMAND:
        return on_demand_differences(before, after)
    if kind == SERVICE:
        return service_differences(before, after, {}, {})
    return _member_differences(f"{kind} {after['name']}", before, after)


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
    said = {"name", "keys", "entities", "features", "source"}
    return found + _member_differences(at, _without(before, said), _without(after, said))


def on_demand_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """What differs between two contents of an on-demand view; what its inputs are is left to those views."""
    at = f"on-demand view {after['name']}"
    found = _column_differences(at, before["features"], after["features"])
    order = [[column["name"] for column in side["features"]] for side in (before, after)]
    if order[0] != order[1] and sorted(order[0]) == sorted(order[1]):
        found.append(_difference(f"{at} / order of features", "values", order[0], order[1]))
    asked = [{column["name"]: column["type"] for column in side["request"]} for side in (before, after)]
    for name in sorted({*asked[0], *asked[1]}):
        old, new = asked[0].get(name), asked[1].get(name)
        if old != new:
            # Whoever asks has to send it; what need not be sent any more is not looked at.
            effect: Effect = "values" if new is None else "breaks"
            found.append(_difference(f"{at} / request {name}", effect, old, new))
    old_inputs, new_inputs = ({each["view"]: each["features"] for each in side["inputs"]} for side in (before, after))
    found += _member_differences(f"{at} / inputs", old_inputs, new_inputs)
    said = {"features", "request", "inputs"}
    return found + _member_differences(at, _without(before, said), _without(after, said))


def service_differences(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    views_before: Mapping[str, Mapping[str, Any]],
    views_after: Mapping[str, Mapping[str, Any]],
) -> list[Difference]:
    """What differs between two contents of a feature service.

    The views are the contents that each pins, by name, on-demand views among them.
    """
    at = f"service {after['name']}"
    found: list[Difference] = []
    if before["name"] != after["name"]:
        found.append(_difference(f"{at} / name", "values", before["name"], after["name"]))
    for member, noun in (("views", "view"), ("on_demand", "on-demand view")):
        old = {view["alias"]: view for view in before.get(member, [])}
        new = {view["alias"]: view for view in after.get(member, [])}
        for alias in sorted({*old, *new}):
            found += _projection_differences(f"{at} / {noun} {alias}", old.get(alias), new.get(alias))
        kept = [alias for alias in old if alias in new]
        if kept != [alias for alias in new if alias in old]:
            found.append(_difference(f"{at} / order of {noun}s", "values", list(old), list(new)))
    # A view that is taken twice is described once.
    for name in sorted(views_before.keys() & views_after.keys()):
        one, other = views_before[name], views_after[name]
        found += definition_differences(one["kind"], one, other) if one["kind"] == other["kind"] else []
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


def _projection_differences(at: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> list[Difference]:
    """What differs in what a service takes of one view; what it only has fetched for on-demand views nobody reads."""
    before, after = _taken(old), _taken(new)
    found = [
        _difference(f"{at} / feature {name}", "breaks", name, None, feature=name)
        for name in before
        if name not in after
    ]
    found += [
        _difference(f"{at} / feature {name}", "adds", None, name, feature=name) for name in after if name not in before
    ]
    if old is None or new is None:
        return found or [_difference(at, "values", old and old["view"], new and new["view"])]
    if old["view"] != new["view"]:
        found.append(_difference(f"{at} / view", "values", old["view"], new["view"]))
    if old.get("join_key_map") != new.get("join_key_map"):
        found.append(_difference(f"{at} / join_key_map", "breaks", old["join_key_map"], new["join_key_map"]))
    kept = [name for name in before if name in after]
    if kept != [name for name in after if name in before]:
        found.append(_difference(f"{at} / order of features", "values", list(before), list(after)))
    fetched = [[name for name in side["features"] if name in side.get("hidden", ())] for side in (old, new)]
    if fetched[0] != fetched[1]:
        found.append(_difference(f"{at} / fetched for on-demand views", "values", fetched[0], fetched[1]))
    elif not found and list(old["features"]) != list(new["features"]):
        found.append(_difference(f"{at} / order of features", "values", old["features"], new["features"]))
    return found


def _taken(projection: Mapping[str, Any] | None) -> list[str]:
    if projection is None:
        return []
    return [name for name in projection["features"] if name not in projection.get("hidden", ())]


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


def _without(content: Mapping[str, Any], members: set[str]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in members}


def _difference(path: str, effect: Effect, before: Any, after: Any, *, feature: str | None = None) -> Difference:
    return Difference(path=path, effect=effect, before=before, after=after, feature=feature)


def _named(columns: Sequence[Any]) -> list[JsonValue]:
    return [
        each if isinstance(each, str) else f"{each['name']}: {each['type']}"
        for each in columns
        if each not in (DUMMY_ENTITY, *columns_content([DUMMY_KEY]))
    ]
