"""What Fairlead needs from outside the process, each as a small protocol with its failure rules written down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> datetime:
        """The present: aware, UTC, microseconds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object as a listing shows it. Size is in bytes."""

    key: str
    size: int


class ObjectStore(Protocol):
    """A bucket and prefix: whole immutable objects under `/`-separated relative keys.

    Every call may be retried and every write may be repeated with the same bytes. A write is atomic: a reader sees
    all of an object or none of it, also where the writer is killed half-way. Existence proves nothing about content:
    callers check size and digest.

    Errors: `ObjectNotFound` is final; `LocationUnavailable` may be retried; `StorageFull` is final until someone acts;
    `PermissionDenied` is final. No other exception leaves an implementation.
    """

    @property
    def has_create_only(self) -> bool:
        """Whether `write(..., create_only=True)` is true to its word on this store."""
        ...

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes from `start`, `length` of them, or fewer where it ends before."""
        ...

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Store an object; with `create_only`, leave one that exists alone. True if this call stored it.

        A conditional write whose reply was lost is read back before it is reported as False.
        """
        ...

    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None where there is none."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in key order."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that does not exist is no error."""
        ...


class DeploymentIndex(Protocol):
    """Which deployments run what. Asked inside a transaction of the record, so it answers fast and waits for nobody."""

    def following(self, workspace_id: str, model: str, environment: str) -> Sequence[str]:
        """The names of the deployments that follow an environment's pointer, in order."""
        ...
