"""What the README shows works as it stands there, in a home that nobody has used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.acceptance.command_line import FAIRLEAD, ROOT, CommandLine, leave_nothing, write_folder
from tests.serving.models import model_files

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^## (Five lines of \w+)\n+```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Generator[Path]:
    """Where a newcomer stands: a folder with a model in it."""
    write_folder(tmp_path / "model", model_files(0.5, 0.25, 0.125))
    yield tmp_path
    leave_nothing(tmp_path / "home")


def test_the_readme_has_an_example_for_python_and_one_for_the_shell() -> None:
    assert [(title, language) for title, language, _ in EXAMPLES] == [
        ("Five lines of Python", "python"),
        ("Five lines of shell", "sh"),
    ]
    for _, _, text in EXAMPLES:
        assert len([line for line in text.splitlines() if line.strip()]) == 5


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("language", "text"), [(language, text) for _, language, text in EXAMPLES])
def test_the_readmes_examples_run(folder: Path, language: str, text: str) -> None:
    command = [sys.executable, "-"] if language == "python" else ["/bin/sh", "-eu", "-s"]
    environment = CommandLine(home=folder / "home").environment
    finished = subprocess.run(
        command,
        input=text,
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        env=environment | {"PATH": f"{FAIRLEAD.parent}{os.pathsep}{environment['PATH']}"},
        timeout=150,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert re.fullmatch(r"(Sent [\d,]+ bytes, index included, for [\d,]+ bytes of files\.\n)?", finished.stderr)
    if language == "python":
        reference, digest = finished.stdout.split()
        assert (reference, digest[:7]) == ("churn/1", "sha256:")
    else:
        assert "version.register" in finished.stdout
        copied = (folder / "copy" / "data/head/weights.npy").read_bytes()
        assert copied == (folder / "model" / "data/head/weights.npy").read_bytes()
