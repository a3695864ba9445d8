"""Feast's own universal offline tests over Fairlead's offline store, where a checkout of Feast is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CHECKOUT = os.environ.get("FEAST_CHECKOUT")
MODULES = (
    "universal_historical_retrieval",
    "universal_types",
    "universal_materialization",
    "feature_logging",
    "persist",
)


@pytest.mark.skipif(CHECKOUT is None, reason="FEAST_CHECKOUT names no checkout of Feast, whose tests no package has")
@pytest.mark.timeout(1200)
def test_feasts_own_universal_offline_tests_pass() -> None:
    folder = Path(CHECKOUT or "") / "sdk" / "python"
    inherited = os.environ.get("PYTHONPATH", "")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY / "tests" / "feast_suite"), inherited]),
        "FULL_REPO_CONFIGS_MODULE": "fairlead_repo_configuration",
        "FEAST_IS_LOCAL_TEST": "True",
        "IS_TEST": "True",
    }
    names = [folder / "tests" / "universal" / "offline_store" / f"test_{name}.py" for name in MODULES]
    # Older releases of Feast leave these tests out unless they are asked for by an option.
    options = ["--integration"] if '"--integration"' in (folder / "tests" / "conftest.py").read_text() else []
    # Feast's own settings of pytest name plugins that these tests have no use for.
    settings = ["-c", os.devnull, "--rootdir", str(folder), "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-W", "ignore", *settings, *options, *map(str, names)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout[-4000:])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "Optional integration test dependency" not in done.stdout, done.stdout[-4000:]
