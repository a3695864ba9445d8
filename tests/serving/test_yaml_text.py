"""What is written as YAML is read back as it was, whatever letters are in it."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fairlead.serving.kinds.yaml_text import manifest_text, yaml_text

BREAKS = "\n\r\x85\u2028\u2029"
TEXTS = st.one_of(st.text(max_size=30), st.text(alphabet=f" ab:#'\"{BREAKS}", max_size=8))
DOCUMENTS = st.dictionaries(TEXTS, st.one_of(TEXTS, st.lists(TEXTS, max_size=3)), max_size=4)


@given(document=DOCUMENTS)
def test_any_text_is_read_back_as_it_was(document: dict[str, object]) -> None:
    for write in (yaml_text, manifest_text):
        assert yaml.safe_load(write(document)) == document


@pytest.mark.parametrize("letter", BREAKS)
def test_what_is_a_line_break_to_some_readers_alone_stays_what_it_is(letter: str) -> None:
    document = {"note": f"a{letter}b", letter: [letter]}
    for write in (yaml_text, manifest_text):
        assert yaml.safe_load(write(document)) == document
