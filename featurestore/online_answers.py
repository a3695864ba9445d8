"""Questions and answers of online reads, in the JSON that Feast's feature server speaks at `/get-online-features`.

A question names a service, or features as `view:feature`, and gives the values of each join key. An answer is columns:
`metadata.feature_names`, and for each of them `values`, `statuses` and `event_timestamps`. As Feast does, a value that
is stored and missing is `PRESENT` and null. What is older than its view's TTL is `OUTSIDE_MAX_AGE` and null, where
Feast gives it out. What a region may not hold is `NOT_FOUND`, and `metadata.fairlead.missing_views` names it.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from fairlead.core.errors import InvalidInput
from fairlead.featurestore.online_engines import NEWEST
from fairlead.featurestore.online_reader import StoredView, ViewColumns, count_entities

ENTITIES_MAX = 10_000
"""How many entities one question may be about."""

_STATUSES = {
    "present": "PRESENT",
    "expired": "OUTSIDE_MAX_AGE",
    "not_found": "NOT_FOUND",
    "not_in_region": "NOT_FOUND",
}
_NO_TIME = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: features of a service (in a slot), or of views by name, for entities in columns of one length."""

    entities: Mapping[str, Sequence[Any]]
    service: str | None
    slot: str
    features: tuple[tuple[str, str], ...]
    has_full_names: bool
    max_staleness_seconds: float | None

    @property
    def count(self) -> int:
        """How many entities it is about."""
        return count_entities(self.entities)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which features of which views of a store are given, by alias and the feature's own name, and under which name."""

    views: Mapping[str, Mapping[str, str]]

    @property
    def names(self) -> list[str]:
        """The names of the answer's features, in order."""
        return [name for features in self.views.values() for name in features.values()]


@dataclass(slots=True, kw_only=True)
class Columns:
    """The columns of an answer, which grow one by one."""

    names: list[str] = field(default_factory=list[str])
    results: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, name: str, values: Sequence[Any], statuses: object, moments: object) -> None:
        """One more."""
        self.names.append(name)
        self.results.append({"values": values, "statuses": statuses, "event_timestamps": moments})

    def to_json(self, labels: Mapping[str, Any]) -> bytes:
        """The answer's body; `labels` say what it was answered from."""
        return orjson.dumps(
            {"metadata": {"feature_names": self.names, "fairlead": labels}, "results": self.results},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )


def parse_question(body: bytes) -> Question:
    """Read a request's body.

    Raises:
        InvalidInput: naming the member that is not as it should be.
    """
    try:
        said = orjson.loads(body)
    except ValueError:
        raise InvalidInput("The body is not JSON.", hint="Check its quotes, commas and braces.") from None
    if not isinstance(said, dict):
        raise _wrong("#", "an object", said)
    members = cast("dict[str, Any]", said)
    service: Any = members.get("feature_service")
    features: Any = members.get("features") or []
    if service is not None and not (isinstance(service, str) and service):
        raise _wrong("#/feature_service", "a name", service)
    if not isinstance(features, list) or not all(isinstance(each, str) for each in cast("list[object]", features)):
        raise _wrong("#/features", "a list of VIEW:FEATURE", features)
    if (service is None) == (not features):
        raise InvalidInput(
            "The request names neither a feature service nor features." if service is None else "It names both.",
            hint='Send "feature_service": NAME, or "features": ["VIEW:FEATURE", ...].',
        )
    name, _, slot = (service or "").partition("@")
    return Question(
        entities=_entities(members.get("entities")),
        service=name or None,
        slot=slot or NEWEST,
        features=tuple(map(_reference, cast("list[str]", features))),
        has_full_names=_flag(members, "full_feature_names"),
        max_staleness_seconds=_seconds(members.get("max_staleness_seconds")),
    )


def _entities(said: object) -> dict[str, Sequence[Any]]:
    if not isinstance(said, dict):
        raise _wrong("#/entities", "an object of lists, one for each join key", said)
    entities = cast("dict[str, Any]", said)
    for name, values in entities.items():
        if not isinstance(values, list):
            raise _wrong(f"#/entities/{name[:80]}", "a list", values)
    lengths = {len(values) for values in entities.values()}
    if len(lengths) > 1:
        raise InvalidInput("The lists of `entities` have different lengths.", hint="Send one value for each entity.")
    if max(lengths, default=0) > ENTITIES_MAX:
        raise InvalidInput(f"The request is about more than {ENTITIES_MAX} entities.", hint="Ask in several requests.")
    return entities


def _reference(text: str) -> tuple[str, str]:
    view, colon, feature = text.partition(":")
    if not (view and colon and feature):
        raise _wrong("#/features", "VIEW:FEATURE", text)
    return view, feature


def _flag(members: Mapping[str, Any], name: str) -> bool:
    said: object = members.get(name, False)
    if not isinstance(said, bool):
        raise _wrong(f"#/{name}", "true or false", said)
    return said


