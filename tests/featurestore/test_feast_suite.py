"""Feast's own universal offline tests over Fairlead's offline store, where a checkout of Feast is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CHECKOUT = os.environ.get("FEAST_CHECKOUT")


@pytest.mark.skipif(CHECKOUT is None, reason="FEAST_CHECKOUT names no checkout of Feast, whose tests no package has")
@pytest.mark.timeout(900)
def test_feasts_own_universal_offline_tests_pass() -> None:
    folder = Path(CHECKOUT or "") / "sdk" / "python"
    tests = folder / "tests" / "universal" / "offline_store"
    names = [tests / f"test_{name}.py" for name in ("universal_historical_retrieval", "universal_types",
             "universal_materialization", "feature_logging", "persist")]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (folder, REPOSITORY / "tests" / "feast_suite"))),
        "FULL_REPO_CONFIGS_MODULE": "fairlead_repo_configuration",
        "FEAST_IS_LOCAL_TEST": "True",
    }
    command = [sys.executable, "-m", "pytest", "--integration", "-q", *map(str, names)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
