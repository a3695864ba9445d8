"""The example of three regions shows what it says, in one command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.acceptance.command_line import ROOT

EXAMPLE = ROOT / "examples" / "federation" / "run.py"


@pytest.mark.timeout(420)
def test_three_regions_are_joined_and_one_is_lost() -> None:
    finished = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, encoding="utf-8", timeout=400, check=False
    )
    shown = finished.stdout
    assert finished.returncode == 0, f"{shown}\n{finished.stderr}"
    for region in ("aws:us-east-1", "gcp:europe-west4", "azure:westeurope"):
        assert f"The feature agent of {region} answers at" in shown
    assert "Sent are customer_id, event_timestamp and a row number, and nothing else." in shown
    assert "The same rows: True" in shown
    assert "residency-violation: The entity rows are under the residency class 'eu'" in shown
    assert "agent-unavailable: payments cannot be read in aws:us-east-1" in shown
    assert "STALE: payments is" in shown
    assert "MISSING: payments has no values" in shown
    assert "1000 rows, 0 of them with paid_30d" in shown
    assert shown.partition("as the ledger has it")[2].count("bytes") == 8
    assert "Traceback" not in finished.stderr
