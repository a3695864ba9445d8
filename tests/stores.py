"""A store whose process is killed in the middle of a call."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from fairlead.core.ports import ObjectInfo, ObjectStore


class Crash(BaseException):
    """The process is gone: no handler of ours sees this, and nothing is recorded any more."""


class CrashingStore:
    """Any store; the `call`-th call (from 1, of any kind) and all after it end the process.

    A write that is the last call is made, or not, depending on whether its number is even.
    """

    def __init__(self, store: ObjectStore, call: int) -> None:
        self._store = store
        self._last = call
        self._calls = 0
        self._lock = threading.Lock()

    @property
    def has_create_only(self) -> bool:
        return self._store.has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._count()
        return self._store.read(key, start=start, length=length)

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        try:
            self._count()
        except Crash:
            if self._calls == self._last and self._last % 2 == 0:
                self._store.write(key, data, create_only=create_only)
            raise
        return self._store.write(key, data, create_only=create_only)

    def size(self, key: str) -> int | None:
        self._count()
        return self._store.size(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._count()
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._count()
        self._store.delete(key)

    def _count(self) -> None:
        with self._lock:
            self._calls += 1
            if self._calls >= self._last:
                raise Crash
