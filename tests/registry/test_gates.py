from __future__ import annotations

import contextlib
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import InvalidInput
from fairlead.registry.gate_kinds import CONTEXT, MEANING
from fairlead.registry.gates import EXPRESSION_MAX_LENGTH, compile_expression, parse_duration

FACTS: dict[str, Any] = {
    "metrics": {"auc": 0.9, "n": 3},
    "params": {"depth": 3, "layers": [1, 2]},
    "tags": {"team": "risk"},
    "signature": None,
    "age": timedelta(hours=5),
    "replicas": {"aws:us-east-1": "VERIFIED"},
    "lineage": {"parent": 1, "run": None, "code_commit": "abc", "feature_service": None},
    "evaluations": {"fair": {"metrics": {"gap": 0.1}, "dataset": "d", "age": timedelta(hours=1), "by": "ana"}},
    "champion": None,
    "now": datetime(2026, 3, 1, tzinfo=UTC),
}


@pytest.mark.parametrize(
    "text",
    [
        "metrics.auc >= 0.9 && metrics.n == 3",
        "1 == 1.0",
        "metrics['auc'] - 0.1 < 1",
        "champion == null || metrics.auc >= champion.metrics.auc - 0.002",
        "metrics.auc >= champion.metrics.auc || true",
        "!(has(metrics.f1) && metrics.f1 > 0)",
        "'team' in tags && tags.team in ['risk', 'fraud']",
        "tags.team.startsWith('r') && tags.team.contains('is')",
        "replicas['aws:us-east-1'] == 'VERIFIED' && size(replicas) == 1",
        "age < duration('1d') && now > timestamp('2026-02-28T00:00:00Z')",
        "lineage.run == null && lineage.code_commit != null",
        "evaluations.fair.metrics.gap <= 0.1 && evaluations.fair.age < duration('2h')",
        "params.depth + 1 == 4 && params.layers[1] == 2",
        "params.depth > 2 ? metrics.auc > 0.5 : false",
        "signature == null",
    ],
)
def test_what_is_so_passes(text: str) -> None:
    assert compile_expression(text).evaluate(FACTS).is_true is True


def test_the_values_that_were_used_are_shown() -> None:
    found = compile_expression("metrics.auc > 0.95 && tags.team == 'x'").evaluate(FACTS)
    assert found.is_true is False
    assert found.used == {"metrics.auc": 0.9}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("metrics.f1 > 0", "metrics has no 'f1'."),
        ("metrics.auc > champion.metrics.auc", "champion is null."),
        ("evaluations.drift.metrics.psi < 1", "evaluations has no 'drift'."),
        ("metrics.auc / 0 > 1", "It has no value: float division by zero."),
        ("params.depth == 3 && params.depth < 'x'", "3 cannot be compared with 'x'."),
    ],
)
def test_what_has_no_value_says_why(text: str, why: str) -> None:
    found = compile_expression(text).evaluate(FACTS)
    assert found.is_true is None
    assert found.error is not None
    assert found.error.detail == why


@pytest.mark.parametrize(
    ("text", "said", "at"),
    [
        ("metrics.auc > foo", "no variable 'foo'", (1, 15)),
        ("lineage.commit == 'x'", "lineage has no member 'commit'", (1, 1)),
        ("metrics.auc + 1", "a number, and a gate must be true or false", (1, 1)),
        ("metrics.auc >\n= ", "no CEL", (2, 1)),
        ("true &&\n tags.team > 1", "a text cannot be compared (>) with a number", (2, 2)),
        ("age > 5", "a duration cannot be compared", (1, 1)),
        ("metrics.all(m, m > 0)", "no loops", (1, 1)),
        ("tags.team.matches('(a+)+$')", "no method 'matches'", (1, 1)),
        ("age > duration('soon')", "no duration", (1, 7)),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_its_place(text: str, said: str, at: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput) as refused:
        compile_expression(text)
    assert said in refused.value.detail
    assert (refused.value.attributes["line"], refused.value.attributes["column"]) == at


@pytest.mark.parametrize(
    "text", ["(" * 200 + "true" + ")" * 200, "!" * 900 + "true", "1" + "+1" * 400 + " > 2", "x" * 1001]
)
def test_what_would_take_long_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        compile_expression(text)


def test_an_evaluation_ends_when_its_time_is_over() -> None:
    found = compile_expression("metrics.auc > 0").evaluate(FACTS, deadline=time.monotonic() - 1)
    assert found.error is not None
    assert "too long" in found.error.detail


@given(st.text(alphabet="metrics.auc tags[]()'\"<>=!&|?:+-*/%0123456789,{}\\\n", max_size=EXPRESSION_MAX_LENGTH))
def test_any_text_is_an_expression_or_refused_as_one(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert compile_expression(text).evaluate(FACTS).is_true in {True, False, None}


def test_every_variable_is_explained_where_owners_of_policies_read_it() -> None:
    assert set(MEANING) == set(CONTEXT)
    page = (Path(__file__).parents[2] / "docs" / "reference" / "policy.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| ([a-z ]+) \| (.+) \|$", page, re.MULTILINE)
    assert [(name, meaning) for name, _, meaning in listed] == [(name, MEANING[name]) for name in CONTEXT]


def test_durations_are_read() -> None:
    assert parse_duration("1h30m") == timedelta(minutes=90)
    for text in ["", "h", "1x", "-1h", "1h ", "9999999d"]:
        with pytest.raises(InvalidInput):
            parse_duration(text)
