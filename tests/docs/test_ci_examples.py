"""The steps of the CI examples run as they stand there, against the embedded server."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.command_line import FAIRLEAD, ROOT, CommandLine, leave_nothing

EXAMPLES = ROOT / "examples" / "ci"
AWAITING_APPROVAL = 8


@pytest.mark.timeout(240)
def test_each_step_of_a_workflow_does_what_it_says(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "policies", tmp_path / "policies")
    (policy,) = (tmp_path / "policies").glob("*.yaml")
    document = yaml.safe_load(policy.read_text(encoding="utf-8"))
    # Whether a weekend or the end of a year is frozen depends on the day on which the tests run.
    del document["spec"]["freezes"]
    policy.write_text(yaml.safe_dump(document), encoding="utf-8")
    fairlead = CommandLine(home=tmp_path / "home")
    try:
        (tmp_path / "weights.bin").write_bytes(b"weights")
        labels = [part for each in ("owner=a", "team=b", "cost_centre=c") for part in ("--label", each)]
        facts = ["--metric", "roc_auc=0.9", "--tag", "git_commit=abc"]
        fairlead("model", "register", "churn", tmp_path / "weights.bin", *facts, *labels)
        workflow = yaml.safe_load((EXAMPLES / "github-promote.yaml").read_text(encoding="utf-8"))
        steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
        *prepare, promote = steps
        for step in prepare:
            assert run(step, tmp_path, fairlead) == 0, step
        assert run(promote, tmp_path, fairlead) == AWAITING_APPROVAL
        comment = (tmp_path / "comment.md").read_text(encoding="utf-8")
        assert "```diff" in comment
        assert "### churn/1 → production: PLANNED" in comment
        assert "churn/1 → production: AWAITING_APPROVAL" in (tmp_path / "summary.md").read_text(encoding="utf-8")
        pipeline: dict[str, Any] = yaml.safe_load((EXAMPLES / "gitlab-promote.yaml").read_text(encoding="utf-8"))
        *_, last = pipeline["promote"]["script"]
        assert run(last, tmp_path, fairlead) == AWAITING_APPROVAL
    finally:
        leave_nothing(tmp_path / "home")


def run(step: str, folder: Path, fairlead: CommandLine) -> int:
    """The exit code of a step, run by the shell that the CI systems use, in a job's environment."""
    job = {
        "PATH": f"{FAIRLEAD.parent}{os.pathsep}{os.environ['PATH']}",
        "MODEL": "churn/1",
        "WAIT_SECONDS": "0",
        "GITHUB_ACTOR": "ana",
        "GITLAB_USER_LOGIN": "ana",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    finished = subprocess.run(
        ["bash", "-e", "-c", step],
        cwd=folder,
        env=fairlead.environment | job,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert "Traceback" not in finished.stderr, finished.stderr
    return finished.returncode
