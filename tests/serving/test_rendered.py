"""Laws of files that Fairlead and others change in turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import Conflict
from fairlead.serving.rendered import Change, Files, Marker, change_to, differences, removal, to_files
from fairlead.serving.targets import EndpointSpec
from fairlead.serving.workload import Document
from tests.serving.workloads import workload

PATHS = st.sampled_from(["a.tf", "b.tf", "modules/c.tf", "README.md"])
TEXTS = st.sampled_from(["one", "two", "three"])
DOCUMENTS = st.dictionaries(PATHS, TEXTS, max_size=3)
EDITS = st.dictionaries(PATHS, st.one_of(st.none(), TEXTS), max_size=3)


def written(documents: Mapping[str, str], version: int) -> Files:
    spec = EndpointSpec(workspace_id="w", workload=workload(version=version))
    return to_files(spec, [Document(path=path, text=text) for path, text in documents.items()])


def applied(change: Change, files: Files) -> Files:
    return {path: data for path, data in {**files, **change.written}.items() if path not in change.removed}


def edited(files: Files, edits: Mapping[str, str | None]) -> Files:
    changed = {path: data for path, data in files.items() if path not in edits}
    return changed | {path: text.encode() for path, text in edits.items() if text is not None}


def change(wanted: Files, current: Files, *, overwrite: bool) -> Change:
    return change_to(wanted, current, workspace_id="w", overwrite=overwrite, place="aws-us-east-1/churn")


@given(before=DOCUMENTS, edits=EDITS, after=DOCUMENTS)
def test_what_is_wanted_comes_and_nothing_of_others_goes_unasked(
    before: dict[str, str], edits: dict[str, str | None], after: dict[str, str]
) -> None:
    wanted = written(after, 2)
    current = edited(written(before, 1), edits)
    try:
        result = applied(change(wanted, current, overwrite=False), current)
    except Conflict:
        assert any(path in before or path in after for path in edits)
        result = applied(change(wanted, current, overwrite=True), current)
    else:
        for path, text in edits.items():
            assert text is None or text == before.get(path) or result[path] == text.encode()
    assert {path: result[path] for path in wanted} == dict(wanted)
    assert all(result[path] == text.encode() for path, text in edits.items() if text and path not in {*before, *after})
    assert differences(result) == ()
    assert change(wanted, result, overwrite=False).is_empty
    assert change(wanted, result, overwrite=True).is_empty


@given(before=DOCUMENTS, edits=EDITS)
def test_an_edit_is_told_by_its_file_and_left_until_something_else_is_wanted(
    before: dict[str, str], edits: dict[str, str | None]
) -> None:
    files = written(before, 1)
    current = edited(files, edits)
    changed = {path for path in before if current.get(path) != files[path]}
    assert {each.partition(" was ")[0] for each in differences(current)} == changed
    assert change(files, current, overwrite=False).is_empty
    assert change(files, current, overwrite=True).is_empty == (not changed)


@given(before=DOCUMENTS, others=DOCUMENTS)
def test_what_is_removed_is_all_of_ours_and_nothing_else(before: dict[str, str], others: dict[str, str]) -> None:
    beside = {f"theirs/{path}": text.encode() for path, text in others.items()}
    current = {**written(before, 1), **beside}
    assert applied(removal(current, workspace_id="w", place="p"), current) == beside


def test_a_specification_is_the_same_whatever_its_note_says() -> None:
    spec = EndpointSpec(workspace_id="w", workload=workload())
    assert replace(spec, note="by ana") == spec
    assert to_files(replace(spec, note="by ana"), []) == to_files(spec, [])


@pytest.mark.parametrize("written", [b"[" * 200_000, b'{"format": 1, "workload": {"bundle_digest": "no digest"}}'])
def test_a_marker_that_others_spoiled_counts_as_none(written: bytes) -> None:
    assert Marker.read({".fairlead": written}) is None
