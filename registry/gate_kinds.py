"""What gates may ask: the variables of their expressions, and of what kind each is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value. A map has values of one kind (`of`), a structure the members that it names."""

    name: str
    of: Kind | None = None
    members: tuple[tuple[str, Kind], ...] = ()
    is_nullable: bool = False

    def __str__(self) -> str:
        if self.members:
            return "a structure"
        words = {"null": "null", "any": "anything", "bool": "true or false"}
        return words.get(self.name, f"a {self.name}")

    @property
    def names(self) -> list[str]:
        """The names of a structure's members."""
        return [name for name, _ in self.members]

    def member(self, name: str) -> Kind | None:
        """The kind of a member; None where there can be none of that name."""
        if self.members:
            return dict(self.members).get(name)
        return self.of


NUMBER, TEXT, BOOL, NULL = Kind("number"), Kind("text"), Kind("bool"), Kind("null")
TIME, DURATION = Kind("time"), Kind("duration")
_UNKNOWN = Kind("any")
ANY = Kind("any", of=_UNKNOWN)
LIST = Kind("list")
NUMBERS, TEXTS, ANYTHING = Kind("map", of=NUMBER), Kind("map", of=TEXT), Kind("map", of=ANY)


def _structure(**members: Kind) -> Kind:
    return Kind("map", members=tuple(members.items()))


def _or_null(kind: Kind) -> Kind:
    return Kind(kind.name, of=kind.of, members=kind.members, is_nullable=True)


LINEAGE = _structure(
    parent=_or_null(NUMBER),
    run=_or_null(TEXT),
    code_commit=_or_null(TEXT),
    feature_service=_or_null(TEXT),
    feature_service_digest=_or_null(TEXT),
)
EVALUATION = _structure(metrics=NUMBERS, dataset=_or_null(TEXT), age=DURATION, by=TEXT)
SMOKE_TEST = _structure(passed=BOOL, answered=NUMBER, compared=NUMBER, age=DURATION)
EXPECTATION = _structure(passed=BOOL, required=BOOL, value=ANY)
SIGNATURE = _structure(sequence=NUMBER, age=DURATION, by=TEXT)
_OF_VERSION: dict[str, Kind] = {
    "version": NUMBER,
    "metrics": NUMBERS,
    "params": ANYTHING,
    "tags": TEXTS,
    "signature": _or_null(ANYTHING),
    "signature_verified": BOOL,
    "signatures": Kind("map", of=SIGNATURE),
    "flavor": _or_null(TEXT),
    "digest": TEXT,
    "residency": TEXT,
    "age": DURATION,
    "created_by": TEXT,
    "lineage": LINEAGE,
    "snapshot": _or_null(TEXT),
    "expectations": Kind("map", of=EXPECTATION),
    "bundle": _or_null(TEXT),
    "smoke_test": _or_null(SMOKE_TEST),
    "replicas": TEXTS,
    "evaluations": Kind("map", of=EVALUATION),
}
CONTEXT: dict[str, Kind] = {
    **_OF_VERSION,
    "champion": _or_null(_structure(**_OF_VERSION)),
    "model": TEXT,
    "environment": TEXT,
    "requested_by": TEXT,
    "now": TIME,
}
"""The variables of a gate's expression."""

MEANING: dict[str, str] = {
    "version": "The version's number.",
    "metrics": "Its metrics, by name.",
    "params": "Its parameters, by name.",
    "tags": "Its tags, by name.",
    "signature": "Its signature (`inputs`, `outputs`), as MLflow writes it.",
    "signature_verified": "Whether a signer of the workspace signed it, and that counts now.",
    "signatures": "By signer, the newest signature that counts: `sequence`, `age`, `by`.",
    "flavor": "Its flavour, such as `sklearn`.",
    "digest": "The digest of its files.",
    "residency": "Its residency class.",
    "age": "Since it was registered.",
    "created_by": "Who registered it.",
    "lineage": "What it was made from: `parent`, `run`, `code_commit`, `feature_service`, `feature_service_digest`.",
    "snapshot": "The digest of the feature snapshot that it was trained on.",
    "expectations": "What was found of that snapshot, by `SET: NAME MEASURE`: `passed`, `required`, `value`.",
    "bundle": "The digest of its bundle, once one is built.",
    "smoke_test": "What its bundle's newest smoke test found: `passed`, `answered`, `compared`, `age`; or null.",
    "replicas": "The best replica's state in each region that has one: `VERIFIED`, `COPYING`, ...",
    "evaluations": "By name, the newest evaluation: `metrics`, `dataset`, `age`, `by`.",
    "champion": "The version that holds the environment now, with all of the above; null where none does.",
    "model": "The model's name.",
    "environment": "The environment that is asked for.",
    "requested_by": "Who asks.",
    "now": "The time.",
}
"""What each variable is, for the reference."""


def comparable(left: Kind, right: Kind, *, is_equality: bool) -> bool:
    """Whether two kinds can be compared."""
    if "any" in {left.name, right.name}:
        return True
    if is_equality and "null" in {left.name, right.name}:
        return True
    if left.name != right.name:
        return False
    return is_equality or left.name in {"number", "text", "time", "duration"}
