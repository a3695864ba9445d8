"""Subjects are named by a hash that the format's page states, and certificates say so to anyone with the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.certificates import read_statement, sign_certificate, trusted, verify_certificate
from fairlead.core.errors import BadSignature, InvalidInput
from fairlead.core.subjects import Subject, subject_digest

FORMAT_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "format.md"
KEY = bytes(range(32))
PUBLIC_KEY = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
FEW = settings(max_examples=50, deadline=None)


def test_the_hash_is_the_one_that_the_page_of_formats_gives() -> None:
    assert subject_digest("0" * 64, [17]) in FORMAT_PAGE.read_text(encoding="utf-8")


@FEW
@given(st.lists(st.text(), min_size=1, max_size=3), st.lists(st.text(), min_size=1, max_size=3))
def test_only_the_same_values_are_meant(values: list[str], others: list[str]) -> None:
    subject = Subject.of({str(number): value for number, value in enumerate(values)})
    assert subject.is_meant(values)
    assert subject.is_meant(others) == (values == others)


def test_a_missing_value_is_nobodys_and_salts_differ() -> None:
    assert not Subject.of({"patient": "None"}).is_meant([None])
    assert Subject.of({"patient": 1}).digest != Subject.of({"patient": 1}).digest
    assert Subject.of({"patient": 17}).is_meant(["17"])


def test_a_certificate_is_genuine_only_under_a_trusted_key() -> None:
    envelope = sign_certificate({"erasure": "1", "rows_removed": 5}, KEY)
    assert verify_certificate(envelope, trusted([PUBLIC_KEY])) == {"erasure": "1", "rows_removed": 5}
    assert read_statement(envelope)["rows_removed"] == 5
    other = sign_certificate({"erasure": "1", "rows_removed": 4}, KEY)
    for wrong in (
        envelope | {"payload": other["payload"]},
        envelope | {"version": 2},
        envelope | {"key_id": "00"},
        {"format": "fairlead/erasure"},
    ):
        with pytest.raises(BadSignature):
            verify_certificate(wrong, trusted([PUBLIC_KEY]))
    with pytest.raises(BadSignature):
        verify_certificate(envelope, {})
    with pytest.raises(InvalidInput):
        trusted(["no key"])
