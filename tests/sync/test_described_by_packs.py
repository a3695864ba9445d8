"""Versions whose layout leaves blocks to the index of a pack: kept, found damaged, mended, taken apart like others."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fairlead.core.ids import Digest, digest_hex
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.layout import read_outline
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.outline import Outline
from fairlead.sync.verification import find_damaged_packs
from tests.fleet import ADMIN, Fleet, open_fleet
from tests.records import WORKSPACE
from tests.sync.test_collection import collect_all, forget_replicas, run_task

DOMAIN = DedupDomain(WORKSPACE, "unrestricted")
RNG = np.random.default_rng(1)
KEPT = {f"a.{number:02}": RNG.standard_normal((128, 128)).astype(np.float32) for number in range(20)}
DROPPED = {f"b.{number:02}": RNG.standard_normal((256, 256)).astype(np.float32) for number in range(10)}
FIRST = {"m.safetensors": save(KEPT | DROPPED, metadata={"format": "pt"})}
NOTED = {"m.safetensors": save(KEPT, metadata={"format": "pt", "note": "reviewed"})}


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia", "eemshaven")) as fleet:
        yield fleet


def register_both(fleet: Fleet) -> list[str]:
    """A version, and one that is made of its first tensors under another header."""
    digests: list[str] = []
    for files in (FIRST, NOTED):
        digests.append(fleet.register(files)[1].digest)
        fleet.settle()
    return digests


def outline_of(fleet: Fleet, digest: str, name: str) -> Outline:
    store = open_store(fleet.location(name).url)
    key = fleet.replica(digest, name).layout_key or ""
    return read_outline(store, DOMAIN, Digest(digest), key)


@pytest.mark.parametrize("harm", ["index", "block", "missing"])
def test_a_damaged_pack_is_found_and_both_versions_are_mended(fleet: Fleet, harm: str) -> None:
    digests = register_both(fleet)
    for name in ("virginia", "eemshaven"):
        assert [run.blocks for run in outline_of(fleet, digests[1], name).runs] == [20]
    (run,) = outline_of(fleet, digests[1], "eemshaven").runs
    path = fleet.folder("eemshaven") / DOMAIN.pack_key(run.pack)
    data = bytearray(path.read_bytes())
    data[-100 if harm == "index" else 200_000] ^= 1
    path.write_bytes(data)
    if harm == "missing":
        path.unlink()
    (finding,) = run_task(fleet, "scrub", "eemshaven").findings
    assert finding["artifacts"] == sorted(digests)
    fleet.settle()
    for digest, files in zip(digests, (FIRST, NOTED), strict=True):
        assert fleet.read(digest, "eemshaven") == files
        fleet.artifacts.verify(ADMIN, digest)
    fleet.settle()
    assert {fleet.states(digest)["eemshaven"] for digest in digests} == {"VERIFIED"}


def test_a_pack_that_became_another_one_is_named_so_that_what_it_held_is_stored_again(tmp_path: Path) -> None:
    with open_fleet(tmp_path, names=("virginia",)) as fleet:
        _, noted = register_both(fleet)
        (run,) = outline_of(fleet, noted, "virginia").runs
        path = fleet.folder("virginia") / DOMAIN.pack_key(run.pack)
        (other,) = (each for each in fleet.packs("virginia") if each != path)
        path.write_bytes(other.read_bytes())
        store, layout_key = open_store(fleet.location("virginia").url), fleet.replica(noted, "virginia").layout_key
        assert find_damaged_packs(store, DOMAIN, noted, layout_key, []) == {digest_hex(run.pack)}


def test_a_pack_that_is_only_described_from_is_kept_and_then_taken_apart(tmp_path: Path) -> None:
    with open_fleet(tmp_path, names=("virginia",)) as fleet:
        first, noted = register_both(fleet)
        assert outline_of(fleet, noted, "virginia").runs
        forget_replicas(fleet, first)
        before = sum(path.stat().st_size for path in fleet.packs("virginia"))
        collect_all(fleet, rounds=6)
        assert fleet.read(noted, "virginia") == NOTED
        assert "replica.repack" in fleet.actions()
        assert sum(path.stat().st_size for path in fleet.packs("virginia")) < before * 0.6
        assert outline_of(fleet, noted, "virginia").runs == []


def test_a_pack_that_lives_wholly_is_left_alone_however_few_bytes_its_blocks_have(tmp_path: Path) -> None:
    with open_fleet(tmp_path, names=("virginia",)) as fleet:
        notes = {f"note-{number:02}": f"note {number}".encode() for number in range(60)}
        _, first = fleet.register(notes)
        fleet.settle()
        _, second = fleet.register(notes | {"other": b"more"})
        fleet.settle()
        assert outline_of(fleet, second.digest, "virginia").runs
        forget_replicas(fleet, first.digest)
        collect_all(fleet, rounds=3)
        assert "replica.repack" not in fleet.actions()
