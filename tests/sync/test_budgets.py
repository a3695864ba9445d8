from __future__ import annotations

import os
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.catalog import load_catalog
from fairlead.core.errors import BudgetNotFound, InvalidInput, StaleRevision, UnknownRegion
from fairlead.registry import work
from fairlead.registry.paging import PageRequest
from fairlead.registry.replicas import REPLICATE
from fairlead.registry.work import LeasedWork, WorkStatus
from fairlead.sync.budgets import Bandwidth, Budgets, period_of, reserve
from tests.fleet import ADMIN, REGIONS, Fleet, open_fleet

FILES = {"weights.bin": os.urandom(300_000)}
VIRGINIA, AMSTERDAM = REGIONS["virginia"], REGIONS["amsterdam"]


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url, names=("virginia", "amsterdam")) as fleet:
        yield fleet


@pytest.fixture
def local(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia", "amsterdam")) as fleet:
        yield fleet


def budgets_of(fleet: Fleet) -> Budgets:
    return Budgets(fleet.database, fleet.clock, catalog=load_catalog())


def waiting(fleet: Fleet) -> WorkStatus:
    with fleet.database.read() as session:
        (found,) = work.list_work(session, ADMIN.workspace_id, fleet.clock.now()).items
    return found


def test_a_copy_that_a_budget_does_not_cover_waits_for_the_next_period_and_is_no_failure(fleet: Fleet) -> None:
    budgets_of(fleet).put(ADMIN, "ocean", source_region=VIRGINIA, region=AMSTERDAM, limit_usd="0.000001")
    _, written = fleet.register(FILES)
    fleet.run()
    assert fleet.states(written.digest) == {"virginia": "VERIFIED", "amsterdam": "PENDING"}
    found = waiting(fleet)
    _, resets_at = period_of("month", fleet.clock.now())
    assert (found.state, found.error_code, found.attempts) == ("WAITING", "budget-exhausted", 0)
    assert found.not_before == resets_at
    assert "'ocean'" in (found.error_detail or "")
    assert not fleet.packs("amsterdam")

    budgets_of(fleet).put(ADMIN, "ocean", source_region=VIRGINIA, region=AMSTERDAM, limit_usd="50")
    fleet.run()
    assert fleet.read(written.digest, "amsterdam") == FILES
    (budget,) = budgets_of(fleet).list(ADMIN, PageRequest()).items
    (entry,) = fleet.ledger("replicate")
    assert (budget.spent_usd, budget.reserved_usd) == (Decimal(entry.actual_usd), 0)


def test_a_deleted_budget_lets_what_waited_go_on(local: Fleet) -> None:
    budgets_of(local).put(ADMIN, "none", limit_usd="0", period="day")
    _, written = local.register(FILES)
    local.run()
    assert local.states(written.digest)["amsterdam"] == "PENDING"
    budgets_of(local).delete(ADMIN, "none")
    local.run()
    assert local.states(written.digest)["amsterdam"] == "VERIFIED"
    assert {"budget.set", "budget.delete"} <= set(local.actions())


def test_a_period_that_begins_anew_lets_what_waited_go_on(local: Fleet) -> None:
    first, second = ({"weights.bin": os.urandom(300_000)} for _ in range(2))
    _, one = local.register(first)
    local.run()
    (entry,) = local.ledger("replicate")
    budgets_of(local).put(ADMIN, "daily", limit_usd=str(Decimal(entry.actual_usd) * Decimal("1.5")), period="day")
    _, other = local.register(second)
    local.run()
    assert local.states(one.digest)["amsterdam"] == "VERIFIED"
    assert local.states(other.digest)["amsterdam"] == "PENDING"
    local.clock.advance(timedelta(days=1))
    local.run()
    assert local.read(other.digest, "amsterdam") == second


def test_what_production_waits_for_goes_whatever_the_budget_says(local: Fleet) -> None:
    budgets_of(local).put(ADMIN, "none", limit_usd="0")
    first = lease_some(local, "one", priority=work.PROMOTED)
    with local.database.write() as session:
        now = local.clock.now()
        assert reserve(session, first, source_region=VIRGINIA, region=AMSTERDAM, usd=Decimal(1), now=now) is None


def test_copies_that_begin_together_do_not_exceed_a_limit_together(fleet: Fleet) -> None:
    budgets_of(fleet).put(ADMIN, "ocean", limit_usd="10", period="day")
    first, second = lease_some(fleet, "one"), lease_some(fleet, "two")
    now = fleet.clock.now()
    with fleet.database.write() as session:
        assert reserve(session, first, source_region=VIRGINIA, region=AMSTERDAM, usd=Decimal(6), now=now) is None
    with fleet.database.write() as session:
        short = reserve(session, second, source_region=VIRGINIA, region=AMSTERDAM, usd=Decimal(6), now=now)
        assert short is not None
        assert short.until == now + timedelta(minutes=1), "the other may cost less than it may"
    with fleet.database.write() as session:
        again = reserve(session, first, source_region=VIRGINIA, region=AMSTERDAM, usd=Decimal(8), now=now)
        assert again is None, "a copy does not compete with itself"
        work.finish(session, first)
    with fleet.database.write() as session:
        assert reserve(session, second, source_region=VIRGINIA, region=AMSTERDAM, usd=Decimal(6), now=now) is None


def lease_some(fleet: Fleet, subject: str, *, priority: int = work.USUAL) -> LeasedWork:
    with fleet.database.write() as session:
        work.require_work(
            session,
            workspace_id=ADMIN.workspace_id,
            residency="unrestricted",
            kind=REPLICATE,
            subject=subject,
            region=AMSTERDAM,
            priority=priority,
            now=fleet.clock.now(),
        )
    leased = work.lease(
        fleet.database,
        fleet.clock,
        kinds={REPLICATE},
        regions=None,
        holder=subject,
        ttl=timedelta(minutes=1),
    )
    assert leased is not None
    return leased


def test_a_rate_is_shared_by_all_copies_that_it_covers_and_by_no_others(local: Fleet) -> None:
    budgets_of(local).put(ADMIN, "ocean", source_region=VIRGINIA, bytes_per_second=1_000_000)
    bandwidth = Bandwidth()
    with local.database.read() as session:
        one, two, other = (
            bandwidth.limits(session, ADMIN.workspace_id, source_region=source, region=region)
            for source, region in ((VIRGINIA, AMSTERDAM), (VIRGINIA, VIRGINIA), (AMSTERDAM, VIRGINIA))
        )
    assert one == two
    assert [limit.bytes_per_second for limit in one] == [1_000_000]
    assert other == ()


def test_budgets_that_make_no_sense_are_refused(local: Fleet) -> None:
    budgets = budgets_of(local)
    with pytest.raises(InvalidInput, match="limits nothing"):
        budgets.put(ADMIN, "a")
    for limit in ("-1", "nan", "much", "1e400"):
        with pytest.raises(InvalidInput):
            budgets.put(ADMIN, "a", limit_usd=limit)
    with pytest.raises(InvalidInput):
        budgets.put(ADMIN, "a", limit_usd="1", period="year")
    with pytest.raises(UnknownRegion):
        budgets.put(ADMIN, "a", limit_usd="1", region="aws:nowhere-1")
    with pytest.raises(BudgetNotFound):
        budgets.delete(ADMIN, "a")


def test_a_budget_that_someone_changed_first_is_left_alone(local: Fleet) -> None:
    budgets = budgets_of(local)
    assert budgets.put(ADMIN, "a", limit_usd="1", expected_revision=0).revision == 1
    assert budgets.put(ADMIN, "a", limit_usd="2").revision == 2
    with pytest.raises(StaleRevision):
        budgets.put(ADMIN, "a", limit_usd="3", expected_revision=1)
    with pytest.raises(StaleRevision):
        budgets.delete(ADMIN, "a", expected_revision=1)
    assert budgets.get(ADMIN, "a").limit_usd == 2


@given(
    now=st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  (the strategy's bounds are naive)
    period=st.sampled_from(["day", "month"]),
)
def test_a_moment_lies_in_one_period_and_the_next_begins_where_it_ends(now: datetime, period: str) -> None:
    begin, end = period_of(period, now)
    assert begin <= now < end
    assert period_of(period, end)[0] == end
    assert period_of(period, end - timedelta(microseconds=1)) == (begin, end)