def _seconds(said: object) -> float | None:
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float) or said < 0:
        raise _wrong("#/max_staleness_seconds", "a number of seconds", said)
    return float(said)


def _wrong(pointer: str, wanted: str, said: object) -> InvalidInput:
    return InvalidInput(
        f"The request is not valid: {pointer} should be {wanted}.",
        hint="It is what Feast's feature server takes; docs/reference/feature-server.md says it.",
        errors=[{"in": "body", "pointer": pointer, "detail": f"should be {wanted}, not {str(said)[:80]}"}],
    )


def select_all(views: Sequence[StoredView], hidden: Collection[str], *, has_full_names: bool) -> Selection:
    """Every feature of a service but the hidden ones, which are named as they are stored."""
    return Selection(
        views={
            view.alias: {
                own: f"{view.alias}__{own}" if has_full_names else name
                for name, _, own in view.features
                if name not in hidden
            }
            for view in views
        }
    )


def select(
    views: Sequence[StoredView], features: Sequence[tuple[str, str]], *, has_full_names: bool
) -> Selection | None:
    """Features by view and name, in the order of the first of each view; None where the store lacks one of them.

    Raises:
        InvalidInput: if two have one name.
    """
    stored = {view.alias: {own for _, _, own in view.features} for view in views if _has_own_keys(view)}
    if any(feature not in stored.get(view, ()) for view, feature in features):
        return None
    chosen: dict[str, dict[str, str]] = {}
    for view, feature in features:
        chosen.setdefault(view, {})[feature] = f"{view}__{feature}" if has_full_names else feature
    selection = Selection(views=chosen)
    if repeated := sorted({name for name in selection.names if selection.names.count(name) > 1}):
        raise InvalidInput(f"Two of the features are called {repeated[0]!r}.", hint='Send "full_feature_names": true.')
    return selection


def _has_own_keys(view: StoredView) -> bool:
    return all(name == own for name, _, own in view.keys)


def answer(
    question: Question, views: Sequence[StoredView], found: Sequence[ViewColumns], selection: Selection
) -> Columns:
    """The columns of the join keys, then those of the features that are selected."""
    columns = Columns()
    count = question.count
    wanted = [view for view in views if view.alias in selection.views]
    keys = {name: kind for view in wanted for name, kind, _ in view.asked_keys}
    present = orjson.Fragment(orjson.dumps(["PRESENT"] * count))
    no_times = orjson.Fragment(orjson.dumps([_NO_TIME] * count))
    for name, values in question.entities.items():
        if name in keys:
            columns.add(name, _to_keys(values, keys[name]), present, no_times)
    by_view = {each.view: each for each in found}
    for view in wanted:
        said = by_view[view.alias]
        moments = orjson.Fragment(orjson.dumps([_NO_TIME if each is None else _time(each) for each in said.moments]))
        statuses = orjson.Fragment(orjson.dumps([_STATUSES[each] for each in said.statuses]))
        kinds = {own: (name, kind) for name, kind, own in view.features}
        for own, shown in selection.views[view.alias].items():
            name, kind = kinds[own]
            columns.add(shown, to_json_values(said.features[name], kind), statuses, moments)
    return columns


def _to_keys(values: Sequence[Any], kind: str) -> Sequence[Any]:
    """Join keys as what they were read as: whole numbers, whatever they were sent as."""
    if kind == "STRING" or all(type(each) is int for each in values):
        return values
    return [None if each is None else _to_whole(each) for each in values]


def _to_whole(value: Any) -> Any:
    number = int(value)
    # JSON's writer takes no larger ones, and no entity has one.
    return number if -(2**63) <= number < 2**63 else value


def add_computed(columns: Columns, name: str, values: Sequence[Any], kind: str) -> None:
    """One more column, which was made of others."""
    count = len(values)
    columns.add(name, to_json_values(values, kind), ["PRESENT"] * count, [_NO_TIME] * count)


def to_json_values(values: Sequence[Any], kind: str) -> Sequence[Any]:
    """Values as Feast's JSON has them: bytes in base64, times in seconds, floats that are no number as text."""
    base = kind.removesuffix("_LIST")
    if base in {"FLOAT", "DOUBLE"}:
        flat = values if base == kind else [item for each in values if each is not None for item in each]
        if all(each is None or math.isfinite(each) for each in flat):
            return values
    convert = _CONVERTERS.get(base)
    if convert is None:
        return values
    if base == kind:
        return [None if each is None else convert(each) for each in values]
    return [None if each is None else [None if item is None else convert(item) for item in each] for each in values]


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "FLOAT": _float,
    "DOUBLE": _float,
    "BYTES": lambda value: base64.b64encode(value).decode("ascii"),
    "UNIX_TIMESTAMP": lambda value: int(value.timestamp()),
}


def _time(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if fraction == 0:
        return text + "Z"
    return f"{text}.{fraction // 1000:03d}Z" if fraction % 1000 == 0 else f"{text}.{fraction:06d}Z"
