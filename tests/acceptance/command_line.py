"""`fairlead` as a user types it: a process, its exit code, and what it wrote where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil

FAIRLEAD = Path(sys.executable).with_name("fairlead")
ROOT = Path(__file__).parents[2]
COMMAND_SECONDS = 240

LABELS = ("--label", "owner=ana", "--label", "team=growth", "--label", "cost_centre=cc-42")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one command answered."""

    command: str
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Data, read from standard output alone."""
        return json.loads(self.stdout)

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document of a failed `--output json` command, after any message that came before it."""
        return cast("dict[str, Any]", json.loads(self.stderr[self.stderr.index("{") :]))

    def __str__(self) -> str:
        return f"$ {self.command}\nexit {self.code}\n{self.stdout}\n{self.stderr}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """The command line of somebody: a home, and perhaps a server and a token."""

    home: Path
    variables: Mapping[str, str] = field(default_factory=dict[str, str])

    def __call__(
        self, *arguments: str | Path, code: int = 0, stdin: str | None = None, folder: Path | None = None
    ) -> Answer:
        """Run one command, which must end with this exit code and never with a stack trace."""
        finished = subprocess.run(
            [FAIRLEAD, *map(str, arguments)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            env=self.environment,
            cwd=folder or self.home.parent,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        answer = Answer(
            command=" ".join(map(repr, map(str, arguments))),
            code=finished.returncode,
            stdout=finished.stdout,
            stderr=finished.stderr,
        )
        assert answer.code == code, str(answer)
        assert "Traceback" not in answer.stderr, str(answer)
        return answer

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        """The data of a command with `--output json`, which writes nothing else to standard output."""
        return self(*arguments, "--output", "json", code=code).json

    def refused(self, *arguments: str | Path, code: int) -> dict[str, Any]:
        """The problem document of a command that must fail with this code, say what to do next and print no data."""
        answer = self(*arguments, "--output", "json", code=code)
        assert answer.stdout == "", str(answer)
        problem = answer.problem
        assert problem["type"].startswith("urn:fairlead:error:"), str(answer)
        assert problem["type"] != "urn:fairlead:error:internal", str(answer)
        assert problem["detail"], str(answer)
        return problem

    def as_(self, **variables: str) -> CommandLine:
        """The same with other variables, such as `FAIRLEAD_TOKEN`."""
        return CommandLine(home=self.home, variables=dict(self.variables) | variables)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FAIRLEAD_")}
        # Tests may run on a terminal that is narrow, coloured or not UTF-8; what is asserted must not depend on it.
        fixed = {"FAIRLEAD_HOME": str(self.home), "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
        return inherited | fixed | dict(self.variables)

    @property
    def address(self) -> dict[str, Any]:
        """What the embedded server says of itself: url, pid, instance."""
        return cast("dict[str, Any]", json.loads((self.home / "server.json").read_text()))

    @property
    def token(self) -> str:
        """The owner's token."""
        return (self.home / "token").read_text()


def kill(*pids: int) -> None:
    """Kill processes and everything below them, without a word, and wait until they are gone."""
    doomed: list[psutil.Process] = []
    for pid in pids:
        if psutil.pid_exists(pid):
            process = psutil.Process(pid)
            doomed += [process, *process.children(recursive=True)]
    for process in doomed:
        if process.is_running():
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(doomed, timeout=10)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Every process that works in a folder or was told of it: what a home left running."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            told = [process.cwd(), *process.cmdline()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in each for each in told):
                found.append(process)
        except psutil.Error:
            continue
    return found


def leave_nothing(home: Path) -> None:
    """End what a test left running in its home, whatever state it is in."""
    CommandLine(home=home)("stop", "--all")
    kill(*(process.pid for process in processes_in(home)))


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for path, data in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


def options(name: str, values: Sequence[str]) -> list[str]:
    """An option given several times."""
    return [part for value in values for part in (name, value)]
