"""What Fairlead needs from outside the process, each as a small protocol with its failure rules written down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
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


class KeyProvider(Protocol):
    """Something that keeps a *wrapping key* and never gives it out, and wraps data keys with it: a key file, a KMS.

    Both calls are safe to repeat and change nothing. Wrapping one key twice may give different bytes. What a provider
    wrapped it unwraps for as long as it keeps the wrapping key, whatever newer version of it there is, and only with
    the same `context` (workspace and key id), so that a wrapped key cannot be passed off as another one.

    Errors: `KeyUnavailable` when the wrapping key is not there, may not be used, or did not wrap these bytes: that says
    nothing about what was encrypted. `InvalidInput` where `provider_key` is no name of a key. `MissingExtra` without
    the cloud's library. No other exception leaves an implementation.
    """

    def wrap(self, data_key: bytes, *, provider_key: str, context: Mapping[str, str]) -> bytes:
        """Encrypt 32 bytes under the wrapping key of this name."""
        ...

    def unwrap(self, wrapped: bytes, *, provider_key: str, context: Mapping[str, str]) -> bytes:
        """The 32 bytes again."""
        ...

    def name_of(self, provider_key: str) -> str:
        """The full name under which to keep a wrapping key that a user named, or left to the provider (empty)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMessage:
    """One message of a stream.

    `position` names it within the stream for ever. `event_id` is what its producer calls it, where it says so.
    `deliveries` counts how often it was given out, this time included.
    """

    position: str
    payload: bytes
    event_id: str | None = None
    deliveries: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLag:
    """Where a group stands: messages that were given out and not acknowledged, and those that were not given out.

    `waiting` is None where the broker cannot tell.
    """

    pending: int
    waiting: int | None


class StreamBroker(Protocol):
    """A stream as one consumer of a group sees it. The group shares the messages: each is given to one consumer.

    A message that was given out stays pending until it is acknowledged, also when its consumer or the broker's
    connection dies, so it may come more than once, and never not at all. Messages come in the stream's order, but for
    those that are claimed. Every call may be repeated.

    Errors: `Unavailable` may be retried; `MissingExtra` is final. No other exception leaves an implementation.
    """

    def read(self, count: int, *, wait_seconds: float) -> Sequence[StreamMessage]:
        """At most `count` messages that nobody was given before; waits that long for the first one."""
        ...

    def claim(self, count: int, *, idle_seconds: float) -> Sequence[StreamMessage]:
        """At most `count` messages that some consumer of the group was given so long ago and did not acknowledge."""
        ...

    def acknowledge(self, positions: Sequence[str]) -> None:
        """Take messages off what is pending; one that is not pending is no error."""
        ...

    def bury(self, message: StreamMessage, reason: str) -> None:
        """Put a message aside for a person to look at, with the reason, and acknowledge it: both or neither."""
        ...

    def buried(self) -> int:
        """How many messages were put aside."""
        ...

    def lag(self) -> StreamLag:
        """Where the group stands."""
        ...

    def close(self) -> None:
        """Leave the group. What is pending stays so."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionUser:
    """What runs in a region and reads artifacts there, such as `deployment churn`.

    It leaves by itself, once what it has in the regions `goes_on_in` runs, or else after somebody typed `command`.
    """

    name: str
    goes_on_in: tuple[str, ...] = ()
    command: str | None = None


class RegionUse(Protocol):
    """What runs in a region and reads artifacts there. Asked inside a transaction of the record, so it answers fast."""

    def used_by(self, workspace_id: str, region: str) -> Sequence[RegionUser]:
        """What it is, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedCopy:
    """A copy that would bring an artifact to a region: from where, how many bytes, and what it costs."""

    source_region: str
    bytes: int
    usd: Decimal


class CopyPricing(Protocol):
    """What bringing an artifact to regions would move and cost, by the cheapest way for all of them together.

    Asked inside a transaction of the record, so it answers fast and asks no store: where it does not know how much of
    the artifact a region holds already, it names all of it.
    """

    def price_copies(
        self, workspace_id: str, residency: str, digest: str, regions: Sequence[str]
    ) -> Mapping[str, PricedCopy]:
        """By region; one that nothing leads to, or that has it already, is left out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeTestFacts:
    """What a bundle did in a clean environment: `compared` of its answers had been recorded with the version."""

    is_passed: bool
    answered: int
    compared: int
    finished_at: datetime


class BundleIndex(Protocol):
    """Which bundle a model version was built into. Asked inside a transaction of the record, so it answers fast."""

    def bundle_of(self, workspace_id: str, model_id: str, version: int) -> str | None:
        """The digest of the newest bundle that is READY; None where there is none. `model_id` is the row's."""
        ...

    def smoke_test_of(self, workspace_id: str, model_id: str, version: int) -> SmokeTestFacts | None:
        """The newest smoke test of that bundle that has finished; None where there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFinding:
    """What an expectation of a feature snapshot came to, by one measure. A value that may not be told here is None.

    `is_required`: a snapshot that fails it is neither served nor promoted with.
    """

    name: str
    measure: str
    value: float | str | None
    limit: str
    is_passed: bool
    is_required: bool
    detail: str


class SnapshotIndex(Protocol):
    """What was expected of feature snapshots and found. Asked inside a transaction of the record: it answers fast."""

    def findings(self, workspace_id: str, snapshot_digest: str) -> Sequence[SnapshotFinding]:
        """What was found of a snapshot, in order; nothing where nothing is expected."""
        ...


class DeploymentIndex(Protocol):
    """Which deployments run what. Asked inside a transaction of the record, so it answers fast and waits for nobody."""

    def following(self, workspace_id: str, model: str, environment: str) -> Sequence[str]:
        """The names of the deployments that follow an environment's pointer, in order."""
        ...

    def pinned(self, workspace_id: str, model: str, version: int | None) -> Sequence[str]:
        """The names of the deployments of one version (None: of any), whatever environments point at, in order."""
        ...
