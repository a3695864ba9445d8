"""Adaptive batching: rows that arrive while the model is busy are predicted together as soon as it is free.

This file is copied into bundles as it is. A request that finds the model idle is answered at once, alone; under load
the batches grow with the queue. So there is no time to wait that anyone had to choose, and none that a quiet endpoint
pays. Each request's rows are checked before they get here: what one sends is never another's mistake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Predict = Callable[[Sequence[Any]], list[Any]]


class Batcher:
    """Predicts for many requests at once. Belongs to one event loop, and to one thread that the model runs in.

    `rows_max` is how many rows a batch has at most; a request that has more of them is a batch of its own, and with 1
    there are no others. `observe` is told the number of rows of each batch.
    """

    def __init__(
        self, predict: Predict, *, rows_max: int = 512, observe: Callable[[int], None] = lambda _: None
    ) -> None:
        self._predict = predict
        self._rows_max = rows_max
        self._observe = observe
        self._queue: deque[tuple[Sequence[Any], asyncio.Future[list[Any]]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    async def predict(self, rows: Sequence[Any]) -> list[Any]:
        """One prediction a row. Raises what the model raises for these rows."""
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._queue.append((rows, future))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._answer(self._next_batch())
        finally:
            self._task = None

    def _next_batch(self) -> list[tuple[Sequence[Any], asyncio.Future[list[Any]]]]:
        batch = [self._queue.popleft()]
        count = len(batch[0][0])
        while self._queue and count + len(self._queue[0][0]) <= self._rows_max:
            count += len(self._queue[0][0])
            batch.append(self._queue.popleft())
        return [each for each in batch if not each[1].cancelled()]

    async def _answer(self, batch: list[tuple[Sequence[Any], asyncio.Future[list[Any]]]]) -> None:
        if not batch:
            return
        rows = [row for each, _ in batch for row in each]
        try:
            answers = await self._run(rows)
        except Exception as error:  # noqa: BLE001  (whatever a model raises is the answer to who asked)
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
            # One request may be what the model cannot answer: the others do not suffer for it.
            for each in batch:
                await self._answer([each])
            return
        start = 0
        for each, future in batch:
            _settle(future, answers[start : start + len(each)])
            start += len(each)

    async def _run(self, rows: list[Any]) -> list[Any]:
        self._observe(len(rows))
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, rows)


def _settle(future: asyncio.Future[list[Any]], outcome: list[Any] | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
