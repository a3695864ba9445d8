"""Every block of shell on the how-to pages about bundles and deployments works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.how_to import PAGE_SECONDS, pages, run_page


@pytest.mark.timeout(PAGE_SECONDS + 60)
@pages("serving")
def test_a_how_to_runs_from_top_to_bottom(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    printed = run_page(page, tmp_path, request)
    assert printed
    if page == "promote-and-deploy":
        check_promote_and_deploy(printed)


def check_promote_and_deploy(printed: list[str]) -> None:
    _, registered, policy, approved, _, deployed, predicted, rolled_back, seen, _ = printed
    assert registered.count("VERIFIED") == 3
    assert "0.95" in policy
    assert "churn/1 -> production: APPLIED" in approved
    assert "RUNNING" in deployed
    assert "predictions" in predicted
    moves = re.findall(r"^\s+\d+\s+(promote|rollback)\s+(\S+)\s+(\d)", rolled_back, re.MULTILINE)
    assert moves == [("rollback", "2", "1"), ("promote", "1", "2"), ("promote", "-", "1")]
    assert "model.promote.approve" in seen
    assert "aws:us-east-1" in seen
