"""Every block of shell on the how-to pages about versions and their record works as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.how_to import PAGE_SECONDS, pages, run_page


@pytest.mark.timeout(PAGE_SECONDS + 60)
@pages("record")
def test_a_how_to_runs_from_top_to_bottom(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    assert run_page(page, tmp_path, request)
