"""Canonical JSON: one value, one sequence of bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import InvalidInput

scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8"))
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_a_value_is_read_back_as_itself(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(values)
def test_encoding_what_was_read_gives_the_same_bytes(value: Any) -> None:
    encoded = canonical_json(value)
    assert canonical_json(json.loads(encoded)) == encoded


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), scalars, max_size=6), st.randoms())
def test_the_order_of_keys_makes_no_difference(members: dict[str, Any], random: Any) -> None:
    shuffled = list(members.items())
    random.shuffle(shuffled)
    assert canonical_json(dict(shuffled)) == canonical_json(members)


def test_the_bytes_are_these() -> None:
    value: Any = {"b": [1, True, None], "a": "é\n\x7f", "Z": {}, "\U0001f600": -(2**53) + 1, "\ufb01": ""}
    expected = '{"Z":{},"a":"é\\n\x7f","b":[1,true,null],"\ufb01":"","\U0001f600":-9007199254740991}'
    assert canonical_json(value) == expected.encode()


def test_what_would_not_have_one_form_is_refused() -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    refused: list[Any] = [1.0, float("nan"), 2**53, -(2**53), {1: "a"}, (1,), b"a", {"a": {1, 2}}, "\ud800", nested]
    for value in refused:
        with pytest.raises(InvalidInput):
            canonical_json(value)
