"""An object store that fails by chance, and one that counts: for showing what retries cost.

The chance is seeded, so that a run can be repeated; with several threads the order of calls may still differ.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence

from fairlead.core.errors import LocationUnavailable
from fairlead.core.ports import ObjectInfo, ObjectStore
from fairlead.testing.objects import Action

REQUEST_FAULTS = (Action.FAIL, Action.LOSE_REPLY, Action.CUT)
"""What happens to requests on a bad network. A write that is cut stores nothing and fails, as the port demands."""


class FlakyStore:
    """Any store, a share of whose calls fail, lose their reply or, where they read, are cut short.

    `calls` and `faults` count them. Safe to use from several threads.
    """

    def __init__(
        self, store: ObjectStore, *, seed: int, rate: float = 0.3, faults: Sequence[Action] = REQUEST_FAULTS
    ) -> None:
        self._store = store
        self._random = random.Random(seed)  # noqa: S311  (repeatable chance, guards nothing)
        self._rate = rate
        self._actions = tuple(faults)
        self._lock = threading.Lock()
        self.calls = 0
        self.faults = 0

    @property
    def has_create_only(self) -> bool:
        """What the store behind says."""
        return self._store.has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Read from the store behind, unless chance has it otherwise."""
        action = self._draw()
        found = self._store.read(key, start=start, length=length)
        self._reply(action)
        return found[: len(found) // 2] if action is Action.CUT else found

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Write to the store behind, unless chance has it otherwise."""
        action = self._draw()
        if action is Action.CUT:
            raise LocationUnavailable("The connection broke while it was sent.")
        is_stored = self._store.write(key, data, create_only=create_only)
        self._reply(action)
        return is_stored

    def size(self, key: str) -> int | None:
        """Ask the store behind, unless chance has it otherwise."""
        action = self._draw()
        found = self._store.size(key)
        self._reply(action)
        return found

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the store behind, unless chance has it otherwise."""
        self._reply(self._draw())
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        """Delete from the store behind, unless chance has it otherwise."""
        action = self._draw()
        self._store.delete(key)
        self._reply(action)

    def _draw(self) -> Action | None:
        with self._lock:
            self.calls += 1
            action = self._random.choice(self._actions) if self._random.random() < self._rate else None
            self.faults += action is not None
        if action is Action.FAIL:
            raise LocationUnavailable("The store was told to fail here.")
        return action

    def _reply(self, action: Action | None) -> None:
        if action is Action.LOSE_REPLY:
            raise LocationUnavailable("The store was told to lose this reply.")


class CountingStore:
    """Any store; `read_bytes` is what it gave, `written_bytes` what it took. Safe to use from several threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.read_bytes = 0
        self.written_bytes = 0

    @property
    def has_create_only(self) -> bool:
        """What the store behind says."""
        return self._store.has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Read from the store behind, and count."""
        found = self._store.read(key, start=start, length=length)
        with self._lock:
            self.read_bytes += len(found)
        return found

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Write to the store behind, and count."""
        with self._lock:
            self.written_bytes += memoryview(data).nbytes
        return self._store.write(key, data, create_only=create_only)

    def size(self, key: str) -> int | None:
        """Ask the store behind."""
        return self._store.size(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the store behind."""
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        """Delete from the store behind."""
        self._store.delete(key)
