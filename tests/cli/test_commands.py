"""One command loads its own part of the code, and the parts together are the whole command line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from fairlead.cli.commands import PARTS, command_line
from fairlead.cli.main import run


def paths(command: object, path: str = "") -> set[str]:
    """Every command below one, as it is typed."""
    members: dict[str, object] | None = getattr(command, "commands", None)
    if members is None:
        return {path}
    return {found for name, member in members.items() for found in paths(member, f"{path} {name}".strip())}


def test_every_command_is_found_by_its_first_word() -> None:
    everything = paths(typer.main.get_command(command_line()))
    words = {path.split()[0] for path in everything}
    assert words == {word for part in PARTS for word in part.words}
    for word in words:
        found = paths(typer.main.get_command(command_line(word)))
        assert {path for path in found if path.split()[0] == word} == {
            path for path in everything if path.split()[0] == word
        }


def test_a_command_loads_its_own_part_alone() -> None:
    script = (
        "import sys\n"
        "from fairlead.cli.main import run\n"
        "run(['token', 'list', '--help'])\n"
        "print(*(name for name in sys.modules if name.startswith('fairlead.')), sep='\\n', file=sys.stderr)"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    loaded = set(finished.stderr.splitlines())
    assert "fairlead.cli.token" in loaded
    assert not {"fairlead.cli.model", "fairlead.cli.features", "fairlead.cli.catalog"} & loaded


def test_a_word_that_is_none_is_answered_with_those_like_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["modle", "list"]) == 2
    assert "model" in capsys.readouterr().err
