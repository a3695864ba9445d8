"""Copies under the faults that workers meet: all end in the same digests, lose nothing, and pay little twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from fairlead.catalog import load_catalog
from fairlead.core.errors import LocationUnavailable, StorageFull
from fairlead.core.ports import ObjectInfo, ObjectStore
from fairlead.registry import work
from fairlead.registry.replicas import REPLICATE
from fairlead.registry.tables import WorkRow
from fairlead.sync.budgets import Budgets
from fairlead.sync.transfer import Patience, Transfers
from tests.faults.test_replication_promises import ROOT, WORKER, eventually
from tests.fleet import ADMIN, BACK_OFF, REGIONS, Fleet, open_fleet

FILES = {f"part-{number}.bin": os.urandom(300_000) for number in range(5)}
PLAN_FACTOR = 1.5
SMALL_PACKS = WORKER.replace(
    "signing_key=bytes(range(32))", "signing_key=bytes(range(32)), transfers=Transfers(pack_bytes=2**18, threads=1)"
).replace("from fairlead.sync.worker", "from fairlead.sync.transfer import Transfers\nfrom fairlead.sync.worker")


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia", "amsterdam")) as fleet:
        fleet.transfers = Transfers(patience=Patience(sleep=lambda _seconds: None), pack_bytes=2**18, threads=2)
        yield fleet


def register_in_packs(fleet: Fleet) -> str:
    """An artifact in as many packs as it has files, VERIFIED in Virginia and wanted in Amsterdam too."""
    names = sorted(FILES)
    for count in range(1, len(names)):
        fleet.register({name: FILES[name] for name in names[:count]}, regions=[REGIONS["virginia"]])
        fleet.settle()
    _, written = fleet.register(FILES)
    return written.digest


class FullStore:
    """Any store that has room for so many bytes more."""

    def __init__(self, store: ObjectStore, room_bytes: int) -> None:
        self._store = store
        self._room = room_bytes
        self.refused = 0

    @property
    def has_create_only(self) -> bool:
        return self._store.has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._store.read(key, start=start, length=length)

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        size = memoryview(data).nbytes
        if size > self._room:
            self.refused += 1
            raise StorageFull("The disk is full.")
        self._room -= size
        return self._store.write(key, data, create_only=create_only)

    def size(self, key: str) -> int | None:
        return self._store.size(key)

    def list(self, prefix: str) -> Generator[ObjectInfo]:
        yield from self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)


def is_paid_once(fleet: Fleet, digest: str) -> None:
    (paid,) = (row for row in fleet.ledger("replicate") if row.subject == digest)
    assert paid.moved_bytes <= PLAN_FACTOR * paid.planned_bytes


def test_a_disk_that_runs_full_is_gone_on_with_where_it_was_left(fleet: Fleet) -> None:
    digest = register_in_packs(fleet)
    full: list[FullStore] = []

    def wrap(name: str, store: ObjectStore) -> ObjectStore:
        if name != "amsterdam":
            return store
        full.append(FullStore(store, 900_000))
        return full[-1]

    fleet.wrap = wrap
    fleet.run()
    replica = fleet.replica(digest, "amsterdam")
    assert (replica.state, replica.error_code) == ("FAILED", "storage-full")
    assert any(store.refused for store in full)
    with fleet.database.read() as session:
        noted = session.scalars(select(WorkRow.written_packs).where(WorkRow.kind == REPLICATE)).one()
    assert noted
    fleet.wrap = lambda _name, store: store
    fleet.settle()
    assert fleet.read(digest, "amsterdam") == FILES
    is_paid_once(fleet, digest)


@pytest.mark.parametrize("region", ["virginia", "amsterdam"])
def test_a_region_that_dies_in_mid_copy_is_gone_on_with_when_it_is_back(fleet: Fleet, region: str) -> None:
    digest = register_in_packs(fleet)
    fleet.worker().derive()
    run(fleet, "verify-upload")
    fleet.worker().derive()
    died = threading.Event()

    class Dying(FullStore):
        """Answers until the destination holds two packs."""

        def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
            self.look()
            return super().read(key, start=start, length=length)

        def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
            self.look()
            return super().write(key, data, create_only=create_only)

        def look(self) -> None:
            if len(fleet.packs("amsterdam")) >= 2:
                died.set()
                raise LocationUnavailable("The region is dead.")

    fleet.wrap = lambda name, store: Dying(store, 10**9) if name == region else store
    fleet.run()
    assert died.is_set()
    assert fleet.states(digest)["amsterdam"] == "FAILED"
    fleet.wrap = lambda _name, store: store
    fleet.clock.advance(BACK_OFF)
    fleet.settle()
    assert fleet.read(digest, "amsterdam") == FILES
    is_paid_once(fleet, digest)


def run(fleet: Fleet, kind: str) -> None:
    leased = work.lease(fleet.database, fleet.clock, kinds={kind}, regions=None, holder="one", ttl=timedelta(minutes=1))
    assert leased is not None
    fleet.duties.handlers[kind](leased)


def test_a_worker_that_was_paused_past_its_lease_and_its_double_make_one_copy(fleet: Fleet) -> None:
    digest = register_in_packs(fleet)
    doubled: list[bool] = []

    class Pausing(FullStore):
        """The first copy to write its second pack sleeps past its lease, while another worker does the whole work."""

        def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
            if key.endswith(".pack") and fleet.packs("amsterdam") and not doubled:
                doubled.append(True)
                fleet.clock.advance(timedelta(hours=1))
                double = fleet.worker()
                assert double.run_until_idle() >= 1
                assert fleet.states(digest)["amsterdam"] == "VERIFIED"
            return super().write(key, data, create_only=create_only)

    fleet.wrap = lambda name, store: Pausing(store, 10**9) if name == "amsterdam" else store
    fleet.run()
    assert doubled
    fleet.wrap = lambda _name, store: store
    fleet.settle()
    assert fleet.read(digest, "amsterdam") == FILES
    assert len([row for row in fleet.ledger("replicate") if row.subject == digest]) == 1


def test_two_workers_of_one_region_share_its_work_and_make_each_copy_once(fleet: Fleet) -> None:
    digests = [
        fleet.register({"weights.bin": os.urandom(50_000), "n": bytes([number])})[1].digest for number in range(6)
    ]
    workers = [fleet.worker() for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        assert eventually(lambda: all(is_there(fleet, digest) for digest in digests), 60)
    finally:
        for worker in workers:
            assert worker.stop()
    paid = [row.subject for row in fleet.ledger("replicate")]
    assert sorted(paid) == sorted(digests)


def is_there(fleet: Fleet, digest: str) -> bool:
    try:
        return fleet.states(digest).get("amsterdam") == "VERIFIED"
    except Exception:  # noqa: BLE001  (not registered yet)
        return False


def test_a_worker_killed_in_mid_copy_is_replaced_by_one_that_goes_on(fleet: Fleet) -> None:
    fleet.clock.advance(timedelta(days=-1))  # leases of the workers are those of the real clock
    digest = register_in_packs(fleet)
    fleet.worker().derive()
    run(fleet, "verify-upload")
    # So slow that the kill comes in the middle.
    budgets = Budgets(fleet.database, fleet.clock, catalog=load_catalog())
    budgets.put(ADMIN, "slow", bytes_per_second=500_000)
    with start_worker(fleet) as killed:
        assert eventually(lambda: len(fleet.packs("amsterdam")) >= 2, 20)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert fleet.states(digest)["amsterdam"] == "COPYING"
    before = {path: path.stat().st_mtime_ns for path in fleet.packs("amsterdam")}
    budgets.delete(ADMIN, "slow")
    with start_worker(fleet):
        assert eventually(lambda: is_there(fleet, digest), 60)
    assert fleet.read(digest, "amsterdam") == FILES
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what had arrived was not sent again"
    is_paid_once(fleet, digest)


class start_worker:  # noqa: N801  (used as a function)
    """A worker process on the fleet's database, killed at the end."""

    def __init__(self, fleet: Fleet) -> None:
        command = [sys.executable, "-c", SMALL_PACKS, f"sqlite:///{fleet.root / 'fairlead.db'}"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> subprocess.Popen[str]:
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        assert self._process.stdout.readline() == "ready\n"
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
