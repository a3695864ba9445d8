"""Answers: tables that fit, JSON that is JSON, one value a line for pipes, and no control character from outside."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.cli.output import Output, OutputFormat, reach, render_value, without_controls
from fairlead.sdk.records import Location, ModelVersion

DIGEST = "sha256:" + "0123456789abcdef" * 4
NASTY = "[red]a[/] \x1b[31mred\x1b[0m \x07 \x9b2J \u202egnp.exe \u2028 \ud800 \x7f\r\nnext"


class Terminal(io.StringIO):
    """A screen."""

    def isatty(self) -> bool:
        return True


def printed(form: OutputFormat, item: Any, *columns: str, screen: io.StringIO | None = None) -> str:
    stdout = screen or io.StringIO()
    output = Output(form, stdout=stdout, stderr=io.StringIO())
    if columns:
        output.table(item, columns)
    else:
        output.record(item)
    return stdout.getvalue()


def assert_harmless(text: str) -> None:
    assert without_controls(text) == text


def test_a_table_has_a_heading_and_a_row_for_each_thing() -> None:
    rows = [Location(id="1", name="virginia", region="aws:us-east-1", url="/tmp/x"), {"name": "x", "region": None}]
    lines = printed("human", rows, "name", "region").splitlines()
    assert [line.split() for line in lines if line.strip() and not line.strip().startswith("─")] == [
        ["name", "region"],
        ["virginia", "aws:us-east-1"],
        ["x", "-"],
    ]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_fits_the_terminal_and_loses_nothing(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    rows = [{"name": "n" * 50, "url": "u" * 90, "state": "READY"}]
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed("human", rows, "name", "url", "state", screen=Terminal()))
    assert max(len(line) for line in text.splitlines()) <= columns
    assert (text.count("u"), text.count("n")) == (91, 51)


def test_short_columns_are_not_broken_where_long_ones_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    row = {"region": "aws:us-east-1", "location": "aws-us-east-1", "state": "VERIFIED", "stored_bytes": 10460797}
    row |= {"source_region": "aws:us-east-1", "verified_at": "2026-11-21T23:06:22Z", "moved_bytes": 1, "error": None}
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed("human", [row], *row, screen=Terminal()))
    assert "VERIFIED" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_there_is_no_colour_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert "\x1b" not in printed("human", [{"name": "x"}], "name")


def test_no_color_takes_the_colour_from_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = printed("human", [{"name": "x", "facts": {"n": 1}}], "name", "facts", screen=Terminal())
    assert re.findall(r"\x1b\[(?:3[0-7]|4[0-7]|9[0-7]|38;|48;)", text) == []


def test_a_name_from_outside_is_shown_harmlessly_in_a_table() -> None:
    text = printed("human", [{"name": NASTY, NASTY: NASTY}], "name", NASTY)
    assert_harmless(text)
    assert "[red]a[/]" in text


@pytest.mark.parametrize("form", ["human", "quiet"])
def test_a_name_from_outside_is_one_harmless_line(form: OutputFormat) -> None:
    text = printed(form, {"name": NASTY})
    assert_harmless(text)
    assert text.count("\n") == 1


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_output_is_the_same_json_without_a_control_character(value: Any) -> None:
    text = printed("json", {"value": value})
    assert_harmless(text)
    assert json.loads(text) == {"value": value}


def test_json_output_of_a_nasty_name_is_that_name() -> None:
    text = printed("json", {"name": NASTY, "größe": "\U0001f600"})
    assert_harmless(text)
    assert json.loads(text)["name"] == NASTY
    assert "größe" in text


def test_json_output_of_a_record_is_what_the_api_answers() -> None:
    answer: dict[str, Any] = {"id": "1", "name": "virginia", "region": "aws:us-east-1", "url": "/tmp/x"}
    defaults: dict[str, Any] = {"jurisdiction": "", "kind": "storage", "state": "ACTIVE", "options": {}, "settings": {}}
    defaults["created_at"] = None
    shown = json.loads(printed("json", [Location.from_json(answer)], "name"))
    assert shown == [answer | defaults]


def test_quiet_prints_the_first_column_whole() -> None:
    assert printed("quiet", [{"digest": DIGEST, "n": 1}, {"digest": None, "n": 2}], "digest", "n") == f"{DIGEST}\n-\n"


def test_quiet_prints_the_named_member_of_a_record() -> None:
    stdout = io.StringIO()
    version = ModelVersion(name="churn", version=3, reference="churn/3", state="READY", residency="eu")
    Output("quiet", stdout=stdout).record(version, name="reference")
    assert stdout.getvalue() == "churn/3\n"


def test_digests_are_short_in_tables_and_whole_in_records() -> None:
    assert DIGEST not in printed("human", [{"digest": DIGEST}], "digest")
    assert DIGEST[:19] in printed("human", [{"digest": DIGEST}], "digest")
    assert DIGEST in printed("human", {"digest": DIGEST})


def test_times_and_keys_are_short_in_tables_and_whole_in_records() -> None:
    digits = "0123456789abcdef" * 4
    row = {"at": "2026-11-21T22:46:26.977595Z", "object": f"acme/eu/plain/packs/01/{digits}.pack"}
    shown = printed("human", [row], "at", "object").split()
    assert shown[-2:] == ["2026-11-21T22:46:26Z", "acme/eu/plain/packs/01/0123456789ab….pack"]
    assert all(value in printed("human", row) for value in row.values())
    assert printed("quiet", [row], "object", "at") == f"{row['object']}\n"


def test_a_record_shows_what_it_holds_and_nothing_empty() -> None:
    text = printed("human", {"name": "x", "last_version": 0, "tags": {}, "error": None, "is_intact": False})
    assert [line.split() for line in text.splitlines()] == [
        ["name", "x"],
        ["last", "version", "0"],
        ["is", "intact", "no"],
    ]


def test_what_a_record_holds_inside_has_a_line_of_its_own() -> None:
    identity = {"kind": "workload", "role_arn": "arn"}
    row = {"settings": {"endpoint": "https://x", "identity": identity}, "labels": {"a": "b"}, "sources": [{"n": 1}]}
    assert printed("human", row) == (
        "settings.endpoint           https://x\n"
        "settings.identity.kind      workload\n"
        "settings.identity.role arn  arn\n"
        "labels                      a=b\n"
        "sources.1.n                 1\n"
    )


def test_an_empty_table_says_so_and_what_to_type() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    Output("human", stdout=stdout, stderr=stderr, nothing="Type: fairlead x add").table([], ["name"])
    assert (stdout.getvalue(), stderr.getvalue()) == ("", "Type: fairlead x add\n")
    assert printed("json", [], "name") == "[]\n"


def test_messages_go_to_stderr_and_nowhere_when_quiet() -> None:
    answers: dict[OutputFormat, str] = {"human": "hello\n", "json": "hello\n", "quiet": ""}
    for form, expected in answers.items():
        stdout, stderr = io.StringIO(), io.StringIO()
        Output(form, stdout=stdout, stderr=stderr).message("hello")
        assert (stdout.getvalue(), stderr.getvalue()) == ("", expected)


def test_a_progress_bar_appears_on_a_terminal_only() -> None:
    for stderr in (io.StringIO(), Terminal()):
        with Output("human", stdout=io.StringIO(), stderr=stderr).progress("register [red]") as progress:
            progress(1, 2)
        assert ("register [red]" in stderr.getvalue()) == stderr.isatty()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(None, "-"), (True, "yes"), (0.1 + 0.2, "0.3"), ([], "-"), ({}, "-"), (12, "12"), ("", "")],
        *[(["a", 1], "a, 1"), ({"a": {"b": None}}, "a=(b=-)")],
    ],
)
def test_values_are_shown_as_a_person_reads_them(value: object, expected: str) -> None:
    assert render_value(value) == expected


def test_a_path_reaches_inside_unless_a_member_has_its_very_name() -> None:
    row = {"policy": {"approvals": 2}, "driver.score": 0.5}
    assert [reach(row, path) for path in ("policy.approvals", "driver.score", "policy.x.y", "nothing")] == [
        *(2, 0.5),
        *(None, None),
    ]
