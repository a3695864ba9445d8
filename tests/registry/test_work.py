from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from fairlead.core.clock import SystemClock
from fairlead.core.db import Database
from fairlead.core.errors import LeaseLost, LocationUnavailable, NotReady
from fairlead.registry import work
from fairlead.registry.tables import LedgerRow, WorkRow
from fairlead.registry.work import LeasedWork
from fairlead.testing.clock import ManualClock
from tests.records import WORKSPACE, open_record

TTL = timedelta(seconds=30)
HERE = "aws:us-east-1"
THERE = "azure:westeurope"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with open_record(database_url) as database:
        yield database


def ask(
    database: Database, clock: ManualClock, subject: str, *, region: str = HERE, priority: int = work.USUAL
) -> bool:
    with database.write() as session:
        return work.require_work(
            session,
            workspace_id=WORKSPACE,
            residency="unrestricted",
            kind="replicate",
            subject=subject,
            region=region,
            priority=priority,
            now=clock.now(),
        )


def take(database: Database, clock: ManualClock, holder: str = "one", region: str | None = None) -> LeasedWork | None:
    regions = None if region is None else {region}
    return work.lease(database, clock, kinds={"replicate"}, regions=regions, holder=holder, ttl=TTL)


def take_some(database: Database, clock: ManualClock, holder: str = "one") -> LeasedWork:
    leased = take(database, clock, holder)
    assert leased is not None
    return leased


def record(database: Database, clock: ManualClock, leased: LeasedWork) -> None:
    """What a handler does: its result and the end of the work, in one transaction."""
    with database.write() as session:
        session.add(
            LedgerRow(
                workspace_id=WORKSPACE,
                residency="unrestricted",
                cause=f"{leased.id}/{leased.holder}/{leased.token}",
                kind="replicate",
                subject=leased.subject,
                region=leased.region,
                planned_bytes=0,
                moved_bytes=0,
                planned_usd="0",
                actual_usd="0",
                gco2="0",
                gco2_method="none",
                price_source="none",
                labels={},
                recorded_at=clock.now(),
            )
        )
        work.finish(session, leased)


def recorded(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(LedgerRow)) or 0


def test_work_that_is_asked_for_twice_is_there_once(database: Database, clock: ManualClock) -> None:
    assert ask(database, clock, "a")
    assert not ask(database, clock, "a")
    assert take(database, clock) is not None
    assert take(database, clock) is None


def test_the_most_urgent_work_is_served_first_and_then_the_oldest(database: Database, clock: ManualClock) -> None:
    for subject, priority in (("old", 100), ("new", 100), ("urgent", 10)):
        ask(database, clock, subject, priority=priority)
        clock.advance(timedelta(seconds=1))
    assert [take_some(database, clock).subject for _ in range(3)] == ["urgent", "old", "new"]


def test_a_worker_of_a_region_takes_only_that_regions_work(database: Database, clock: ManualClock) -> None:
    ask(database, clock, "a", region=THERE)
    assert take(database, clock, region=HERE) is None
    assert take(database, clock, region=THERE) is not None


def test_a_held_lease_is_not_taken_and_an_expired_one_is_with_a_higher_token(
    database: Database, clock: ManualClock
) -> None:
    ask(database, clock, "a")
    first = take_some(database, clock, "one")
    clock.advance(TTL - timedelta(seconds=1))
    assert take(database, clock, "two") is None
    clock.advance(timedelta(seconds=1))
    second = take_some(database, clock, "two")
    assert (second.id, second.attempt) == (first.id, 2)
    assert second.token > first.token


def test_renewing_keeps_a_lease(database: Database, clock: ManualClock) -> None:
    ask(database, clock, "a")
    leased = take_some(database, clock, "one")
    for _ in range(5):
        clock.advance(TTL / 2)
        work.renew(database, clock, leased, TTL)
        assert take(database, clock, "two") is None


