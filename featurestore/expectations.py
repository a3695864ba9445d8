"""Expectations: what must be true of a snapshot's rows before it is served or promoted. Pure values.

A set of expectations is about one service, or about one view in whatever service takes it. Each expectation is of a
kind, and has limits of that kind:

    nulls      a feature is missing in at most a share of the rows            feature, at_most
    range      a feature lies between bounds, but for a share of its values   feature, min, max, at_most (0)
    values     a feature is one of some values, but for a share               feature, allowed, at_most (0)
    unique     no two rows of an entity have one event time; `by: keys`: no   by, at_most (0)
               entity has two rows
    rows       so many rows, and so much change of their number               min, max, change_at_most
    freshness  the last event is not older than this as of the snapshot       at_most (a duration)
    drift      a feature's values are spread as in the snapshot before        feature, psi_at_most, ks_at_most

Of severity `error` (the usual one) it keeps a snapshot that fails it from being served; of severity `warning` it only
says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args

from fairlead.core.errors import InvalidInput
from fairlead.core.ids import parse_name
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.registry.gates import parse_duration

ExpectationKind = Literal["nulls", "range", "values", "unique", "rows", "freshness", "drift"]
Severity = Literal["error", "warning"]

EXPECTATIONS_MAX = 200
ALLOWED_MAX = 1000

_OF_FEATURE = {"nulls", "range", "values", "drift"}
_LIMITS: Mapping[ExpectationKind, frozenset[str]] = {
    "nulls": frozenset({"at_most"}),
    "range": frozenset({"min", "max", "at_most"}),
    "values": frozenset({"allowed", "at_most"}),
    "unique": frozenset({"by", "at_most"}),
    "rows": frozenset({"min", "max", "change_at_most"}),
    "freshness": frozenset({"at_most"}),
    "drift": frozenset({"psi_at_most", "ks_at_most"}),
}
_NEEDED: Mapping[ExpectationKind, frozenset[str]] = {
    "nulls": frozenset({"at_most"}),
    "range": frozenset({"min", "max"}),
    "values": frozenset({"allowed"}),
    "rows": frozenset({"min", "max", "change_at_most"}),
    "freshness": frozenset({"at_most"}),
    "drift": frozenset({"psi_at_most", "ks_at_most"}),
}
_NUMBERS = frozenset({"INT32", "INT64", "FLOAT", "DOUBLE"})
_WITHOUT_ORDER = frozenset({"BOOL", "STRING", "BYTES"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One expectation; `view` says of which view where the set is about a service."""

    name: str
    kind: ExpectationKind
    severity: Severity = "error"
    view: str | None = None
    feature: str | None = None
    at_most: float | str | None = None
    min: float | None = None
    max: float | None = None
    allowed: tuple[str | float | bool, ...] | None = None
    by: Literal["keys", "keys_and_time"] | None = None
    change_at_most: float | None = None
    psi_at_most: float | None = None
    ks_at_most: float | None = None

    @property
    def seconds(self) -> float:
        """The limit of a freshness."""
        return parse_duration(str(self.at_most)).total_seconds()

    @property
    def share(self) -> float:
        """The limit of what is a share of the rows."""
        return float(self.at_most or 0.0)

    @property
    def needs_previous(self) -> bool:
        """Whether it compares with the snapshot before."""
        return self.kind == "drift" or self.change_at_most is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationSet:
    """Expectations of a service's snapshots, or of a view's rows in any snapshot; exactly one of the two is named."""

    service: str | None = None
    view: str | None = None
    expectations: tuple[Expectation, ...] = ()


def to_json(expected: ExpectationSet) -> dict[str, Any]:
    """A set as the record keeps it, and as its owners write it."""
    about = {"service": expected.service} if expected.view is None else {"view": expected.view}
    return about | {"expectations": [expectation_to_json(each) for each in expected.expectations]}


def expectation_to_json(expectation: Expectation) -> dict[str, Any]:
    """An expectation with the members that it says."""
    said = {each.name: getattr(expectation, each.name) for each in fields(expectation)}
    return {
        name: list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
        for name, value in said.items()
        if value is not None
    }


def from_json(document: Mapping[str, Any]) -> ExpectationSet:
    """Read a set; an expectation without a name is called after what it is about.

    Raises:
        InvalidInput: if an expectation says what its kind does not have.
    """
    items: Sequence[Mapping[str, Any]] = document.get("expectations") or []
    return ExpectationSet(
        service=document.get("service"),
        view=document.get("view"),
        expectations=tuple(expectation_from_json(item) for item in items),
    )


def expectation_from_json(item: Mapping[str, Any]) -> Expectation:
    """Read one expectation.

    Raises:
        InvalidInput: if it says what there is not.
    """
    said = {name: value for name, value in item.items() if value is not None}
    unknown = sorted(set(said) - {each.name for each in fields(Expectation)})
    if unknown or said.get("kind") not in get_args(ExpectationKind):
        what = f"has no member {unknown[0]!r}" if unknown else f"is of one of the kinds {', '.join(_LIMITS)}"
        raise InvalidInput(f"An expectation {what}.", hint="See docs/how-to/check-snapshots.md for what each kind has.")
    subject = said.get("feature") or said.get("view")
    said.setdefault("name", f"{subject}-{said['kind']}" if subject else said["kind"])
    if isinstance(said.get("allowed"), Sequence):
        said["allowed"] = tuple(said["allowed"])
    return Expectation(**said)


