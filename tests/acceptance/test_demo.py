"""The demo: killed wherever it stands it starts afresh, tells all that it promises, and leaves nothing running."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, kill, processes_in
from tests.acceptance.servers import Running, reading
from tests.acceptance.world import REGIONS, when

DIGEST = r"sha256:[0-9a-f]{64}"
EU = {"gcp:europe-west4", "azure:westeurope"}


@pytest.fixture
def home(tmp_path: Path) -> Generator[Path]:
    # Hidden, as the home is by default.
    home = tmp_path / ".demo"
    yield home
    kill(*(process.pid for process in processes_in(home)))


@pytest.mark.timeout(600)
def test_the_demo_survives_being_killed_and_tells_the_whole_story(home: Path) -> None:
    # While features are taken; the service that it started lives on. (Killed endpoints are tests/serving's matter.)
    with running_demo(home) as demo:
        demo.wait_for(r"^2\. ", seconds=60)
        demo.kill()
    assert processes_in(home)

    with running_demo(home) as demo:
        assert demo.process.wait(timeout=300) == 0, "\n".join(demo.lines)
    when(lambda: None if processes_in(home) else True, seconds=10)
    check_story("\n".join(demo.lines))
    tried = CommandLine(home=home)
    assert tried.json("model", "show", "tumour@production")["version"] == 1
    tried("stop", "--all")


def test_the_demo_clears_no_folder_that_is_not_its_own(home: Path) -> None:
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    finished = subprocess.run(
        [sys.executable, "-m", "fairlead.app.demo", "--home", str(home)],
        capture_output=True,
        encoding="utf-8",
        env=CommandLine(home=home).environment,
        check=False,
    )
    assert finished.returncode == 2
    assert str(home) in finished.stderr
    assert [file.name for file in home.iterdir()] == ["thesis.txt"]


def check_story(told: str) -> None:
    """Each part that a newcomer was promised."""

    def has(pattern: str) -> re.Match[str]:
        found = re.search(pattern, told, re.MULTILINE)
        assert found, f"the demo did not tell {pattern!r}:\n{told}"
        return found

    # The service, with three folders as three regions.
    has(r"http://127\.0\.0\.1:\d+ answers")
    for region in REGIONS:
        has(rf"{region} .*file://")
    # Features: defined, pinned; the naive join leaks and ours does not.
    for kind in ("Entity", "FeatureView", "FeatureService"):
        has(rf"^ *{kind} +\w+ +added")
    snapshot = has(rf"snapshot ({DIGEST})")[1]
    assert int(has(r"naive join .*: (\d+) of 569")[1]) > 0
    has(r"point-in-time join: +0 of 569")
    # A real model, pinned to what it was trained on.
    assert float(has(r"extractor: ([\d.]+) MB of float32")[1]) >= 16
    version = has(rf"tumour/1 is READY: ([\d.]+) MB of files, ([\d.]+) MB sent, ({DIGEST})")
    assert float(version[2]) < float(version[1])
    has(rf"pinned to diagnosis {DIGEST}\n +and snapshot {snapshot}")
    # Everywhere, read back, and online.
    for region in REGIONS:
        has(rf"{region} +VERIFIED +\d+ +\d+ ")
        has(rf"{region} +READY +\d+ ")
    # Version 2 sends its head alone; gates, a second identity, two refusals with reason and next step.
    assert float(has(r"tumour/2 is READY: [\d.]+ MB of files, ([\d.]+) MB sent")[1]) < 0.1
    has(r"own request: refused")
    has(r"bo approves: APPLIED")
    has(r"refused: tumour/3 may not hold staging")
    has(r"\[FAIL\] accuracy >= 0\.95")
    has(r"Register a version that reaches the limit")
    # Where to run, and why the runner-up lost.
    assert told.count("runner-up") == 2
    has(r"USD/h, [\d.]+ gCO2e/h")
    has(r"tumour-eu/1 has residency eu, so it is in azure:westeurope, gcp:europe-west4")
    # One bundle, equal answers, fail-over that keeps to the residency class.
    bundles = dict(re.findall(rf"bundle of (\S+): ({DIGEST})", told))
    assert len(bundles) == 3
    has(r"tumour: \d answers, all equal, all from one bundle digest")
    for name in ("tumour", "tumour-eu"):
        lost, taken = has(rf"{name}: stopped the process in (\S+); the next request was answered from (\S+)").groups()
        assert lost != taken
        assert name == "tumour" or {lost, taken} == EU
    # Back with one command, and all of it on record.
    has(r"version 2 -> 1 \(revision 3\)")
    assert has(rf"answers now come from tumour/1, bundle ({DIGEST})")[1] == bundles["tumour/1"]
    has(r"bo +model\.promote\.approve")
    has(r"audit chain: is_intact=yes, .*unsealed=0")
    has(r"replicate +\d+ +\d+ ")
    # How long each step took, and what to try next.
    assert len(re.findall(r"^ +\([\d.]+ s\)$", told, re.MULTILINE)) >= 8
    has(r"All done in \d+ s")
    has(r"fairlead model show tumour")


@contextmanager
def running_demo(home: Path) -> Generator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-m", "fairlead.app.demo", "--home", str(home)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=CommandLine(home=home).environment | {"PYTHONUNBUFFERED": "1"},
        cwd=home.parent,
        encoding="utf-8",
    )
    with reading(process) as started:
        yield started