def test_an_old_token_records_renews_and_reports_nothing(database: Database, clock: ManualClock) -> None:
    ask(database, clock, "a")
    first = take_some(database, clock, "one")
    clock.advance(TTL)
    second = take_some(database, clock, "two")
    with pytest.raises(LeaseLost):
        record(database, clock, first)
    with pytest.raises(LeaseLost):
        work.renew(database, clock, first, TTL)
    with pytest.raises(LeaseLost):
        work.report_progress(database, first, 1, 2)
    with pytest.raises(LeaseLost), database.write() as session:
        work.check_lease(session, first)
    assert not work.fail(database, clock, first, LocationUnavailable("gone"), None)
    assert recorded(database) == 0

    record(database, clock, second)
    assert recorded(database) == 1


def test_a_lease_that_was_given_back_records_nothing(database: Database, clock: ManualClock) -> None:
    ask(database, clock, "a")
    leased = take_some(database, clock)
    assert work.fail(database, clock, leased, LocationUnavailable("gone"), None)
    with pytest.raises(LeaseLost):
        record(database, clock, leased)


def test_work_that_was_lost_and_derived_again_fences_off_its_former_holder(
    database: Database, clock: ManualClock
) -> None:
    ask(database, clock, "a")
    first = take_some(database, clock, "one")
    with database.write() as session:
        session.delete(session.get_one(WorkRow, (WORKSPACE, first.id)))
    ask(database, clock, "a")
    second = take_some(database, clock, "two")
    with pytest.raises(LeaseLost):
        record(database, clock, first)
    record(database, clock, second)


def test_a_process_that_owns_the_database_takes_over_at_once(database: Database, clock: ManualClock) -> None:
    ask(database, clock, "a")
    killed = take_some(database, clock, "one")
    assert work.release_leases(database) == 1
    successor = take_some(database, clock, "two")
    assert successor.token > killed.token
    with pytest.raises(LeaseLost):
        record(database, clock, killed)
    record(database, clock, successor)


def test_failed_work_waits_and_says_why(database: Database, clock: ManualClock) -> None:
    ask(database, clock, "a")
    leased = take_some(database, clock)
    work.fail(database, clock, leased, LocationUnavailable("The bucket does not answer."), timedelta(seconds=5))
    assert take(database, clock) is None
    with database.read() as session:
        (shown,) = work.list_work(session, WORKSPACE, clock.now()).items
    assert (shown.state, shown.error_code) == ("WAITING", "location-unavailable")
    assert shown.error_detail == "The bucket does not answer."
    clock.advance(timedelta(seconds=5))
    assert take_some(database, clock).attempt == 2


def test_the_text_of_an_unforeseen_error_is_not_shown(database: Database, clock: ManualClock) -> None:
    ask(database, clock, "a")
    work.fail(database, clock, take_some(database, clock), ValueError("patient 4711"), None)
    with database.read() as session:
        (shown,) = work.list_work(session, WORKSPACE, clock.now()).items
    assert (shown.error_code, shown.error_detail) == ("internal", "ValueError")


def test_hastened_work_is_due_at_once(database: Database, clock: ManualClock) -> None:
    ask(database, clock, "a")
    work.fail(database, clock, take_some(database, clock), LocationUnavailable("gone"), timedelta(hours=1))
    with database.write() as session:
        work.hasten(session, workspace_id=WORKSPACE, kind="replicate", subject="a", now=clock.now())
    assert take(database, clock) is not None


@given(attempt=st.integers(1, 10**6), draw=st.floats(0, 1))
def test_the_wait_for_a_retry_is_bounded_and_never_below_half_a_second(attempt: int, draw: float) -> None:
    assert timedelta(seconds=0.5) <= work.retry_delay(attempt, draw=draw) <= work.LONGEST_RETRY


def test_workers_that_race_record_every_piece_once(database: Database) -> None:
    pieces = 24
    clock = ManualClock()
    for number in range(pieces):
        ask(database, clock, f"{number}")
    errors: list[Exception] = []

    def run(holder: str) -> None:
        try:
            while leased := take(database, clock, holder):
                record(database, clock, leased)
        except Exception as error:  # noqa: BLE001  (shown by the assertion below)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f"worker-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert recorded(database) == pieces


