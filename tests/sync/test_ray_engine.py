"""Copies spread over a Ray cluster of several processes: the same objects as without it. Run alone: by this file."""

from __future__ import annotations

import os
import random
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.errors import IntegrityError
from fairlead.sync.pack_transfer import BroughtPack, PackPiece, bring_pack, pieces_of
from fairlead.sync.ray_engine import RayEngine
from fairlead.sync.store.copy import copy_artifact, plan_copy
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.local import LocalStore
from fairlead.sync.store.writer import write_artifact
from fairlead.sync.transfer import Patience, StoreAddress, Transfers
from tests.fleet import REGIONS, Fleet, open_fleet
from tests.servers.ray_cluster import ray_cluster

pytestmark = [
    pytest.mark.timeout(180),
    # Ray's own, at import and at its end.
    pytest.mark.filterwarnings("ignore"),
]

PACK_BYTES = 2**18
DOMAIN = DedupDomain("acme", "unrestricted")
# Typed in part, and slow to import.
ray: Any = None


def files(seed: int) -> dict[str, bytes]:
    chance = random.Random(seed)
    return {f"part-{number}.bin": chance.randbytes(700_000) for number in range(4)} | {"config.json": b"{}"}


@pytest.fixture(scope="module")
def cluster() -> Generator[None]:
    global ray
    with ray_cluster() as ray:
        yield


class Watched(RayEngine):
    """The engine, and which processes did its work."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: set[str] = set()

    def bring(
        self, source: StoreAddress, destination: StoreAddress, domain: DedupDomain, pieces: Iterator[PackPiece]
    ) -> Iterator[BroughtPack]:
        for pack in super().bring(source, destination, domain, pieces):
            self.processes.add(pack.process)
            yield pack


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia",)) as fleet:
        yield fleet


def packs_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.pack")}


@pytest.mark.usefixtures("cluster")
def test_a_cluster_brings_the_same_objects_as_the_worker_alone(fleet: Fleet) -> None:
    engine = Watched()
    fleet.transfers = Transfers(patience=Patience(sleep=lambda _seconds: None), pack_bytes=PACK_BYTES)
    # One file more each time, so that the last artifact lies in as many packs as it has files.
    names = sorted(files(1))
    for count in range(1, len(names)):
        fleet.register({name: files(1)[name] for name in names[:count]}, regions=[REGIONS["virginia"]])
        fleet.settle()
    _, written = fleet.register(files(1))
    fleet.settle()
    fleet.add("eemshaven")
    fleet.settle()
    fleet.transfers = Transfers(patience=Patience(sleep=lambda _seconds: None), pack_bytes=PACK_BYTES, engine=engine)
    fleet.add("amsterdam")
    fleet.settle()
    assert fleet.read(written.digest, "amsterdam") == files(1)
    alone, spread = (fleet.replica(written.digest, name) for name in ("eemshaven", "amsterdam"))
    assert spread.layout_key == alone.layout_key
    assert packs_of(fleet.folder("amsterdam")) == packs_of(fleet.folder("eemshaven"))
    assert spread.moved_bytes == pytest.approx(alone.moved_bytes, rel=0.01)
    assert len(packs_of(fleet.folder("amsterdam"))) > 2
    assert len(engine.processes) > 1
    assert str(os.getpid()) not in {process.rpartition("/")[2] for process in engine.processes}


@pytest.mark.usefixtures("cluster")
def test_what_a_cluster_finds_damaged_at_the_source_is_told_by_its_own_error(tmp_path: Path) -> None:
    source = LocalStore(tmp_path / "source", create=True)
    written = write_artifact(source, DOMAIN, files(2))
    LocalStore(tmp_path / "destination", create=True)
    for path in (tmp_path / "source").rglob("*.pack"):
        path.write_bytes(bytes(path.stat().st_size))
    plan = plan_copy(source, LocalStore(tmp_path / "destination"), DOMAIN, written.digest)
    addresses: list[StoreAddress] = [((tmp_path / name).as_uri(), {}) for name in ("source", "destination")]
    with pytest.raises(IntegrityError):
        list(RayEngine().bring(addresses[0], addresses[1], DOMAIN, pieces_of(plan)))


@pytest.mark.parametrize("pack_bytes", [2**16, 2**20, 2**25])
def test_the_pieces_of_a_plan_are_the_packs_that_a_copy_writes(tmp_path: Path, pack_bytes: int) -> None:
    source, one, other = (LocalStore(tmp_path / name, create=True) for name in ("source", "one", "other"))
    first = write_artifact(source, DOMAIN, {**files(3), "more.bin": random.Random(4).randbytes(50_000)})
    partial = {**files(3), "part-1.bin": random.Random(5).randbytes(60_000)}
    second = write_artifact(source, DOMAIN, partial)
    for written in (first, second):
        copy_artifact(source, one, DOMAIN, written.digest, pack_bytes=pack_bytes)
        plan = plan_copy(source, other, DOMAIN, written.digest, pack_bytes=pack_bytes)
        for piece in pieces_of(plan):
            bring_pack(source, other, DOMAIN, piece)
    assert packs_of(tmp_path / "other") == packs_of(tmp_path / "one")