def check_set(expected: ExpectationSet) -> None:
    """Refuse a set that could not be checked, whatever the features are.

    Raises:
        InvalidInput: naming the expectation.
    """
    if (expected.service is None) == (expected.view is None):
        raise InvalidInput("A set of expectations is about a service or about a view.", hint="Name one of the two.")
    if not 0 < len(expected.expectations) <= EXPECTATIONS_MAX:
        raise InvalidInput(f"A set holds 1 to {EXPECTATIONS_MAX} expectations.", hint="Make two sets of it.")
    names = [parse_name(each.name, what="expectation") for each in expected.expectations]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"Two expectations are called {twice!r}.", hint="Give each a name of its own: name: NAME")
    for each in expected.expectations:
        if problem := _problem(each, needs_view=expected.view is None):
            raise InvalidInput(f"The expectation {each.name!r} {problem}.", hint="Correct it and apply it again.")


def check_features(expected: ExpectationSet, views: Mapping[str, ViewDefinition]) -> None:
    """Refuse expectations of features that the views (by name) do not have, or not of a type that fits.

    Raises:
        InvalidInput: naming the expectation, the view and the feature.
    """
    for each in expected.expectations:
        name = each.view or expected.view or ""
        view = views.get(name)
        if view is None:
            raise InvalidInput(
                f"The expectation {each.name!r} is about view {name!r}, which {expected.service!r} does not take.",
                hint=f"It takes: {', '.join(sorted(views))[:400]}.",
            )
        types = {column.name: column.type for column in view.features}
        if each.kind in _OF_FEATURE and each.feature not in types:
            raise InvalidInput(
                f"The expectation {each.name!r} is about {each.feature!r}, which view {name!r} does not have.",
                hint=f"It has: {', '.join(sorted(types))[:400]}.",
            )
        kind = types.get(each.feature or "", "")
        if each.kind == "range" and kind not in _NUMBERS:
            raise InvalidInput(f"The expectation {each.name!r} gives a range for {each.feature!r}, which is {kind}.")
        if each.ks_at_most is not None and kind in _WITHOUT_ORDER:
            raise InvalidInput(
                f"The expectation {each.name!r} limits the KS of {each.feature!r}, and its values have no order.",
                hint="Limit its PSI: psi_at_most",
            )
        if each.kind == "values" and not _fits(each.allowed or (), kind):
            raise InvalidInput(
                f"The expectation {each.name!r} allows values that {each.feature!r}, which is {kind}, cannot have."
            )


def _problem(each: Expectation, *, needs_view: bool) -> str | None:
    if each.severity not in get_args(Severity):
        return "has a severity that is neither error nor warning"
    if needs_view and each.view is None:
        return "does not say of which view it is"
    if (each.feature is not None) != (each.kind in _OF_FEATURE):
        return (
            "needs a feature" if each.feature is None else f"is of the kind {each.kind}, which is not about a feature"
        )
    limits = ("at_most", "min", "max", "allowed", "by", "change_at_most", "psi_at_most", "ks_at_most")
    said = {name for name in limits if getattr(each, name) is not None}
    if foreign := sorted(said - _LIMITS[each.kind]):
        return f"is of the kind {each.kind}, which has no {foreign[0]}"
    needed = _NEEDED.get(each.kind)
    if needed is not None and not said & needed:
        return f"says none of {', '.join(sorted(needed))}"
    if each.kind == "freshness":
        return None if isinstance(each.at_most, str) and each.seconds > 0 else "needs a duration such as 36h"
    return _wrong_number(each)


def _wrong_number(each: Expectation) -> str | None:
    numbers = (each.at_most, each.min, each.max, each.change_at_most, each.psi_at_most, each.ks_at_most)
    for number in numbers:
        if number is not None and (isinstance(number, str | bool) or not math.isfinite(number)):
            return "has a limit that is no number"
    if not 0 <= each.share <= 1:
        return "has an at_most that is no share: it lies between 0 and 1"
    if any(limit is not None and limit < 0 for limit in (each.change_at_most, each.psi_at_most, each.ks_at_most)):
        return "has a limit below 0"
    if each.min is not None and each.max is not None and each.min > each.max:
        return "has a min above its max"
    if each.by not in {None, "keys", "keys_and_time"}:
        return "is unique by keys or by keys_and_time"
    if each.allowed is not None and not 0 < len(each.allowed) <= ALLOWED_MAX:
        return f"allows none or more than {ALLOWED_MAX} values"
    return None


def _fits(allowed: Iterable[object], kind: str) -> bool:
    if kind in _NUMBERS:
        return all(isinstance(each, int | float) and not isinstance(each, bool) for each in allowed)
    return kind in {"BOOL", "STRING"} and all(isinstance(each, bool if kind == "BOOL" else str) for each in allowed)