def test_two_holders_of_one_row_never_both_record(database: Database) -> None:
    clock = ManualClock()
    for round_number in range(8):
        ask(database, clock, f"{round_number}")
        first = take_some(database, clock, "one")
        clock.advance(TTL)
        second = take_some(database, clock, "two")
        outcomes: dict[str, str] = {}
        barrier = threading.Barrier(2)

        def finish(leased: LeasedWork, outcomes: dict[str, str] = outcomes, start: threading.Barrier = barrier) -> None:
            start.wait()
            try:
                record(database, clock, leased)
                outcomes[leased.holder] = "recorded"
            except LeaseLost:
                outcomes[leased.holder] = "lost"

        threads = [threading.Thread(target=finish, args=(leased,)) for leased in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == {"one": "lost", "two": "recorded"}
        assert recorded(database) == round_number + 1


def test_times_are_those_of_the_clock_that_was_passed_in(database: Database) -> None:
    assert ask(database, ManualClock(), "a")
    assert work.lease(database, SystemClock(), kinds={"replicate"}, regions=None, holder="one", ttl=TTL) is not None


def test_postponed_work_was_no_attempt_and_may_be_hastened_by_its_reason(
    database: Database, clock: ManualClock
) -> None:
    ask(database, clock, "a")
    leased = take_some(database, clock)
    reason = NotReady("The source is not there yet.")
    assert work.postpone(database, leased, clock.now() + timedelta(days=1), reason)
    assert take(database, clock) is None
    with database.read() as session:
        (shown,) = work.list_work(session, WORKSPACE, clock.now()).items
    assert (shown.state, shown.attempts, shown.error_code) == ("WAITING", 0, "not-ready")
    with database.write() as session:
        work.hasten_postponed(session, WORKSPACE, "budget-exhausted", clock.now())
    assert take(database, clock) is None
    with database.write() as session:
        work.hasten_postponed(session, WORKSPACE, "not-ready", clock.now())
    again = take_some(database, clock)
    assert again.attempt == 1
    assert not work.postpone(database, leased, clock.now(), reason), "by its former holder"


def test_progress_says_phase_speed_and_time_to_go_and_adds_up_what_was_moved(
    database: Database, clock: ManualClock
) -> None:
    ask(database, clock, "a")
    first = take_some(database, clock)
    work.report_progress(database, first, 100, 1000, phase="copy", bytes_per_second=90, moved_bytes=60)
    with database.read() as session:
        (shown,) = work.list_work(session, WORKSPACE, clock.now()).items
    assert (shown.phase, shown.bytes_per_second, shown.eta_seconds, shown.moved_bytes) == ("copy", 90, 10, 60)
    clock.advance(TTL)
    second = take_some(database, clock, "two")
    with database.write() as session:
        # Whoever lost the lease has moved what it has moved.
        work.add_moved(session, first, 5)
        assert work.moved_bytes(session, second) == 65
    with database.read() as session:
        (shown,) = work.list_work(session, WORKSPACE, clock.now()).items
    assert (shown.phase, shown.progress_bytes, shown.eta_seconds) == (None, None, None)


def test_packs_are_noted_by_the_holder_alone_and_found_by_the_next(database: Database, clock: ManualClock) -> None:
    ask(database, clock, "a")
    first = take_some(database, clock, "one")
    with database.write() as session:
        work.note_packs(session, first, ["aa", "bb"])
    clock.advance(TTL)
    second = take_some(database, clock, "two")
    assert second.written_packs == ("aa", "bb")
    with pytest.raises(LeaseLost), database.write() as session:
        work.note_packs(session, first, [])
    with database.write() as session:
        work.forget_packs(session, second, {"aa"})
    clock.advance(TTL)
    assert take_some(database, clock, "three").written_packs == ("bb",)
