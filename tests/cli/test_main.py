"""The command: usage, exit codes, and errors that say what to type next."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina

from fairlead import __version__
from fairlead.cli.commands import command_line
from fairlead.cli.main import run
from fairlead.cli.reference import command_paths
from fairlead.core.errors import ExitCode, FairleadError, GateRefused, JsonValue, error_classes
from fairlead.core.problems import MEDIA_TYPE, to_problem
from tests.sdk.scripted_server import Answer, scripted_server

Run = Callable[..., tuple[int, str, str]]
MODEL = {"name": "churn", "residency": "eu", "last_version": 2, "labels": {"owner": "ana"}}


@pytest.fixture
def fairlead(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command line against a server that gives these answers: exit code, stdout, stderr."""

    def run_command(*arguments: str, answers: list[Answer] | None = None) -> tuple[int, str, str]:
        capfd.readouterr()
        with scripted_server(answers or [Answer(status=500)]) as server:
            monkeypatch.setenv("FAIRLEAD_URL", server.url)
            code = run(arguments)
        captured = capfd.readouterr()
        return int(code), captured.out, captured.err

    with stamina.set_testing(True, attempts=4, cap=True):
        yield run_command


def refusing(error: FairleadError) -> list[Answer]:
    return [Answer(status=error.status, body=to_problem(error), content_type=MEDIA_TYPE)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["model", "nope"],
        ["model", "promote"],
        ["model", "promote", "churn/3"],
        ["model", "list", "--output", "xml"],
        ["model", "list", "--nope"],
        ["model", "list", "extra"],
        ["model", "alias", "churn@champion", "three"],
        ["model", "alias", "churn/1", "3"],
        ["model", "alias", "churn", "3"],
        ["model", "rollback", "churn/3", "--reason", "x"],
        ["model", "register", "a/b", ".", "--label", "owner"],
        ["predict", "churn"],
        ["audit", "--anchor", "1:abc"],
        ["place", "/nonexistent.yaml"],
        ["features", "snapshot", "s", "--as-of", "yesterday"],
        [],
        ["model"],
    ],
)
def test_a_command_that_cannot_be_meant_is_a_usage_error(fairlead: Run, arguments: list[str]) -> None:
    code, stdout, stderr = fairlead(*arguments)
    assert code == ExitCode.USAGE
    assert stdout == ""
    assert stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    "code", [each.code for each in error_classes().values() if each.__module__ == "fairlead.core.errors"]
)
def test_the_exit_code_is_that_of_the_error_and_the_hint_is_printed(fairlead: Run, code: str) -> None:
    error = error_classes()[code]("There is no \x1b[31m'x'.", hint="Run: fairlead model list")
    exit_code, stdout, stderr = fairlead("model", "show", "x", answers=refusing(error))
    assert exit_code == error.exit_code
    assert stdout == ""
    assert stderr == "error: There is no ?[31m'x'.\nRun: fairlead model list\n"


def test_with_json_output_an_error_is_a_problem_document(fairlead: Run) -> None:
    error = GateRefused("No.", hint="Do better.", plan={"gates": []})
    code, stdout, stderr = fairlead("model", "list", "--output", "json", answers=refusing(error))
    assert (code, stdout) == (ExitCode.GATE_REFUSED, "")
    assert json.loads(stderr) == to_problem(error)


@pytest.mark.parametrize("wanted", [["--output", "json"], ["-o", "json"], ["--output=json"]])
def test_with_json_output_a_mistyped_command_is_a_problem_document_too(fairlead: Run, wanted: list[str]) -> None:
    for arguments in (["model", "register"], ["model", "list", "--no-such-option"], ["nope"]):
        code, stdout, stderr = fairlead(*arguments, *wanted)
        assert (code, stdout) == (ExitCode.USAGE, "")
        problem = json.loads(stderr)
        assert problem["type"] == "urn:fairlead:error:invalid-input"
        assert problem["hint"].startswith("See: fairlead")


def test_an_empty_list_says_what_to_type(fairlead: Run) -> None:
    empty = [Answer(body={"items": [], "next_page_token": None})]
    assert fairlead("model", "list", answers=empty) == (
        0,
        "",
        "There is none yet. To make one: fairlead model register --help\n",
    )


def test_a_refused_promotion_shows_its_plan(fairlead: Run) -> None:
    gate: JsonValue = {"gate": "roc_auc", "value": 0.5, "limit": 0.9, "verdict": "failed", "detail": "Too low."}
    error = GateRefused("churn/2 may not go to production.", plan={"moves": {"from": 1, "to": 2}, "gates": [gate]})
    code, _, stderr = fairlead("model", "list", answers=refusing(error))
    assert code == ExitCode.GATE_REFUSED
    assert "move: version 1 -> 2\n  [FAIL] roc_auc: 0.5 (limit 0.9)\n         Too low.\n" in stderr


