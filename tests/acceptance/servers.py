"""`fairlead server` and `fairlead worker` as processes, as one runs them beside a database."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.acceptance.command_line import FAIRLEAD, CommandLine
from tests.acceptance.world import when


@dataclass(slots=True, kw_only=True)
class Running:
    """A process that goes on, and the lines it printed to standard output so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list[str])

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, pattern: str, *, seconds: float = 60) -> re.Match[str]:
        """The first line that holds the pattern; fails when the process ends without one."""

        def find() -> re.Match[str] | None:
            found = next((match for line in list(self.lines) if (match := re.search(pattern, line))), None)
            assert found or self.process.poll() is None, f"ended with {self.process.returncode}: {self.lines}"
            return found

        return when(find, seconds=seconds, pause=0.05)

    def kill(self) -> None:
        """End it, and nothing that it started, without a word."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running(fairlead: CommandLine, *arguments: str) -> Generator[Running]:
    """Run a command that goes on until the block ends; then it is asked to leave, and must leave with 0."""
    process = subprocess.Popen(
        [FAIRLEAD, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=fairlead.environment | {"PYTHONUNBUFFERED": "1"},
        cwd=fairlead.home.parent,
        encoding="utf-8",
    )
    with reading(process) as started:
        yield started
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(timeout=45) == 0


@contextmanager
def reading(process: subprocess.Popen[str]) -> Generator[Running]:
    """Read what a process prints while the block runs; it is killed after that, if it still runs."""
    started = Running(process=process)
    thread = threading.Thread(target=_read, args=(started,), daemon=True)
    thread.start()
    try:
        yield started
    finally:
        started.kill()
        thread.join(timeout=5)
        assert process.stdout is not None
        process.stdout.close()


def _read(started: Running) -> None:
    assert started.process.stdout is not None
    for line in started.process.stdout:
        started.lines.append(line.rstrip("\n"))


@contextmanager
def running_server(fairlead: CommandLine, *arguments: str) -> Generator[tuple[Running, str]]:
    """Run `fairlead server` on a free port; the process and its address."""
    with running(fairlead, "server", "--port", "0", *arguments) as server:
        yield server, server.wait_for(r"answers at (http://[^ ;]+)")[1]
