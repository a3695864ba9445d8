"""Times as text: fixed width, in UTC, never naive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.clock import SystemClock, format_time, parse_time
from fairlead.core.errors import InvalidInput

zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=zones)  # noqa: DTZ001  (bounds are naive)


@given(moments)
def test_a_time_is_read_back_to_the_microsecond_in_utc(moment: datetime) -> None:
    read = parse_time(format_time(moment))
    assert read == moment
    assert read.tzinfo is UTC


@given(moments, moments)
def test_the_order_of_texts_is_the_order_of_times(one: datetime, other: datetime) -> None:
    assert (format_time(one) < format_time(other)) == (one < other)
    assert len(format_time(one)) == len("2026-03-01T12:00:00.000000Z")


def test_an_early_year_is_padded() -> None:
    assert format_time(datetime(33, 4, 3, tzinfo=UTC)) == "0033-04-03T00:00:00.000000Z"


def test_a_naive_time_is_refused_because_nobody_knows_what_it_means() -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        format_time(datetime(2026, 3, 1))  # noqa: DTZ001  (that is the point)
    with pytest.raises(InvalidInput, match="time zone"):
        parse_time("2026-03-01T12:00:00")


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "x" * 10_000])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_time(text)
    assert len(refused.value.detail) < 200


def test_the_clock_of_the_machine_is_aware_and_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC
