from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from fairlead.serving.bundled.batcher import Batcher


class Model:
    """Doubles numbers, one batch at a time, and only as often as it is let; `bad` is what it cannot answer."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.may_go = threading.Semaphore(0)

    def predict(self, rows: Sequence[Any]) -> list[Any]:
        assert self.may_go.acquire(timeout=10)
        self.batches.append([*rows])
        if "bad" in rows:
            raise ValueError("bad")
        return [2 * row for row in rows]

    def let(self, times: int) -> None:
        for _ in range(times):
            self.may_go.release()


async def ask_together(batcher: Batcher, model: Model, first: list[Any], *others: list[Any]) -> list[Any]:
    """What comes of a request, and of others that arrive while it is being answered."""
    asked = [asyncio.create_task(batcher.predict(first))]
    await asyncio.sleep(0)
    asked += [asyncio.create_task(batcher.predict(each)) for each in others]
    await asyncio.sleep(0)
    model.let(100)
    return await asyncio.gather(*asked, return_exceptions=True)


def test_what_arrives_while_the_model_is_busy_is_predicted_at_once() -> None:
    model, seen = Model(), list[int]()
    batcher = Batcher(model.predict, observe=seen.append)
    answers = asyncio.run(ask_together(batcher, model, [1], [2, 3], [4], [5]))
    assert answers == [[2], [4, 6], [8], [10]]
    assert model.batches == [[1], [2, 3, 4, 5]]
    assert seen == [1, 4]


def test_a_batch_has_no_more_rows_than_it_may_unless_one_request_has() -> None:
    model = Model()
    answers = asyncio.run(ask_together(Batcher(model.predict, rows_max=2), model, [1], [2], [3], [4, 5, 6]))
    assert answers == [[2], [4], [6], [8, 10, 12]]
    assert model.batches == [[1], [2, 3], [4, 5, 6]]


def test_one_request_that_the_model_cannot_answer_harms_no_other() -> None:
    model = Model()
    good, bad, also_good = asyncio.run(ask_together(Batcher(model.predict), model, [1], ["bad"], [3]))[0:3]
    assert (good, also_good) == ([2], [6])
    assert isinstance(bad, ValueError)


def test_a_request_that_nobody_waits_for_any_more_is_left_out() -> None:
    async def run() -> None:
        model = Model()
        batcher = Batcher(model.predict)
        first = asyncio.create_task(batcher.predict([1]))
        await asyncio.sleep(0)
        gone = asyncio.create_task(batcher.predict([2]))
        await asyncio.sleep(0)
        gone.cancel()
        last = asyncio.create_task(batcher.predict([3]))
        model.let(10)
        assert await asyncio.gather(first, last) == [[2], [6]]
        assert model.batches == [[1], [3]]
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(run())
