"""Run by the tests of killed collectors: one pass of deleting, killed with SIGKILL a step later each time.

    python killed_collector.py FOLDER MOMENT

`FOLDER/saved` is a fleet whose garbage is due to be deleted at `MOMENT`. Run number N begins with a copy of it in
`FOLDER/live`, dies at the N-th step of deleting (a file is about to go, it has just gone, the record is about to note
it, it has just noted it), and another process takes the pass over. It ends when a run gets through, and writes what
files the others left. Each run is two processes of its own, forked so that imports are made once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.sync.upkeep import UPKEEP, Upkeeps
from fairlead.sync.worker import Worker
from fairlead.testing.clock import ManualClock
from tests.fleet import ADMIN, BACK_OFF, Fleet


class Steps:
    """Kills this process at a given step, once deleting has begun."""

    def __init__(self, number: int) -> None:
        self._left = number
        self._unlink = os.unlink
        self._has_begun = False
        os.unlink = self.unlink

    def unlink(self, path: str | Path) -> None:
        self._has_begun = True
        self.count()
        self._unlink(path)
        self.count()

    def count(self) -> None:
        self._left -= self._has_begun
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


class CountedDatabase(Database):
    """A database whose commits are steps."""

    steps: Steps

    @contextmanager
    def write(self) -> Generator[Session]:
        with super().write() as session:
            yield session
            self.steps.count()
        self.steps.count()


def open_live(folder: Path, clock: ManualClock, kind: type[Database] = Database) -> Fleet:
    root = folder / "live"
    return Fleet(root=root, database=kind(f"sqlite:///{root / 'fairlead.db'}"), clock=clock)


def collect(fleet: Fleet) -> None:
    """What is due, by a worker that does nothing else."""
    handlers = {UPKEEP: fleet.duties.handlers[UPKEEP]}
    Worker(fleet.database, fleet.clock, regions=None, handlers=handlers, derivers=[]).run_until_idle()


def begin(folder: Path, clock: ManualClock, number: int) -> None:
    """Ask for a pass, and die in it."""
    CountedDatabase.steps = Steps(number)
    fleet = open_live(folder, clock, CountedDatabase)
    Upkeeps(fleet.database, clock).request(ADMIN, "collect")
    collect(fleet)


def go_on(folder: Path, clock: ManualClock) -> None:
    """Another process, once the lease of the one that died is over."""
    clock.advance(BACK_OFF)
    fleet = open_live(folder, clock)
    collect(fleet)
    fleet.database.close()


def warm(folder: Path, clock: ManualClock) -> None:
    """A whole pass, so that no child has to load and compile what all of them need."""
    fleet = open_live(folder, clock)
    Upkeeps(fleet.database, clock).request(ADMIN, "collect")
    collect(fleet)
    fleet.database.close()


def in_a_process(action: Callable[[], None]) -> int:
    """The signal that ended it; 0: it came to its end."""
    child = os.fork()
    if not child:
        action()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0
    return 0


def files_of(folder: Path) -> list[str]:
    root = folder / "live" / "virginia"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def main() -> None:
    """Kill a pass at each of its steps, and say what was there after it had been taken over."""
    folder, clock_at = Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2])
    left: list[list[str]] = []
    warm(folder, ManualClock(clock_at))
    for number in range(1, 200):
        shutil.rmtree(folder / "live")
        shutil.copytree(folder / "saved", folder / "live")
        clock = ManualClock(clock_at)
        ended = in_a_process(lambda clock=clock, number=number: begin(folder, clock, number))
        if not ended:
            break
        assert ended == signal.SIGKILL
        assert not in_a_process(lambda clock=clock: go_on(folder, clock))
        left.append(files_of(folder))
    sys.stdout.write(json.dumps(left))


if __name__ == "__main__":
    main()
