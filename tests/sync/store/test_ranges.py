"""Parts of files: only their blocks are read, and never out of a layout that nobody vouches for."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from fairlead.core.errors import CorruptLayout
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.layout import write_layout
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import write_artifact
from fairlead.testing.objects import MemoryStore

DOMAIN = DedupDomain("acme", "unrestricted")
LARGE = os.urandom(9 * 2**20)


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.read_bytes: Counter[str] = Counter()

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        data = super().read(key, start=start, length=length)
        self.read_bytes[key.split("/")[3]] += len(data)
        return data


def test_a_part_of_a_file_reads_its_blocks_alone_where_the_layout_is_vouched_for() -> None:
    store = CountingStore()
    written = write_artifact(store, DOMAIN, {"large": LARGE})
    reader = ArtifactReader.open(store, DOMAIN, written.digest, written.layout_key)
    store.read_bytes.clear()
    with reader.open_file("large") as stream:
        stream.seek(len(LARGE) - 5)
        assert stream.read() == LARGE[-5:]
    assert store.read_bytes["packs"] < len(LARGE) // 2


def test_a_layout_that_was_merely_found_proves_the_file_before_any_part_of_it_is_given() -> None:
    store = MemoryStore()
    written = write_artifact(store, DOMAIN, {"a": b"one!", "b": b"two!"})
    sound = ArtifactReader.open(store, DOMAIN, written.digest, written.layout_key)
    with ArtifactReader.open(store, DOMAIN, written.digest).open_file("a") as stream:
        assert stream.read(2) == b"on"
    files = sound.layout.files
    # Blocks that are sound, each by its digest, and of the right lengths; but they are the other file's.
    write_layout(store, DOMAIN, sound.manifest, {"a": files["b"], "b": files["a"]})
    with pytest.raises(CorruptLayout):
        ArtifactReader.open(store, DOMAIN, written.digest).open_file("a")
