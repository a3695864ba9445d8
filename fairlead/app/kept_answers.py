"""What the registry said, kept for a while, and longer while it is away."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from fairlead.core.errors import FairleadError

ANSWERS_KEPT_SECONDS = 60.0
"""How long what the registry said is taken to be still so."""

OFFLINE_SECONDS = 3600
"""How long what it said of a token stands while it is away, where nothing else is said."""

_ANSWERS_KEPT = 10_000
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class KeptAnswers(Generic[K, V]):
    """Answers that are asked for again after a while; a registry that is away leaves the last one standing."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._answers: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def peek(self, key: K) -> V | None:
        """The answer, if it need not be asked for."""
        kept = self._answers.get(key)
        return kept[1] if kept is not None and self._monotonic() - kept[0] < ANSWERS_KEPT_SECONDS else None

    def get(self, key: K, ask: Callable[[], V], *, stands_seconds: float = math.inf) -> V:
        """The answer, asked for again after a while; the last one stands that long after it was given."""
        with self._lock:
            kept = self._answers.get(key)
        now = self._monotonic()
        if kept is not None and now - kept[0] < ANSWERS_KEPT_SECONDS:
            return kept[1]
        try:
            answer = ask()
        except FairleadError as error:
            if kept is not None and error.status >= 500 and now - kept[0] < stands_seconds:
                return kept[1]
            with self._lock:
                self._answers.pop(key, None)
            raise
        with self._lock:
            self._answers[key] = (now, answer)
            self._answers.move_to_end(key)
            while len(self._answers) > _ANSWERS_KEPT:
                self._answers.popitem(last=False)
        return answer
