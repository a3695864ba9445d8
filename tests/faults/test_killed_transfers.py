"""Kill -9 of a worker at full speed: what it brings again is a small part of the artifact, however small that is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.registry import work
from tests.faults import killed_transfer
from tests.faults.test_replication_promises import ROOT
from tests.fleet import REGIONS, Fleet, open_fleet

# One pack where it was registered.
FILES = {f"part-{number}.bin": os.urandom(250_000) for number in range(24)}
PLAN_FACTOR = 1.5


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia", "amsterdam")) as fleet:
        fleet.clock.advance(timedelta(days=-1))  # leases of the worker are those of the real clock
        yield fleet


@pytest.mark.parametrize("die_at", [1, 3])
def test_a_small_artifact_moves_at_most_half_again_when_its_worker_is_killed(
    fleet: Fleet, tmp_path: Path, die_at: int
) -> None:
    _, written = fleet.register(FILES, regions=[REGIONS["virginia"], REGIONS["amsterdam"]])
    assert len(fleet.packs("virginia")) == 1
    fleet.worker().derive()
    verify(fleet)
    killed = run_worker(fleet, tmp_path / "first", die_at)
    assert killed == -signal.SIGKILL
    work.release_leases(fleet.database)
    assert run_worker(fleet, tmp_path / "second", 0) == 0
    assert fleet.read(written.digest, "amsterdam") == FILES
    moved = [sum(map(int, (tmp_path / name).read_text().split())) for name in ("first", "second")]
    plan = sum(path.stat().st_size for path in fleet.packs("virginia"))
    # What was lost is at most what was in flight; what had arrived was found again.
    assert moved[0] + moved[1] <= PLAN_FACTOR * plan, moved
    if die_at > 1:
        assert moved[1] < plan


def verify(fleet: Fleet) -> None:
    leased = work.lease(
        fleet.database, fleet.clock, kinds={"verify-upload"}, regions=None, holder="one", ttl=timedelta(minutes=1)
    )
    assert leased is not None
    fleet.duties.handlers["verify-upload"](leased)


def run_worker(fleet: Fleet, notes: Path, die_at: int) -> int:
    url = f"sqlite:///{fleet.root / 'fairlead.db'}"
    command = [sys.executable, "-m", killed_transfer.__name__, url, str(notes), str(die_at)]
    return subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode
