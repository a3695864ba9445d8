"""What the pages name is there: each other, and the modules of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "benchmarks").rglob("*.md"), *DOCS.rglob("*.md")])
ROOMS = (
    "",
    "fairlead",
    "fairlead/app",
    "fairlead/sdk",
    "registry",
    "registry/mlflow",
    "sync",
    "sync/store",
    "serving",
    "featurestore",
)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_index_lists_every_page_once_under_its_shelf() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"\]\(([a-z-]+/[a-z-]+\.md)\)", index[index.index("## How to") :])
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.glob("*/*.md"))


def test_the_modules_that_the_architecture_names_are_there() -> None:
    named = re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    assert named
    for name in named:
        assert any((ROOT / room / name).exists() for room in ROOMS), name


def test_the_glossary_has_one_meaning_for_each_word() -> None:
    words = re.findall(r"^\| \*\*([^*]+)\*\*", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert words
    assert len(words) == len(set(words))
