"""Memory is bounded by what is in flight, however large the file, as the operating system measures it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MEBI = 2**20


@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
def test_a_large_file_is_written_and_read_in_bounded_memory(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "sync" / "large_file.py"
    arguments = ["--gigabytes", "0.27", "--store", str(tmp_path), "--output", "json"]
    answer = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    figures = json.loads(answer.stdout)
    assert figures["plain_bytes"] == pytest.approx(256 * MEBI, rel=0.01)
    # Interpreter, libraries and the synthetic file take some 150 MiB, the file and its packs would be 420 more.
    peak = max(value for name, value in figures.items() if name.endswith("peak_rss_bytes"))
    assert peak < 450 * MEBI
