from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Generator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from fairlead.core.errors import LocationUnavailable
from fairlead.registry import work
from fairlead.registry.tables import WorkRow
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.throttle import RateLimit
from fairlead.sync.transfer import BytesInFlight, Meter, Patience, PatientStore, Transfers
from fairlead.testing.flaky import CountingStore, FlakyStore
from fairlead.testing.objects import Action, Fault, FaultyStore, MemoryStore
from tests.fleet import ADMIN, BACK_OFF, REGIONS, Fleet, open_fleet

AT_ONCE = Patience(sleep=lambda _seconds: None)
PIECE = 16 * 1024
PLAN_FACTOR = 1.5


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path) as fleet:
        fleet.transfers = Transfers(patience=AT_ONCE, pack_bytes=128 * 1024, piece_bytes=PIECE, threads=2)
        yield fleet


@given(
    data=st.binary(max_size=400),
    start=st.integers(0, 450),
    length=st.none() | st.integers(0, 450),
    piece=st.integers(1, 100),
    seed=st.integers(0, 2**32),
)
def test_a_patient_store_reads_what_the_store_behind_holds_whatever_fails(
    data: bytes, start: int, length: int | None, piece: int, seed: int
) -> None:
    flaky = FlakyStore(MemoryStore({"a": data}), seed=seed)
    patient = PatientStore(flaky, patience=Patience(tries=60, sleep=lambda _seconds: None), piece_bytes=piece)
    assert patient.read("a", start=start, length=length) == data[start:][:length]


def test_what_has_arrived_of_a_cut_range_is_not_asked_for_again() -> None:
    counting = CountingStore(MemoryStore({"a": bytes(1000)}))

    class Cutting(FaultyStore):
        """Breaks off after half of what was asked for, at the source: the rest never left it."""

        def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
            assert length is not None
            return super().read(key, start=start, length=max(1, length // 2))

    meter = Meter()
    patient = PatientStore(Cutting(counting), patience=Patience(tries=20, sleep=lambda _seconds: None), meter=meter)
    assert patient.read("a", start=0, length=1000) == bytes(1000)
    assert counting.read_bytes == meter.total_bytes == 1000


def test_a_store_that_stays_away_is_told_after_a_bounded_number_of_tries() -> None:
    away = FaultyStore(MemoryStore(), [Fault(operation="size", call=1, action=Action.DIE)])
    with pytest.raises(LocationUnavailable):
        PatientStore(away, patience=AT_ONCE).size("a")
    assert away.calls["size"] == AT_ONCE.tries


def test_what_is_read_back_comes_from_the_store_each_time() -> None:
    behind = MemoryStore({"a": b"one"})
    destination = PatientStore(behind, patience=AT_ONCE)
    assert destination.read("a") == b"one"
    behind.objects["a"] = b"two"
    assert destination.read("a") == b"two"


def test_copies_wait_while_others_hold_the_memory() -> None:
    gate, seen = BytesInFlight(100), list[int]()
    inside = threading.Lock()
    held = 0

    def copy(n_bytes: int) -> None:
        nonlocal held
        with gate.hold(n_bytes):
            with inside:
                held += min(n_bytes, 100)
                seen.append(held)
            time.sleep(0.01)
            with inside:
                held -= min(n_bytes, 100)

    threads = [threading.Thread(target=copy, args=(size,)) for size in (60, 60, 30, 500, 10, 90)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(threads)
    assert max(seen) <= 100


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32))
def test_thirty_percent_of_requests_failing_do_not_make_the_source_send_half_as_much_again(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    files = {"weights.bin": random.Random(seed).randbytes(1_500_000), "head.bin": b"one"}
    with open_fleet(tmp_path_factory.mktemp("fleet"), names=("virginia",)) as fleet:
        fleet.transfers = Transfers(patience=AT_ONCE, pack_bytes=128 * 1024, piece_bytes=PIECE, threads=2)
        _, written = fleet.register(files)
        fleet.settle()
        fleet.add("amsterdam")
        # What leaves the source is counted behind the faults: an answer that was lost had been sent.
        counting = {name: CountingStore(open_store(fleet.folder(name).as_uri())) for name in ("virginia", "amsterdam")}
        flaky = {name: FlakyStore(store, seed=seed + len(name)) for name, store in counting.items()}
        fleet.wrap = lambda name, _store: flaky[name]
        for _ in range(40):
            fleet.run()
            if fleet.states(written.digest).get("amsterdam") == "VERIFIED":
                break
            fleet.clock.advance(BACK_OFF)
        fleet.wrap = lambda _name, store: store
        assert fleet.read(written.digest, "amsterdam") == files
        (entry,) = fleet.ledger("replicate")
    assert flaky["virginia"].faults > 10
    assert counting["virginia"].read_bytes <= PLAN_FACTOR * entry.planned_bytes
    assert entry.moved_bytes <= counting["virginia"].read_bytes
    assert entry.moved_bytes > 0.98 * entry.planned_bytes


def test_the_slower_a_copy_may_go_the_fewer_packs_are_lost_with_its_worker() -> None:
    transfers = Transfers(pack_bytes=32 * 2**20, threads=4)

    def packs_at(*rates: float) -> int:
        return transfers.threads_for(transfers.reading(MemoryStore(), Meter(), [RateLimit(rate) for rate in rates]))

    assert packs_at() == 4
    assert packs_at(1e9) == 4
    assert packs_at(20e6) == 2
    assert packs_at(1e9, 8e6) == 1
    assert packs_at(1) == 1


def test_bytes_of_every_attempt_are_counted_and_paid_for(fleet: Fleet) -> None:
    files = {"weights.bin": os.urandom(600_000)}
    _, written = fleet.register(files, regions=[REGIONS["virginia"], REGIONS["amsterdam"]])
    # The second pack cannot be written at the first attempt, whatever is tried.
    full = [Fault(operation="write", call=call, action=Action.FAIL) for call in range(2, 2 + 4 * AT_ONCE.tries)]
    fleet.wrap = lambda name, store: FaultyStore(store, full) if name == "amsterdam" else store
    fleet.run()
    with fleet.database.read() as session:
        (waiting,) = work.list_work(session, ADMIN.workspace_id, fleet.clock.now()).items
        assert session.scalar(select(WorkRow.written_packs))
    assert waiting.moved_bytes > 0
    fleet.wrap = lambda _name, store: store
    fleet.settle()
    assert fleet.read(written.digest, "amsterdam") == files
    (entry,) = fleet.ledger("replicate")
    assert entry.planned_bytes > 600_000
    assert waiting.moved_bytes < entry.moved_bytes <= PLAN_FACTOR * entry.planned_bytes
    assert Decimal(entry.actual_usd) >= Decimal(entry.planned_usd) * Decimal("0.99")
