"""Kill -9 at every step of deleting ends with the garbage gone, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from fairlead.registry.tables_bytes import GarbageRow
from fairlead.sync.collection import GRACE
from fairlead.sync.upkeep import Upkeeps
from tests.faults import killed_collector
from tests.faults.killed_collector import collect, files_of, open_live
from tests.faults.test_replication_promises import ROOT
from tests.fleet import ADMIN, Fleet, open_fleet

SHARED = os.urandom(60_000)
KEPT = {"shared.bin": SHARED, "config.json": b"{}"}
AGED = GRACE + timedelta(minutes=1)
ONE = ["aws:us-east-1"]


def a_fleet_with_garbage(fleet: Fleet) -> str:
    """A version that is kept, and beside it two uploads nobody came back for, due to be deleted; the version."""
    _, kept = fleet.register(KEPT, regions=ONE)
    fleet.run()
    for number in range(2):
        fleet.write(fleet.begin(near="virginia", regions=ONE), {"shared.bin": SHARED, "n": os.urandom(500 + number)})
    for _ in range(2):
        Upkeeps(fleet.database, fleet.clock).request(ADMIN, "collect")
        fleet.run()
        fleet.clock.advance(AGED)
    with fleet.database.read() as session:
        assert set(session.scalars(select(GarbageRow.state))) == {"WITHDRAWN"}
    return kept.digest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_collection_is_finished_by_another_process_whenever_it_died(tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    with open_fleet(live, names=("virginia",)) as fleet:
        digest = a_fleet_with_garbage(fleet)
        clock = fleet.clock
    garbage_too = files_of(tmp_path)
    shutil.copytree(live, tmp_path / "saved")
    finished = subprocess.run(
        [sys.executable, killed_collector.__file__, tmp_path, clock.now().isoformat()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    left = json.loads(finished.stdout)
    # The run that was not killed is what all others must come to.
    whole = files_of(tmp_path)
    assert len(garbage_too) - len(whole) == 6
    assert len(left) > 2 * 6 + 2, "each file twice, and the record"
    assert left == [whole] * len(left)

    last = open_live(tmp_path, clock)
    assert last.read(digest, "virginia") == KEPT
    # What was deleted can come again.
    last.clock.advance(AGED)
    Upkeeps(last.database, last.clock).request(ADMIN, "collect")
    collect(last)
    _, again = last.register({"shared.bin": SHARED, "n": b"again"}, regions=ONE)
    last.run()
    assert last.read(again.digest, "virginia")["n"] == b"again"
