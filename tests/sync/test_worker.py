from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from fairlead.core.clock import SystemClock
from fairlead.core.db import Database
from fairlead.core.errors import LocationUnavailable
from fairlead.registry import work
from fairlead.registry.work import LeasedWork
from fairlead.sync.worker import Deriver, Lane, Worker
from fairlead.testing.clock import ManualClock
from tests.records import WORKSPACE, open_record

REGION = "aws:us-east-1"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with open_record(database_url) as database:
        yield database


def wanting(*subjects: str, until: set[str]) -> Deriver:
    """Derives work for every subject that is not done yet."""

    def derive(session: Session, now: datetime) -> None:
        for subject in subjects:
            if subject not in until:
                work.require_work(
                    session,
                    workspace_id=WORKSPACE,
                    residency="unrestricted",
                    kind="make",
                    subject=subject,
                    region=REGION,
                    priority=work.USUAL,
                    now=now,
                )

    return derive


def finishing(database: Database, done: set[str]) -> Callable[[LeasedWork], None]:
    def handle(leased: LeasedWork) -> None:
        with database.write() as session:
            work.finish(session, leased)
        done.add(leased.subject)

    return handle


def eventually(claim: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def test_run_until_idle_does_all_that_is_wanted(database: Database) -> None:
    done: set[str] = set()
    worker = Worker(
        database,
        SystemClock(),
        regions=None,
        handlers={"make": finishing(database, done)},
        derivers=[wanting("a", "b", "c", until=done)],
    )
    assert worker.run_until_idle() == 3
    assert done == {"a", "b", "c"}
    assert worker.run_until_idle() == 0


def test_threads_do_the_work_and_stop_waits_for_what_runs(database: Database) -> None:
    done: set[str] = set()
    has_begun, may_end = threading.Event(), threading.Event()
    finish = finishing(database, done)

    def handle(leased: LeasedWork) -> None:
        has_begun.set()
        may_end.wait(10)
        finish(leased)

    worker = Worker(
        database, SystemClock(), regions={REGION}, handlers={"make": handle}, derivers=[wanting("a", until=done)]
    )
    worker.start()
    assert has_begun.wait(10)
    assert not worker.stop(timeout_seconds=0.05)
    may_end.set()
    assert worker.stop()
    assert done == {"a"}
    assert not worker.is_busy


def test_a_stopped_worker_may_be_started_again_and_woken(database: Database) -> None:
    done: set[str] = set()
    wanted: list[str] = []

    def derive(session: Session, now: datetime) -> None:
        wanting(*wanted, until=done)(session, now)

    worker = Worker(
        database, SystemClock(), regions=None, handlers={"make": finishing(database, done)}, derivers=[derive]
    )
    worker.start()
    assert worker.stop()
    worker.start()
    try:
        time.sleep(0.05)
        wanted.append("a")
        began = time.monotonic()
        worker.wake()
        assert eventually(lambda: done == {"a"})
        assert time.monotonic() - began < 0.9, "waking must not wait for the next regular look"
    finally:
        assert worker.stop()


def test_a_long_piece_of_work_keeps_its_lease(database: Database) -> None:
    done: set[str] = set()
    runs: list[str] = []
    finish = finishing(database, done)

    def handle(leased: LeasedWork) -> None:
        runs.append(leased.holder)
        time.sleep(1.2)
        finish(leased)

    workers = [
        Worker(
            database,
            SystemClock(),
            regions=None,
            handlers={"make": handle},
            derivers=[wanting("a", until=done)],
            lease_ttl=timedelta(seconds=0.4),
        )
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    try:
        assert eventually(lambda: done == {"a"})
    finally:
        for worker in workers:
            assert worker.stop()
    assert len(runs) == 1


def test_work_that_fails_is_tried_again_after_its_back_off(database: Database) -> None:
    clock = ManualClock()
    done: set[str] = set()
    finish = finishing(database, done)

    def handle(leased: LeasedWork) -> None:
        if leased.attempt < 3:
            raise LocationUnavailable("The bucket does not answer.")
        finish(leased)

    worker = Worker(database, clock, regions=None, handlers={"make": handle}, derivers=[wanting("a", until=done)])
    assert worker.run_until_idle() == 1
    assert worker.run_until_idle() == 0
    for _ in range(2):
        clock.advance(work.LONGEST_RETRY)
        assert worker.run_until_idle() == 1
    assert done == {"a"}


def test_one_deriver_that_fails_does_not_stop_the_others(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    done: set[str] = set()

    def broken(_session: Session, _now: datetime) -> None:
        raise LocationUnavailable("no")

    worker = Worker(
        database,
        SystemClock(),
        regions=None,
        handlers={"make": finishing(database, done)},
        derivers=[broken, wanting("a", until=done)],
    )
    worker.run_until_idle()
    assert done == {"a"}
    assert "deriver failed" in caplog.text


def test_handlers_that_hang_hold_up_their_own_lane_alone(database: Database) -> None:
    done: set[str] = set()
    may_end = threading.Event()
    finish = finishing(database, done)

    def hang(leased: LeasedWork) -> None:
        may_end.wait(20)
        finish(leased)

    def derive_hanging(session: Session, now: datetime) -> None:
        for number in range(4):
            work.require_work(
                session,
                workspace_id=WORKSPACE,
                residency="unrestricted",
                kind="hang",
                subject=f"stuck-{number}",
                region=REGION,
                priority=work.URGENT,
                now=now,
            )

    worker = Worker(
        database,
        SystemClock(),
        regions=None,
        handlers={"hang": hang, "make": finish},
        derivers=[derive_hanging, wanting("a", "b", until=done)],
        lanes=[Lane(name="slow", kinds=frozenset({"hang"}), threads=2)],
    )
    worker.start()
    try:
        assert eventually(lambda: {"a", "b"} <= done)
    finally:
        may_end.set()
        assert worker.stop()
