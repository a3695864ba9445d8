from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import InvalidInput
from fairlead.registry.freeze import Freeze, check_freeze, freeze_from_json, freeze_to_json, frozen_until

WEEKEND = Freeze(
    name="weekend", reason="Nobody looks.", timezone="Europe/Berlin", schedule="0 18 * * 5", duration="60h"
)
YEAR_END = Freeze(
    name="year-end", reason="Books.", timezone="America/New_York", begins="2026-12-20T18:00", ends="2027-01-02T00:00"
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_weekend_begins_and_ends_by_the_clock_of_its_time_zone() -> None:
    assert frozen_until(WEEKEND, at("2026-11-20T16:59:59Z")) is None
    assert frozen_until(WEEKEND, at("2026-11-20T17:00:00Z")) == at("2026-11-23T05:00:00Z")
    assert frozen_until(WEEKEND, at("2026-11-23T05:00:00Z")) is None
    # In summer the same Friday evening is an hour earlier.
    assert frozen_until(WEEKEND, at("2026-07-03T16:00:00Z")) is not None


def test_an_interval_is_in_its_time_zone() -> None:
    assert frozen_until(YEAR_END, at("2026-12-20T22:59:00Z")) is None
    assert frozen_until(YEAR_END, at("2026-12-20T23:00:00Z")) == at("2027-01-02T05:00:00Z")


@given(st.integers(min_value=0, max_value=4 * 7 * 24 * 60))
def test_a_schedule_freezes_exactly_the_minutes_after_each_start(minutes: int) -> None:
    freeze = Freeze(name="f", reason="r", schedule="30 2 * * 1,3", duration="5h")
    now = datetime(2026, 3, 2, tzinfo=UTC) + timedelta(minutes=minutes)
    starts = [
        now.replace(hour=2, minute=30) - timedelta(days=back)
        for back in range(2)
        if (now - timedelta(days=back)).isoweekday() in {1, 3}
    ]
    is_frozen = any(start <= now < start + timedelta(hours=5) for start in starts)
    assert (frozen_until(freeze, now) is not None) is is_frozen


@pytest.mark.parametrize(
    "freeze",
    [
        Freeze(name="b", reason="r", timezone="Mars/Base", schedule="0 0 * * *", duration="1h"),
        Freeze(name="b", reason=" ", schedule="0 0 * * *", duration="1h"),
        Freeze(name="b", reason="r", schedule="0 0 * *", duration="1h"),
        Freeze(name="b", reason="r", schedule="60 0 * * *", duration="1h"),
        Freeze(name="b", reason="r", schedule="*/0 0 * * *", duration="1h"),
        Freeze(name="b", reason="r", schedule="0 0 * * *", duration="32d"),
        Freeze(name="b", reason="r", schedule="0 0 * * *"),
        Freeze(name="b", reason="r", begins="2026-02-01", ends="2026-01-01"),
        Freeze(name="b", reason="r", begins="2026-02-01", ends="2026-03-01", duration="1h"),
        Freeze(name="b", reason="r"),
    ],
)
def test_a_window_that_cannot_be_read_is_refused_by_name(freeze: Freeze) -> None:
    with pytest.raises(InvalidInput, match="The freeze 'b'"):
        check_freeze(freeze)


@pytest.mark.parametrize("freeze", [WEEKEND, YEAR_END], ids=["weekend", "year-end"])
def test_a_window_survives_the_record(freeze: Freeze) -> None:
    check_freeze(freeze)
    assert freeze_from_json(freeze_to_json(freeze)) == freeze