def test_an_answer_is_printed_in_each_form(fairlead: Run) -> None:
    answers = [Answer(body={"items": [MODEL], "next_page_token": None})]
    code, stdout, stderr = fairlead("model", "list", answers=answers)
    assert (code, stderr) == (0, "")
    assert "churn" in stdout
    assert fairlead("model", "list", "-o", "quiet", answers=answers) == (0, "churn\n", "")
    code, stdout, _ = fairlead("model", "list", "-o", "json", answers=answers)
    assert json.loads(stdout)[0]["labels"] == {"owner": "ana"}


def test_the_form_may_come_from_the_environment(fairlead: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_OUTPUT", "quiet")
    assert fairlead("model", "list", answers=[Answer(body={"items": [MODEL]})]) == (0, "churn\n", "")


def test_a_server_that_comes_back_leaves_no_trace_in_the_answer(fairlead: Run) -> None:
    answers = [Answer(status=503), Answer(status=0), Answer(body={"items": [MODEL]})]
    assert fairlead("model", "list", "-o", "quiet", answers=answers) == (0, "churn\n", "")


def test_an_answer_that_is_not_understood_is_no_traceback(fairlead: Run) -> None:
    code, _, stderr = fairlead("model", "show", "churn", answers=[Answer(body={"unexpected": 1})])
    assert code == ExitCode.FAILURE
    assert "RegisteredModel" in stderr


def test_a_broken_chain_is_told_with_where_it_broke(fairlead: Run) -> None:
    verdict = {"is_intact": False, "sealed": 9, "unsealed": 0, "anchor": None, "problem": "edited", "sequence": 4}
    code, stdout, stderr = fairlead("audit", "verify", "-o", "json", answers=[Answer(body=verdict)])
    assert code == ExitCode.FAILURE
    assert json.loads(stdout) == verdict
    assert "edited at event 4" in json.loads(stderr)["detail"]


def test_a_mistake_of_ours_is_one_line_unless_asked_for(fairlead: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_settings: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("fairlead.sdk.client.Fairlead.connect", fail)
    code, _, stderr = fairlead("model", "list")
    assert code == ExitCode.FAILURE
    assert stderr.startswith("error: ZeroDivisionError: by zero\n")
    assert "FAIRLEAD_DEBUG" in stderr
    monkeypatch.setenv("FAIRLEAD_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        fairlead("model", "list")


@pytest.mark.parametrize(
    ("raised", "expected"), [(KeyboardInterrupt(), 130), (TimeoutError("Waited 600 s."), ExitCode.FAILURE)]
)
def test_an_interrupt_and_a_long_wait_are_told_in_words(
    fairlead: Run, monkeypatch: pytest.MonkeyPatch, raised: BaseException, expected: int
) -> None:
    def fail(_settings: Any) -> None:
        raise raised

    monkeypatch.setattr("fairlead.sdk.client.Fairlead.connect", fail)
    code, stdout, stderr = fairlead("model", "list")
    assert (code, stdout) == (expected, "")
    assert "Interrupted" in stderr or "Waited 600 s." in stderr


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_an_answer(fairlead: Run, flag: str) -> None:
    code, stdout, stderr = fairlead("model", "promote", flag)
    assert (code, stderr) == (0, "")
    assert "Promote a version" in stdout


def test_the_version_is_an_answer(fairlead: Run) -> None:
    assert fairlead("--version") == (0, f"fairlead {__version__}\n", "")


@pytest.mark.parametrize("path", command_paths())
def test_every_command_has_help_and_a_choice_of_output(fairlead: Run, path: str) -> None:
    code, stdout, _ = fairlead(*path.split(), "--help")
    assert code == 0
    assert "--output" in stdout
    assert len(stdout.splitlines()) > 5


@pytest.mark.parametrize("home", ["", "sub/folder"])
def test_stopping_a_home_without_a_server_says_so(
    fairlead: Run, home: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAIRLEAD_HOME", str(tmp_path / home))
    assert fairlead("stop") == (0, "", f"The server of {tmp_path / home} was not running.\n")
    assert fairlead("stop", "--all")[0] == 0


def _fairlead(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("fairlead"), *arguments],
        capture_output=True, check=False, text=True, env={"PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip


def test_the_shell_completes_commands() -> None:
    script = _fairlead("--show-completion", "bash", SHELL="/bin/bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert script.returncode == 0
    assert "_FAIRLEAD_COMPLETE=complete_bash" in script.stdout
    asked = _fairlead(_FAIRLEAD_COMPLETE="complete_bash", COMP_WORDS="fairlead model pro", COMP_CWORD="2")
    assert asked.stdout.split() == ["promote", "promotions"]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    with scripted_server([Answer(body={"items": [MODEL] * 50_000})]) as server:
        command = f"{Path(sys.executable).with_name('fairlead')} model list -o quiet | head -1; exit ${{PIPESTATUS[0]}}"
        finished = subprocess.run(
            ["/bin/bash", "-c", command],
            capture_output=True, check=False, text=True, env={"PATH": "/usr/bin:/bin", "FAIRLEAD_URL": server.url},
        )  # fmt: skip
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "churn\n", "")


def test_the_app_is_named_and_described() -> None:
    assert command_line().info.help
