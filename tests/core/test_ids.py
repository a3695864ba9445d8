"""How things are called: row ids, digests, names, aliases and references."""

from __future__ import annotations

import unicodedata
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import InvalidDigest, InvalidName, InvalidReference
from fairlead.core.ids import (
    NAME_MAX_LENGTH,
    VERSION_MAX,
    ModelReference,
    digest_hex,
    new_row_id,
    parse_alias,
    parse_digest,
    parse_model_reference,
    parse_name,
    sha256_digest,
)

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


def is_name(text: str) -> bool:
    try:
        parse_name(text)
    except InvalidName:
        return False
    return True


def is_alias(text: str) -> bool:
    try:
        parse_alias(text)
    except InvalidName:
        return False
    return True


names = words.filter(is_name).map(parse_name)
aliases = words.filter(is_alias).map(parse_alias)


@given(st.integers(min_value=1, max_value=300))
def test_row_ids_are_uuid_version_7_and_sort_in_the_order_they_were_made(count: int) -> None:
    made = [new_row_id() for _ in range(count)]
    assert made == sorted(made)
    assert len(set(made)) == count
    for each in made:
        parsed = uuid.UUID(each)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, each)


def test_row_ids_of_several_threads_never_coincide() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(_some_row_ids, range(8)))
    assert len({each for some in made for each in some}) == 8 * 500


def _some_row_ids(_: int) -> list[str]:
    return [new_row_id() for _ in range(500)]


@given(st.binary(max_size=100))
def test_a_digest_is_read_back_as_itself(data: bytes) -> None:
    digest = sha256_digest(data)
    assert parse_digest(digest) == digest
    assert digest == f"sha256:{digest_hex(digest)}"


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha256:" + "A" * 64, "md5:" + "0" * 64,
             "sha256:" + "0" * 64 + "\n"]
)  # fmt: skip
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        parse_digest(text)


@given(words)
def test_a_name_is_in_nfc_and_naming_it_again_changes_nothing(text: str) -> None:
    if is_name(text):
        name = parse_name(text)
        assert name == unicodedata.normalize("NFC", text)
        assert parse_name(name) == name


@given(words, st.sampled_from('/\\:@%#?"<>|*\0\n\r\t\x7f\x9b\u200b\u202e\u2028\u2029\ud800\ue000'), words)
def test_no_name_holds_a_character_that_has_a_meaning_elsewhere_or_no_shape(
    before: str, forbidden: str, after: str
) -> None:
    assert not is_name(before + forbidden + after)


@pytest.mark.parametrize("text", ["", " ", "a ", " a", ".", "..", ".hidden", "a.", "a" * (NAME_MAX_LENGTH + 1)])
def test_a_name_that_is_empty_too_long_or_badly_ended_is_refused(text: str) -> None:
    with pytest.raises(InvalidName) as refused:
        parse_name(text)
    assert refused.value.hint


@pytest.mark.parametrize(
    "text", ["churn", "Churn model v2", "a" * NAME_MAX_LENGTH, "größe", "模型", "a.b-c_d", "'; --"]
)
def test_what_people_call_models_is_a_name(text: str) -> None:
    assert parse_name(text) == text


@pytest.mark.parametrize("text", ["latest", "LATEST", "v1", "V22", "v٣"])
def test_aliases_that_mlflow_reserves_are_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        parse_alias(text)


@given(names, st.integers(min_value=1, max_value=VERSION_MAX), st.sampled_from(["", "models:/"]))
def test_a_reference_to_a_version_is_read_back_as_itself(name: str, version: int, prefix: str) -> None:
    reference = ModelReference(name=name, version=version)
    assert parse_model_reference(prefix + str(reference)) == reference


@given(names, aliases, st.sampled_from(["", "models:/"]))
def test_a_reference_to_an_alias_is_read_back_as_itself(name: str, alias: str, prefix: str) -> None:
    reference = ModelReference(name=name, alias=alias)
    assert parse_model_reference(prefix + str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        *["", "churn", "churn/", "/3", "churn/0", "churn/-1", "churn/03", "churn/3.0", "churn/٣", "churn/latest"],
        *["churn@", "@production", "churn@a@b", "a/b/3", "churn/2147483648", "churn/1" + "0" * 5000],
        *["churn/000000000001999999999999", "models:/", "models:/m-0123", "models://churn/3"],
    ],
)
def test_what_names_no_version_is_refused(text: str) -> None:
    with pytest.raises((InvalidReference, InvalidName)):
        parse_model_reference(text)


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_an_error_of_ours(text: str) -> None:
    try:
        reference = parse_model_reference(text)
    except (InvalidReference, InvalidName):
        return
    assert (reference.version is None) != (reference.alias is None)
