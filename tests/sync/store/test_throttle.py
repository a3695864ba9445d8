from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import InvalidInput
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.throttle import RateLimit, ThrottledStore
from fairlead.testing.object_store_suite import ObjectStoreSuite
from fairlead.testing.objects import MemoryStore


@dataclass
class _Time:
    """Seconds that pass only while somebody sleeps."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list[float])

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def _limit(passing: _Time, rate: float, burst_seconds: float = 0.25) -> RateLimit:
    return RateLimit(rate, burst_seconds=burst_seconds, monotonic=passing.monotonic, sleep=passing.sleep)


class TestThrottledStoreWithRoomToSpare(ObjectStoreSuite):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return ThrottledStore(MemoryStore(), RateLimit(1e12))


@given(st.lists(st.integers(0, 10**7), max_size=30), st.integers(1, 10**7))
def test_bytes_pass_at_the_rate_whatever_their_sizes(sizes: list[int], rate: int) -> None:
    passing = _Time()
    limit = _limit(passing, rate)
    for size in sizes:
        limit.take(size)
    took = passing.now - 1000.0
    assert took == pytest.approx(max(0.0, sum(sizes) / rate - 0.25), abs=1e-3)


def test_what_was_not_used_is_saved_up_for_the_burst_and_no_longer() -> None:
    passing = _Time()
    limit = _limit(passing, 1000, burst_seconds=2)
    assert limit.take(2000) == 0
    passing.now += 3600
    assert limit.take(2000) == 0
    assert limit.take(1000) == pytest.approx(1)


def test_a_store_pays_for_what_it_reads_and_writes_and_not_for_looking() -> None:
    passing = _Time()
    store = ThrottledStore(MemoryStore(), _limit(passing, 100, burst_seconds=0))
    store.write("key", memoryview(b"x" * 300))
    store.read("key", start=250, length=1000)
    assert passing.slept == pytest.approx([3.0, 0.5])
    assert store.size("key") == 300
    assert [found.key for found in store.list("")] == ["key"]
    store.delete("key")
    assert len(passing.slept) == 2


def test_threads_share_one_limit() -> None:
    limit = RateLimit(200_000, burst_seconds=0)
    threads = [threading.Thread(target=lambda: [limit.take(1000) for _ in range(5)]) for _ in range(8)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begin >= 40_000 / 200_000 - 0.01


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_limit_that_lets_nothing_through_is_refused(rate: float) -> None:
    with pytest.raises(InvalidInput, match="lets nothing through"):
        RateLimit(rate)
