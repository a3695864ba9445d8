"""The reference page of the catalog is true: its examples run, and its lists are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fairlead.catalog import load_catalog, residency_classes
from fairlead.core.errors import ResidencyViolation

PAGE = Path(__file__).parents[2].joinpath("docs/reference/catalog.md").read_text(encoding="utf-8")


def test_the_examples_print_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    figures, residency = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(figures, {})
    shown = capsys.readouterr().out.splitlines()
    said = re.findall(r"# (.+)", figures)
    assert len(shown) == len(said)
    assert all(line.startswith(text.removesuffix(" ...")) for line, text in zip(shown, said, strict=True))
    with pytest.raises(ResidencyViolation, match="uksouth"):
        exec(residency, {})


def test_every_residency_class_and_every_area_is_listed() -> None:
    table = PAGE.partition("## Residency classes")[2].partition("```python")[0]
    assert set(re.findall(r"`(\w+)`", table)) == set(residency_classes())
    listed = PAGE.partition("## Demand areas")[2].partition("## Sources")[0]
    assert re.findall(r"[\w-]+", listed) == [area.id for area in load_catalog().areas()]
