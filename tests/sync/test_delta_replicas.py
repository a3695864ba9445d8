"""Versions stored as differences: replicated as such, mended with what they stand on, and never without it."""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from fairlead.core.ids import Digest
from fairlead.sync.shelves import by_digest
from fairlead.sync.store.bases import Base, signature_of_files
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import WrittenArtifact, write_artifact
from tests.fleet import ADMIN, REGIONS, Fleet, domain_of_upload, open_fleet
from tests.records import WORKSPACE


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path) as fleet:
        yield fleet


def model(seed: int) -> dict[str, bytes]:
    """A model of one tensor, fine-tuned `seed` times."""
    values = np.random.default_rng(0).normal(0, 0.02, 50_000).astype(np.float32)
    for step in range(seed):
        noise = np.random.default_rng(step + 1).normal(0, 1e-4, values.shape)
        values = (values * (1 + noise)).astype(np.float32)
    entry = {"dtype": "F32", "shape": [values.size], "data_offsets": [0, values.nbytes]}
    header = json.dumps({"layer": entry}).encode()
    return {"model.safetensors": len(header).to_bytes(8, "little") + header + values.tobytes()}


def register(fleet: Fleet, files: dict[str, bytes]) -> WrittenArtifact:
    """What the SDK does: ask for bases, and write on the first one."""
    upload = fleet.begin(near="virginia")
    store, domain = open_store(upload.location.url), domain_of_upload(upload)
    candidates = fleet.uploads.bases(ADMIN, upload.id, tensor_signature=signature_of_files(files))
    readers = [ArtifactReader.open(store, domain, Digest(each.digest), each.layout_key) for each in candidates]
    written = write_artifact(
        store,
        domain,
        files,
        known_blocks=lambda digests: by_digest(fleet.uploads.known_blocks(ADMIN, upload.id, digests)),
        bases=[Base(reader=reader) for reader in readers[:1]],
    )
    fleet.complete(upload, written)
    fleet.run()
    fleet.clock.advance(timedelta(seconds=1))
    return written


def test_a_difference_travels_as_one_and_is_whole_in_every_region(fleet: Fleet) -> None:
    versions = [register(fleet, model(step)) for step in range(3)]
    assert [version.delta_blocks for version in versions] == [0, 1, 1]
    first, *later = versions
    for name in REGIONS:
        for step, version in enumerate(versions):
            assert fleet.read(version.digest, name) == model(step)
    for version in later:
        for name in ("eemshaven", "amsterdam"):
            moved, full = (fleet.replica(each.digest, name).moved_bytes or 0 for each in (version, first))
            assert 0 < moved < 0.65 * full


def test_a_damaged_base_takes_down_what_stands_on_it_and_both_are_mended(fleet: Fleet) -> None:
    first, second = register(fleet, model(0)), register(fleet, model(1))
    (base,) = second.layout.bases
    assert base.digest in first.layout.blocks
    store = open_store(fleet.location("amsterdam").url)
    domain = DedupDomain(WORKSPACE, "unrestricted")
    layout = ArtifactReader.open(store, domain, second.digest).layout
    pack = domain.pack_key(layout.blocks[base.digest].pack)
    body = bytearray(store.read(pack))
    body[len(body) // 2] ^= 1
    store.write(pack, body)
    fleet.artifacts.report(ADMIN, second.digest, location="amsterdam", code="corrupt-block")
    fleet.settle()
    for step, version in enumerate((first, second)):
        assert set(fleet.states(version.digest).values()) == {"VERIFIED"}
        assert fleet.read(version.digest, "amsterdam") == model(step)
