"""A layout that leaves blocks to the index of their pack: small, as true as any other, and mended like any other."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fairlead.core.errors import CorruptLayout, CorruptPack
from fairlead.sync.store import plain_reader
from fairlead.sync.store.copy import copy_artifact
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.encryption import EncryptedStore
from fairlead.sync.store.known import among
from fairlead.sync.store.layout import Layout, read_layout, read_outline
from fairlead.sync.store.local import LocalStore
from fairlead.sync.store.outline import Outline
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import WrittenArtifact, write_artifact
from fairlead.testing.objects import FaultyStore, MemoryStore

DOMAIN = DedupDomain("acme", "unrestricted")
TENSORS = {
    f"layer.{number:02}": np.random.default_rng(number).standard_normal((128, 128)).astype(np.float32)
    for number in range(40)
}
FIRST = save(TENSORS, metadata={"format": "pt"})
NOTED = save(TENSORS, metadata={"format": "pt", "note": "reviewed and approved"})


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, WrittenArtifact, WrittenArtifact]:
    """A location with a version and one whose header alone is another."""
    folder = tmp_path_factory.mktemp("location")
    store = LocalStore(folder)
    first = write_artifact(store, DOMAIN, {"m.safetensors": FIRST})
    noted = write_artifact(store, DOMAIN, {"m.safetensors": NOTED}, known_blocks=among(first.layout.blocks))
    return folder, first, noted


def test_a_changed_header_costs_little_more_than_the_header(
    location: tuple[Path, WrittenArtifact, WrittenArtifact],
) -> None:
    folder, _, noted = location
    store = LocalStore(folder)
    assert (noted.new_blocks, noted.reused_blocks) == (1, 40)
    assert (store.size(noted.layout_key) or 0) < 600 < len(noted.layout.to_bytes()) / 6
    assert noted.sent_bytes < 3000
    outline = read_outline(store, DOMAIN, noted.digest, noted.layout_key)
    assert [run.blocks for run in outline.runs] == [40]
    assert set(outline.packs) == set(noted.layout.packs)
    assert read_layout(store, DOMAIN, noted.digest, noted.layout_key) == noted.layout
    assert Layout.parse(noted.layout.to_bytes()) == noted.layout
    with pytest.raises(CorruptLayout, match="without the packs"):
        Layout.parse(store.read(noted.layout_key))


def test_what_the_index_describes_is_read_and_verified_like_anything_else(
    location: tuple[Path, WrittenArtifact, WrittenArtifact],
) -> None:
    folder, first, noted = location
    counter = FaultyStore(LocalStore(folder))
    reader = ArtifactReader.open(counter, DOMAIN, noted.digest, noted.layout_key)
    assert counter.calls["read"] == 3, "manifest, layout and one index"
    reader.verify()
    assert reader.read_file("m.safetensors") == NOTED
    assert ArtifactReader.open(LocalStore(folder), DOMAIN, first.digest).read_file("m.safetensors") == FIRST
    found: list[bytes] = []
    plain_reader.read_artifact(folder, noted.digest, lambda _path, piece: found.append(piece))
    assert b"".join(found) == NOTED


def test_an_index_is_read_once_however_many_of_its_runs_a_layout_names() -> None:
    store = FaultyStore(MemoryStore())
    first = write_artifact(store, DOMAIN, {"m.safetensors": FIRST})
    pruned = {"m.safetensors": save(TENSORS | {"layer.20": np.zeros((128, 128), np.float32)})}
    second = write_artifact(store, DOMAIN, pruned, known_blocks=among(first.layout.blocks))
    assert [run.blocks for run in read_outline(store, DOMAIN, second.digest, second.layout_key).runs] == [20, 19]
    store.calls.update(dict.fromkeys(store.calls, 0))
    assert ArtifactReader.open(store, DOMAIN, second.digest, second.layout_key).layout == second.layout
    assert store.calls["read"] == 3, "manifest, layout and one index"


@pytest.mark.parametrize("harm", ["flipped", "cut", "missing"])
def test_a_pack_that_lost_its_index_is_an_error_and_never_other_bytes(
    location: tuple[Path, WrittenArtifact, WrittenArtifact], tmp_path: Path, harm: str
) -> None:
    folder, first, noted = location
    shutil.copytree(folder, tmp_path / "copy")
    (pack,) = first.layout.packs
    path = tmp_path / "copy" / DOMAIN.pack_key(pack)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data if harm == "flipped" else data[:-200])
    if harm == "missing":
        path.unlink()
    store = LocalStore(tmp_path / "copy")
    with pytest.raises(CorruptPack):
        ArtifactReader.open(store, DOMAIN, noted.digest, noted.layout_key)
    with pytest.raises(CorruptPack):
        ArtifactReader.open(store, DOMAIN, noted.digest)
    # What it says by itself can still be told: that is what keeps its packs from being collected.
    assert pack in read_outline(store, DOMAIN, noted.digest, noted.layout_key).packs
    copy_artifact(LocalStore(folder), store, DOMAIN, noted.digest, known_blocks=among(noted.layout.blocks), repair=True)
    ArtifactReader.open(store, DOMAIN, noted.digest).verify()


def test_a_copy_makes_five_requests_for_a_changed_header(
    location: tuple[Path, WrittenArtifact, WrittenArtifact],
) -> None:
    folder, first, noted = location
    home, there = LocalStore(folder), FaultyStore(MemoryStore())
    before = copy_artifact(home, there, DOMAIN, first.digest, side="source")
    there.calls.update(dict.fromkeys(there.calls, 0))
    moved = copy_artifact(home, there, DOMAIN, noted.digest, known_blocks=among(before.layout.blocks), side="source")
    assert {name: count for name, count in there.calls.items() if count} == {"size": 1, "write": 3, "list": 1}
    assert moved.bytes_moved < 3000
    ArtifactReader.open(there, DOMAIN, noted.digest, moved.layout_key).verify()


def test_a_destination_reads_an_index_that_it_has_itself(
    location: tuple[Path, WrittenArtifact, WrittenArtifact],
) -> None:
    folder, first, noted = location
    there = MemoryStore()
    before = copy_artifact(LocalStore(folder), there, DOMAIN, first.digest)
    source = FaultyStore(LocalStore(folder))
    copy_artifact(
        source,
        there,
        DOMAIN,
        noted.digest,
        source_layout_key=noted.layout_key,
        known_blocks=among(before.layout.blocks),
    )
    assert source.calls["read"] == 3, "manifest, layout and the header's block"


def test_an_index_that_does_not_decrypt_nearby_is_read_at_the_source() -> None:
    domain, behind = DedupDomain("acme", "unrestricted", "k1"), MemoryStore()

    def keyring(_workspace: str, _key_id: str) -> bytes:
        return bytes(range(32))

    home, there = EncryptedStore(MemoryStore(), keyring), EncryptedStore(behind, keyring)
    first = write_artifact(home, domain, {"m.safetensors": FIRST})
    noted = write_artifact(home, domain, {"m.safetensors": NOTED}, known_blocks=among(first.layout.blocks))
    copy_artifact(home, there, domain, first.digest)
    key = domain.pack_key(first.layout.packs[0])
    behind.write(key, behind.read(key)[:-1] + b"x")
    found = ArtifactReader.open(home, domain, noted.digest, noted.layout_key, nearer=there)
    assert found.layout == noted.layout


def test_where_much_is_sent_anyway_every_block_is_described() -> None:
    store = MemoryStore()
    first = write_artifact(store, DOMAIN, {"m.safetensors": FIRST})
    other = TENSORS | {"layer.99": np.random.default_rng(99).standard_normal((640, 640)).astype(np.float32)}
    grown = write_artifact(store, DOMAIN, {"m.safetensors": save(other)}, known_blocks=among(first.layout.blocks))
    assert grown.reused_blocks == 40
    assert read_outline(store, DOMAIN, grown.digest, grown.layout_key).runs == []


def test_a_layout_that_is_made_to_fill_the_memory_is_refused() -> None:
    layout = write_artifact(MemoryStore(), DOMAIN, {"a": b"a"}).layout
    record = json.loads(gzip.decompress(layout.to_bytes()))
    digest, pack = layout.packs[0], 2**25
    run = {"pack": 0, "pack_size": pack, "offset": 8, "entries": 400_000, "stored_length": 9, "entries_digest": digest}
    record["blocks"] = [run]
    record["files"][0]["blocks"] = [[0, 400_000]] * 100
    with pytest.raises(CorruptLayout):
        Outline.parse(gzip.compress(json.dumps(record).encode()))
    record["blocks"], record["files"][0]["blocks"] = [run] * 100, [[0, 400_000]]
    with pytest.raises(CorruptLayout):
        Outline.parse(gzip.compress(json.dumps(record).encode()))
    record["blocks"] = [run]
    assert len(Outline.parse(gzip.compress(json.dumps(record).encode())).files["a"]) == 400_000
