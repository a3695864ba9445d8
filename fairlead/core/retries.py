"""Trying again what failed for a moment."""

from __future__ import annotations

import logging
import random
import time
from time import sleep
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_LONGEST_PAUSE_SECONDS = 5.0
_log = logging.getLogger(__name__)


def retried(
    call: Callable[[], T],
    *,
    on: Callable[[Exception], bool],
    attempts: int,
    first_pause: float,
    jitter: float,
    patience: float | None = None,
) -> T:
    """What a call answers, made again after a pause while it fails with what `on` says is worth it.

    Pauses double from `first_pause` seconds, and each has up to `jitter` seconds more, so that those who failed
    together do not come back together. There are no more than `attempts` calls, and none after `patience` seconds.

    Raises:
        Exception: what the last call raised.
    """
    deadline = None if patience is None else time.monotonic() + patience
    for failed in range(attempts - 1):
        try:
            return call()
        except Exception as error:
            pause = min(first_pause * 2**failed + random.uniform(0, jitter), _LONGEST_PAUSE_SECONDS)  # noqa: S311  (no secret)
            if not on(error) or (deadline is not None and time.monotonic() + pause > deadline):
                raise
            _log.info("failed with %s; trying again in %.2f s", type(error).__name__, pause)
        sleep(pause)
    return call()
