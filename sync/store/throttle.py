"""Rate limits: how fast one process may move bytes to and from a store.

A limit is a token bucket that is kept as a time: `_paid_until` is when all bytes taken so far will have passed at the
limit's rate. Who takes bytes is put in the queue at once and waits for its turn outside the lock, so that takers are
served in the order in which they came and a large one is never overtaken without end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fairlead.core.errors import InvalidInput
from fairlead.core.ports import ObjectInfo, ObjectStore


class RateLimit:
    """At most so many bytes a second, averaged over a little more than `burst_seconds`.

    What was not used is saved up for `burst_seconds` and no longer. Threads that share a limit share its rate; so do
    several stores that are given the same one. Safe to use from several threads.
    """

    def __init__(
        self,
        bytes_per_second: float,
        *,
        burst_seconds: float = 0.25,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Begin with a full bucket.

        Raises:
            InvalidInput: if the rate is not above zero.
        """
        if not bytes_per_second > 0:
            raise InvalidInput(f"A rate limit of {bytes_per_second} bytes a second lets nothing through.")
        self._bytes_per_second = bytes_per_second
        self._burst_seconds = burst_seconds
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._paid_until = monotonic() - burst_seconds

    def __repr__(self) -> str:
        return f"RateLimit({self._bytes_per_second:g})"

    @property
    def bytes_per_second(self) -> float:
        """The rate that is kept to."""
        return self._bytes_per_second

    def take(self, n_bytes: int) -> float:
        """Wait until so many bytes may have moved; the seconds that were waited. More than a burst is no error."""
        if n_bytes <= 0:
            return 0.0
        with self._lock:
            now = self._monotonic()
            begin = max(self._paid_until, now - self._burst_seconds)
            self._paid_until = begin + n_bytes / self._bytes_per_second
            seconds = self._paid_until - now
        if seconds <= 0:
            return 0.0
        self._sleep(seconds)
        return seconds


@dataclass(frozen=True, slots=True)
class ThrottledStore:
    """Any store, whose objects' bytes are read and written no faster than a limit.

    A write waits before it is sent; a read waits after it came, since only then is its length known. Sizes, listings
    and deletions move next to nothing, and pass.
    """

    store: ObjectStore
    limit: RateLimit

    @property
    def has_create_only(self) -> bool:
        """What the store behind says."""
        return self.store.has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Read from the store behind, and wait until that many bytes may have moved.

        Raises:
            ObjectNotFound, LocationUnavailable, PermissionDenied: as the store behind.
        """
        found = self.store.read(key, start=start, length=length)
        self.limit.take(len(found))
        return found

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Wait until that many bytes may move, and write to the store behind.

        Raises:
            StorageFull, LocationUnavailable, PermissionDenied: as the store behind.
        """
        self.limit.take(memoryview(data).nbytes)
        return self.store.write(key, data, create_only=create_only)

    def size(self, key: str) -> int | None:
        """Ask the store behind."""
        return self.store.size(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the store behind."""
        return self.store.list(prefix)

    def delete(self, key: str) -> None:
        """Delete from the store behind."""
        self.store.delete(key)
