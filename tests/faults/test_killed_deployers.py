"""Kill -9 at any step of a rollout: it goes on where it was, its regions answer all the while, nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import killed_deployer
from tests.faults.test_replication_promises import ROOT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.timeout(300)
def test_a_killed_rollout_goes_on_where_it_was_whenever_it_died(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, killed_deployer.__file__, tmp_path / "home"],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    found = json.loads(finished.stdout)
    assert found["deaths"] >= 5
    assert found["revision"] == ["LIVE", 2]
    assert found["regions"] == [[region, "RUNNING", 2, 100] for region in killed_deployer.REGIONS]
    assert {state for _, state in found["steps"]} == {"DONE"}
    assert [action for action, _ in found["steps"]] == ["replace", "replace", "shift", "shift", "finish"]
    # One process a region, and none once it is destroyed.
    assert (found["processes"], found["left"]) == (2, 0)
    assert found["answering"] == sorted(killed_deployer.REGIONS)
