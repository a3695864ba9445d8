"""What fails for a moment is tried again, as often and as long as was said."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core import retries
from fairlead.core.retries import retried


class Time:
    """A clock that the pauses move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Time:
    passing = Time()
    monkeypatch.setattr(retries, "sleep", passing.sleep)
    monkeypatch.setattr(retries, "time", passing)
    return passing


def failing(times: int, error: Exception) -> Callable[[], int]:
    """A call that fails so often, and then answers how often it was made."""
    made = itertools.count(1)

    def call() -> int:
        if (number := next(made)) <= times:
            raise error
        return number

    return call


def test_pauses_double_up_to_a_limit(passing: Time) -> None:
    answer = retried(failing(7, OSError()), on=bool, attempts=8, first_pause=0.1, jitter=0.0)
    assert answer == 8
    assert passing.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])


@given(times=st.integers(0, 6), attempts=st.integers(1, 6))
def test_a_call_is_made_so_often_and_no_more(times: int, attempts: int) -> None:
    call = failing(times, OSError("away"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "sleep", Time().sleep)
        if times < attempts:
            assert retried(call, on=bool, attempts=attempts, first_pause=1, jitter=1) == times + 1
            return
        with pytest.raises(OSError, match="away"):
            retried(call, on=bool, attempts=attempts, first_pause=1, jitter=1)
    assert [call() for _ in range(times - attempts + 1) if times == attempts] in ([], [attempts + 1])


@pytest.mark.usefixtures("passing")
def test_what_is_not_worth_it_ends_at_once() -> None:
    call = failing(1, ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        retried(call, on=lambda error: isinstance(error, OSError), attempts=4, first_pause=0.1, jitter=0.1)
    assert call() == 2


def test_nothing_is_tried_after_the_patience_is_over(passing: Time) -> None:
    call = failing(99, OSError("away"))
    with pytest.raises(OSError, match="away"):
        retried(call, on=bool, attempts=99, first_pause=0.5, jitter=0.0, patience=2.0)
    assert passing.pauses == [0.5, 1.0]
