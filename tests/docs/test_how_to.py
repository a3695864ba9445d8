"""Each how-to page is on one shelf, and holds no command that is not run."""

from __future__ import annotations

import re

from tests.docs.how_to import FOLDER, SHELVES


def test_every_page_is_on_one_shelf() -> None:
    shelved = [page for pages in SHELVES.values() for page in pages]
    assert sorted(shelved) == sorted(page.stem for page in FOLDER.glob("*.md"))


def test_a_how_to_holds_no_command_that_is_not_run() -> None:
    for page in FOLDER.glob("*.md"):
        languages = re.findall(r"^```(\w*)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(languages) == {"sh", ""}, page.name
