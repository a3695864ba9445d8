"""Object stores to test with: one in memory, and one that fails on purpose.

`MemoryStore` keeps every promise of the port. `FaultyStore` stands before any store and breaks the calls it is told
to: a request that fails, a reply that is lost, bytes that are cut or flipped, a process that dies.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from fairlead.core.errors import LocationUnavailable, ObjectNotFound
from fairlead.core.ports import ObjectInfo, ObjectStore
from fairlead.sync.store.keys import check_key, check_prefix, check_range

Operation = Literal["read", "write", "size", "list", "delete"]


class MemoryStore:
    """Objects in a dictionary, safe to use from several threads. `objects` is theirs to look at and to damage."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects: dict[str, bytes] = {} if objects is None else dict(objects)
        self._lock = threading.Lock()

    @property
    def has_create_only(self) -> bool:
        """Always true."""
        return True

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes from `start`, `length` of them, or fewer where it ends before.

        Raises:
            ObjectNotFound: if there is none.
        """
        check_range(start, length)
        data = self.objects.get(check_key(key))
        if data is None:
            raise ObjectNotFound(f"There is no object {key!r} in memory.", key=key)
        return data[start:] if length is None else data[start : start + length]

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Store an object; True if this call stored it."""
        check_key(key)
        with self._lock:
            if create_only and key in self.objects:
                return False
            self.objects[key] = bytes(data)
            return True

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None where there is none."""
        data = self.objects.get(check_key(key))
        return None if data is None else len(data)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in key order, as they were when the listing began."""
        check_prefix(prefix)
        with self._lock:
            found = sorted((key, len(data)) for key, data in self.objects.items() if key.startswith(prefix))
        for key, size in found:
            yield ObjectInfo(key=key, size=size)

    def delete(self, key: str) -> None:
        """Remove an object; one that does not exist is no error."""
        check_key(key)
        with self._lock:
            self.objects.pop(key, None)


class Action(StrEnum):
    """How a call is broken."""

    FAIL = "fail"
    """Nothing happens, and the caller is told `LocationUnavailable`."""
    LOSE_REPLY = "lose-reply"
    """It happens, and the caller is told `LocationUnavailable`."""
    CUT = "cut"
    """A read gives, or a write stores, only the first half, and the caller is told that all is well."""
    FLIP = "flip"
    """The middle byte that is read or written has its lowest bit flipped."""
    DIE = "die"
    """Nothing happens, in this call or any later one, as if the process had been killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Break the `call`-th call (from 1) of an operation."""

    operation: Operation
    call: int
    action: Action


class FaultyStore:
    """Any store, with some of its calls broken. `calls` counts the calls made of each operation."""

    def __init__(self, store: ObjectStore, faults: Sequence[Fault] = ()) -> None:
        self._store = store
        self._faults = {(fault.operation, fault.call): fault.action for fault in faults}
        self._lock = threading.Lock()
        self._is_dead = False
        self.calls: dict[Operation, int] = {"read": 0, "write": 0, "size": 0, "list": 0, "delete": 0}

    @property
    def has_create_only(self) -> bool:
        """What the store behind says."""
        return self._store.has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Read from the store behind, unless this call is to be broken."""
        action = self._next("read")
        self._reply(action)
        return _damaged(self._store.read(key, start=start, length=length), action)

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Write to the store behind, unless this call is to be broken."""
        action = self._next("write")
        is_stored = self._store.write(key, _damaged(bytes(data), action), create_only=create_only)
        self._reply(action)
        return is_stored

    def size(self, key: str) -> int | None:
        """Ask the store behind, unless this call is to be broken."""
        self._reply(self._next("size"))
        return self._store.size(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the store behind, unless this call is to be broken."""
        self._reply(self._next("list"))
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        """Delete from the store behind, unless this call is to be broken."""
        action = self._next("delete")
        self._store.delete(key)
        self._reply(action)

    def _next(self, operation: Operation) -> Action | None:
        with self._lock:
            self.calls[operation] += 1
            action = self._faults.get((operation, self.calls[operation]))
            self._is_dead = self._is_dead or action is Action.DIE
        if self._is_dead or action is Action.FAIL:
            raise LocationUnavailable("The store was told to fail here.")
        return action

    def _reply(self, action: Action | None) -> None:
        if action is Action.LOSE_REPLY:
            raise LocationUnavailable("The store was told to lose this reply.")


def _damaged(data: bytes, action: Action | None) -> bytes:
    if action is Action.CUT:
        return data[: len(data) // 2]
    if action is Action.FLIP and data:
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return data
