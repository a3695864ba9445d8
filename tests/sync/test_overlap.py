"""Copies that share blocks: what they share crosses the border once, also where they begin side by side."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from fairlead.core.ports import ObjectStore
from fairlead.registry.tables import WorkRow
from fairlead.sync.transfer import Patience, Transfers
from fairlead.testing.flaky import CountingStore
from fairlead.testing.objects import FaultyStore
from tests.fleet import ADMIN, REGIONS, Fleet, open_fleet

SHARED = np.random.default_rng(1).bytes(600_000)
FILES = [{"shared.bin": SHARED, "own.bin": np.random.default_rng(seed).bytes(150_000)} for seed in (2, 3)]
SHARED_PARTLY_BYTES = 600_000 + 2 * 150_000


class Blocking(FaultyStore):
    """The first pack that is written lets another worker do all there is to do in the meantime."""

    def __init__(self, store: ObjectStore, meanwhile: threading.Event, fleet: Fleet) -> None:
        super().__init__(store)
        self._meanwhile = meanwhile
        self._fleet = fleet

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        if key.endswith(".pack") and not self._meanwhile.is_set():
            self._meanwhile.set()
            self._fleet.run()
        return super().write(key, data, create_only=create_only)


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url, names=("virginia",)) as fleet:
        fleet.transfers = Transfers(patience=Patience(sleep=lambda _seconds: None), pack_bytes=2**18, threads=1)
        yield fleet


def test_two_versions_that_are_brought_side_by_side_move_what_they_share_once(fleet: Fleet) -> None:
    digests = [fleet.register(files)[1].digest for files in FILES]
    fleet.settle()
    url = fleet.folder("eemshaven").as_uri()
    plan = fleet.backfills.plan_new(ADMIN, name="eemshaven", region=REGIONS["eemshaven"], url=url)
    fleet.add("eemshaven")
    meanwhile = threading.Event()
    sources: list[CountingStore] = []
    waited: list[str | None] = []

    def wrap(name: str, store: ObjectStore) -> ObjectStore:
        if name == "virginia":
            sources.append(CountingStore(store))
            return sources[-1]
        return Blocking(store, meanwhile, fleet)

    fleet.wrap = wrap
    fleet.run()
    with fleet.database.read() as session:
        waited += session.scalars(select(WorkRow.error_code)).all()
    assert meanwhile.is_set()
    fleet.settle()
    for digest, files in zip(digests, FILES, strict=True):
        assert fleet.read(digest, "eemshaven") == files
    moved = sum(row.moved_bytes for row in fleet.ledger("replicate"))
    assert SHARED_PARTLY_BYTES < moved < SHARED_PARTLY_BYTES * 1.02
    assert sum(each.read_bytes for each in sources) == pytest.approx(moved, rel=0.02)
    # The price that was asked for beforehand counts it once too.
    assert plan.bytes == pytest.approx(moved, rel=0.02)
    assert waited == [], "who waited was looked at again as soon as the other one had ended"
