"""Which base a client takes: the first that is cheap to read from where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairlead.core.ids import Digest
from fairlead.sdk.bases import LocalCopies, choose_base, is_folder
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.manifest import build_manifest
from fairlead.sync.store.writer import write_artifact
from fairlead.testing.objects import MemoryStore

DOMAIN = DedupDomain("acme", "global")


class Shelf:
    """A location with two artifacts, and a client's cache."""

    def __init__(self, root: Path) -> None:
        self.store = MemoryStore()
        self.copies = LocalCopies(root / "cache")
        self.folders = [root / "one", root / "two"]
        self.candidates: list[dict[str, Any]] = []
        for folder in self.folders:
            folder.mkdir()
            (folder / "weights.bin").write_text(folder.name)
            written = write_artifact(self.store, DOMAIN, folder)
            self.candidates.append({"digest": written.digest, "layout_key": written.layout_key})

    def choose(self, *, reads_location: bool) -> Digest | None:
        base = choose_base(self.candidates, self.store, DOMAIN, copies=self.copies, reads_location=reads_location)
        return None if base is None else base.reader.digest


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_location_that_is_near_is_read(shelf: Shelf) -> None:
    assert shelf.choose(reads_location=True) == shelf.candidates[0]["digest"]


def test_a_location_that_is_far_is_not_read_and_not_even_asked(shelf: Shelf) -> None:
    shelf.store.objects.clear()
    assert shelf.choose(reads_location=False) is None


def test_files_that_were_registered_from_here_are_used_while_they_are_there(shelf: Shelf) -> None:
    digest = Digest(shelf.candidates[1]["digest"])
    shelf.copies.remember(digest, shelf.folders[1])
    assert shelf.choose(reads_location=False) == digest
    (shelf.folders[1] / "weights.bin").write_text("longer than it was")
    assert shelf.choose(reads_location=False) is None


def test_the_download_cache_is_used(shelf: Shelf, tmp_path: Path) -> None:
    digest = shelf.candidates[0]["digest"]
    cached = tmp_path / "cache" / "artifacts" / digest.removeprefix("sha256:")
    cached.parent.mkdir(parents=True)
    shelf.folders[0].rename(cached)
    assert build_manifest(cached).digest == digest
    assert shelf.choose(reads_location=False) == digest


def test_a_candidate_that_cannot_be_opened_is_passed_over(shelf: Shelf) -> None:
    del shelf.store.objects[shelf.candidates[0]["layout_key"]]
    assert shelf.choose(reads_location=True) == shelf.candidates[1]["digest"]


def test_a_damaged_note_is_none(shelf: Shelf, tmp_path: Path) -> None:
    digest = Digest(shelf.candidates[0]["digest"])
    shelf.copies.remember(digest, shelf.folders[0])
    (note,) = (tmp_path / "cache" / "registered").iterdir()
    for text in ("", "[]", "{}", '{"path": 3}', "\x00"):
        note.write_text(text)
        assert shelf.choose(reads_location=False) is None


def test_a_folder_is_told_from_a_bucket() -> None:
    assert is_folder("file:///data")
    assert is_folder("/data")
    assert not is_folder("s3://bucket/prefix")
