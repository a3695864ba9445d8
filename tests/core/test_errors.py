"""The tree of errors: each with a code of its own, listed where people look, the same on both sides of the wire."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core import errors
from fairlead.core.errors import (
    Conflict,
    CorruptPack,
    ExitCode,
    FairleadError,
    GateRefused,
    InvalidInput,
    JsonValue,
    NotFound,
    ServerUnavailable,
    Unavailable,
    error_classes,
)
from fairlead.core.problems import from_problem, to_problem


def _tree(cls: type[FairleadError]) -> Iterator[type[FairleadError]]:
    yield cls
    for below in cls.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _tree(below)


CLASSES = list(_tree(FairleadError))
EXIT_CODES = {
    "InvalidInput": ExitCode.USAGE,
    "NotFound": ExitCode.NOT_FOUND,
    "Unauthenticated": ExitCode.AUTH,
    "PermissionDenied": ExitCode.AUTH,
    "Conflict": ExitCode.CONFLICT,
    "GateRefused": ExitCode.GATE_REFUSED,
    "ExpectationFailed": ExitCode.GATE_REFUSED,
    "PickleRefused": ExitCode.GATE_REFUSED,
    "CodeRefused": ExitCode.GATE_REFUSED,
    "NotSigned": ExitCode.GATE_REFUSED,
    "ResidencyViolation": ExitCode.GATE_REFUSED,
    "PlacementInfeasible": ExitCode.GATE_REFUSED,
    "DistributionInfeasible": ExitCode.GATE_REFUSED,
    "PartialFailure": ExitCode.PARTIAL,
}
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def test_no_two_classes_share_a_code() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)
    assert set(codes) <= set(error_classes())


@every_class
def test_a_class_says_what_it_is(cls: type[FairleadError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cls.code)
    assert cls.title[0].isupper()
    assert not cls.title.endswith(".")
    assert 200 <= cls.status < 600


def test_the_tree_at_the_top_of_the_module_is_the_tree_of_classes() -> None:
    drawn: dict[str, tuple[str, int]] = {}
    above = ["FairleadError"]
    status: list[int] = [500]
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([│ ]*)(?:├──|└──) (.*)$", line)
        if not found:
            continue
        depth = len(found[1]) // 4 + 1
        # A line holds one class with what it means, or several with commas between them.
        several = re.match(r"[A-Z]\w+(, [A-Z]\w+)*", found[2])
        assert several
        numbers = re.search(r"\b([2-5]\d\d)(?=[,:]|$)", found[2])
        del above[depth:], status[depth:]
        for name in several[0].split(", "):
            drawn[name] = (above[-1], int(numbers[1]) if numbers else status[-1])
        above.append(several[0])
        status.append(int(numbers[1]) if numbers else status[-1])
    real = {cls.__name__: (cls.__base__.__name__, cls.status) for cls in CLASSES[1:] if cls.__base__}
    assert drawn == real


@every_class
def test_exit_codes_follow_the_branch(cls: type[FairleadError]) -> None:
    expected = [code for name, code in EXIT_CODES.items() if name in {above.__name__ for above in cls.__mro__}]
    assert cls.exit_code == (expected[0] if expected else ExitCode.FAILURE)


def test_exit_codes_never_change_their_meaning() -> None:
    meanings = ["OK", "FAILURE", "USAGE", "NOT_FOUND", "AUTH", "CONFLICT", "GATE_REFUSED", "PARTIAL"]
    assert [(code.name, code.value) for code in ExitCode][: len(meanings)] == [
        (name, number) for number, name in enumerate(meanings)
    ]


@every_class
def test_an_error_crosses_the_wire_as_itself(cls: type[FairleadError]) -> None:
    error = cls("Nothing is at 'x'.", hint="Type this.", subject="x", plan={"moves": [1, 2]})
    problem = json.loads(json.dumps(to_problem(error)))
    assert problem["type"] == f"urn:fairlead:error:{cls.code}"
    again = from_problem(problem, status=error.status)
    assert type(again) is cls
    assert (again.detail, again.hint, again.attributes) == (error.detail, error.hint, error.attributes)


def test_a_class_without_a_code_of_its_own_travels_as_the_one_above_it() -> None:
    class Nearer(InvalidInput):
        pass

    assert error_classes()[Nearer.code] is InvalidInput
    assert type(from_problem(to_problem(Nearer("No.")), status=400)) is InvalidInput


attribute_names = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["type", "status", "detail", "hint", "self", "cls"]
)


@given(st.dictionaries(attribute_names, st.text() | st.integers()), st.none() | st.text())
def test_no_attribute_hides_what_happened(attributes: dict[str, str | int], hint: str | None) -> None:
    members: dict[str, JsonValue] = {**attributes}
    members.pop("hint", None)
    error = NotFound("There is no 'x'.", hint=hint, **members)
    again = from_problem(to_problem(error), status=404)
    assert type(again) is NotFound
    assert (again.detail, again.hint) == ("There is no 'x'.", hint)


def test_the_text_of_an_error_ends_with_what_to_type() -> None:
    assert (
        str(NotFound("There is no 'x'.", hint="Run: fairlead model list"))
        == "There is no 'x'. Run: fairlead model list"
    )
    assert str(NotFound("There is no 'x'.")) == "There is no 'x'."


@pytest.mark.parametrize(
    ("status", "cls"), [(404, NotFound), (409, Conflict), (412, Conflict), (503, Unavailable), (500, FairleadError)]
)
def test_an_error_newer_than_this_client_is_still_of_its_kind(status: int, cls: type[FairleadError]) -> None:
    problem = {"type": "urn:fairlead:error:invented-tomorrow", "title": "New", "status": status, "detail": "It is new."}
    again = from_problem(problem, status=status)
    assert type(again) is cls
    assert again.detail == "It is new."


@pytest.mark.parametrize("answer", [None, [], "Bad Gateway", 7])
def test_an_answer_that_says_nothing_is_a_server_that_does_not_answer(answer: object) -> None:
    error = from_problem(answer, status=502)
    assert type(error) is ServerUnavailable
    assert error.attributes == {"http_status": 502}
    assert "FAIRLEAD_URL" in str(error.hint)


def test_a_refusal_keeps_its_plan() -> None:
    error = from_problem(to_problem(GateRefused("No.", plan={"gates": []})), status=422)
    assert error.attributes["plan"] == {"gates": []}


def test_a_damaged_pack_is_no_overload() -> None:
    assert not issubclass(CorruptPack, Unavailable)
