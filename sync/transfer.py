"""What a copy puts before its stores: patience with every request, a meter, rate limits, and bounded bytes in flight.

A request that fails is made again by itself, and a range that was cut goes on where it stopped: what has arrived is
never asked for twice. So a copy that starts anew is the exception, and what it moves stays close to what was planned.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from fairlead.core.errors import LocationUnavailable
from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectInfo, ObjectStore
from fairlead.registry.tables import PLAIN_KEY_ID
from fairlead.sync.budgets import Bandwidth
from fairlead.sync.pack_transfer import BroughtPack, PackPiece, bring_packs, pieces_of, with_bounded_loss
from fairlead.sync.store.blocks import KnownBlocks, Progress, StoredBlock
from fairlead.sync.store.copy import THREADS, CopyPlan, CopyReport, copy_artifact, plan_copy
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.pack import PACK_TARGET_BYTES
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.throttle import RateLimit

IN_FLIGHT_BYTES = 512 * 2**20
PIECE_BYTES = 8 * 2**20
# Where it goes slowly, fewer packs are under way at once, so that a worker that dies loses no more than this.
_UNDER_WAY_SECONDS = 4.0
_SMALLEST_PIECE_BYTES = 64 * 2**10
_SMALL_OBJECT_BYTES = 4 * 2**20
_T = TypeVar("_T")

StoreAddress = tuple[str, Mapping[str, Any]]
"""The URL of a location's store, and the options to open it with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often a request is made before it counts as failed, and how long is waited in between, in seconds.

    The waits double from `first_seconds` and are spread over their upper half.
    """

    tries: int = 6
    first_seconds: float = 0.2
    longest_seconds: float = 5.0
    sleep: Callable[[float], object] = time.sleep

    def call(self, action: Callable[[], _T]) -> _T:
        """Do what may be repeated until it succeeds or has been tried often enough.

        Raises:
            LocationUnavailable: the last one; any other error at once.
        """
        for number in range(1, self.tries + 1):
            try:
                return action()
            except LocationUnavailable:
                if number == self.tries:
                    raise
                self.wait(number)
        raise AssertionError("unreachable")

    def wait(self, number: int) -> None:
        """Wait after the n-th failure."""
        longest = min(self.longest_seconds, self.first_seconds * 2 ** min(number - 1, 30))
        self.sleep(longest * (0.5 + random.random() / 2))  # noqa: S311  (spreads retries, guards nothing)


class Meter:
    """Counts bytes from several threads. Safe to share between stores."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0
        self._told = 0

    @property
    def total_bytes(self) -> int:
        """All bytes so far."""
        return self._bytes

    def add(self, n_bytes: int) -> None:
        """Count some more."""
        with self._lock:
            self._bytes += n_bytes

    def take_untold(self) -> int:
        """The bytes that were counted since this was last asked; whoever asks accounts for them."""
        with self._lock:
            untold, self._told = self._bytes - self._told, self._bytes
            return untold

    def give_back(self, n_bytes: int) -> None:
        """Count bytes as untold again, because accounting for them failed."""
        with self._lock:
            self._told -= n_bytes


class PatientStore:
    """Any store, asked again where a request failed or its answer was cut; bytes read are metered and rate-limited.

    Reads of more than `piece_bytes` are made as several. `is_keeping` small whole objects (manifests, layouts) saves
    asking for them twice, for a source that serves one copy; what is read back must come from the store. `written` is
    told each key that was stored. Safe to use from several threads.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        patience: Patience,
        meter: Meter | None = None,
        limits: Sequence[RateLimit] = (),
        piece_bytes: int = PIECE_BYTES,
        is_keeping: bool = False,
        written: Callable[[str], object] | None = None,
    ) -> None:
        self._store = store
        self._patience = patience
        self._meter = meter or Meter()
        self._limits = tuple(limits)
        self._piece_bytes = piece_bytes
        self._is_keeping = is_keeping
        self._counted: Callable[[int], object] | None = None
        self._written = written
        self._kept: dict[str, bytes] = {}

    @property
    def has_create_only(self) -> bool:
        """What the store behind says."""
        return self._store.has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes from `start`, `length` of them, or fewer where it really ends before.

        Raises:
            ObjectNotFound, LocationUnavailable, PermissionDenied: as the store behind.
        """
        if length is not None:
            return self._read_range(key, start, length)
        kept = self._kept.get(key)
        if kept is None:
            size = self.size(key)
            if size is None:
                return self._store.read(key, start=start)  # which says why there is nothing
            kept = self._read_range(key, 0, size)
            if self._is_keeping and len(kept) <= _SMALL_OBJECT_BYTES and not key.endswith(".pack"):
                self._kept[key] = kept
        return kept[start:]

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        """Write to the store behind, again where that failed: the same bytes under the same key do no harm.

        Raises:
            StorageFull, LocationUnavailable, PermissionDenied: as the store behind.
        """
        is_stored = self._patience.call(lambda: self._store.write(key, data, create_only=create_only))
        self.tell(key)
        return is_stored

    @property
    def bytes_per_second(self) -> float | None:
        """The rate that is kept to; None where there is no limit."""
        return min((limit.bytes_per_second for limit in self._limits), default=None)

    def on_count(self, counted: Callable[[int], object]) -> None:
        """Call this with the bytes of each answer from now on, from any thread."""
        self._counted = counted

    def tell(self, key: str) -> None:
        """Tell that an object was stored, by this or by somebody else for the same copy."""
        if self._written is not None:
            self._written(key)

    def telling(self, written: Callable[[str], object]) -> PatientStore:
        """The same store, which tells each key that is stored from now on."""
        return PatientStore(
            self._store,
            patience=self._patience,
            meter=self._meter,
            limits=self._limits,
            piece_bytes=self._piece_bytes,
            written=written,
        )

    def size(self, key: str) -> int | None:
        """Ask the store behind."""
        return self._patience.call(lambda: self._store.size(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the store behind, from its beginning again where that failed."""
        yield from self._patience.call(lambda: list(self._store.list(prefix)))

    def delete(self, key: str) -> None:
        """Delete from the store behind."""
        self._patience.call(lambda: self._store.delete(key))

    def _read_range(self, key: str, start: int, length: int) -> bytes:
        pieces: list[bytes] = []
        position, end = start, start + length
        failures = 0
        while position < end:
            wanted = min(self._piece_bytes, end - position)
            piece = self._patience.call(
                lambda position=position, wanted=wanted: self._store.read(key, start=position, length=wanted)
            )
            self.count(len(piece))
            pieces.append(piece)
            position += len(piece)
            if len(piece) == wanted:
                failures = 0
                continue
            # Either the object ends here, or the answer was cut: then the rest is asked for, and only the rest.
            if position >= (self.size(key) or 0):
                break
            failures += 1
            if failures >= self._patience.tries:
                raise LocationUnavailable("The store cuts its answers short.", hint="It is tried again.", key=key)
            self._patience.wait(failures)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def count(self, n_bytes: int) -> None:
        """Meter bytes that were read here, or elsewhere for the same copy, and wait until so many may have moved."""
        self._meter.add(n_bytes)
        if self._counted is not None:
            self._counted(n_bytes)
        for limit in self._limits:
            limit.take(n_bytes)


class BytesInFlight:
    """Bounds what all copies of one worker hold in memory together: who would exceed it waits for others to end."""

    def __init__(self, limit_bytes: int = IN_FLIGHT_BYTES) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, n_bytes: int) -> Generator[None]:
        """Hold so many bytes for as long as the block runs; more than the limit counts as the limit."""
        n_bytes = min(n_bytes, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._held + n_bytes <= self._limit)
            self._held += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._held -= n_bytes
                self._changed.notify_all()


class PackEngine(Protocol):
    """Brings packs elsewhere than in this process."""

    def bring(
        self, source: StoreAddress, destination: StoreAddress, domain: DedupDomain, pieces: Iterator[PackPiece]
    ) -> Iterator[BroughtPack]:
        """Bring packs, and give each when it has arrived; what was given is there for good, whatever comes after."""
        ...


class Transfers:
    """How one worker process copies: what all of its copies share, and with what engine they are made."""

    def __init__(
        self,
        *,
        patience: Patience | None = None,
        in_flight: BytesInFlight | None = None,
        pack_bytes: int = PACK_TARGET_BYTES,
        piece_bytes: int = PIECE_BYTES,
        threads: int = THREADS,
        engine: PackEngine | None = None,
    ) -> None:
        self.bandwidth = Bandwidth()
        self._patience = patience or Patience()
        self._in_flight = in_flight or BytesInFlight()
        self._pack_bytes = pack_bytes
        self._threads = threads
        self._engine = engine
        self._piece_bytes = piece_bytes

    def reading(self, store: ObjectStore, meter: Meter, limits: Sequence[RateLimit]) -> PatientStore:
        """A source, for one copy."""
        # Where it goes slowly, in pieces of a second or so: then it goes evenly, and can be watched.
        slowest = min((int(limit.bytes_per_second) for limit in limits), default=self._piece_bytes)
        return PatientStore(
            store,
            patience=self._patience,
            meter=meter,
            limits=limits,
            piece_bytes=min(self._piece_bytes, max(slowest, _SMALLEST_PIECE_BYTES)),
            is_keeping=True,
        )

    def writing(self, store: ObjectStore) -> PatientStore:
        """A destination, for one copy."""
        return PatientStore(store, patience=self._patience)

    def plan(
        self,
        source: PatientStore,
        destination: ObjectStore,
        domain: DedupDomain,
        digest: Digest,
        *,
        reader: ArtifactReader,
        known_blocks: KnownBlocks,
    ) -> CopyPlan:
        """Work out what a copy has to move, of an artifact that is open at the source, and in what packs."""
        plan = plan_copy(
            source,
            destination,
            domain,
            digest,
            known_blocks,
            reader=reader,
            pack_bytes=self._pack_bytes,
            threads=self._threads,
        )
        return with_bounded_loss(plan, self.threads_for(source))

    def copy(
        self,
        source: PatientStore,
        destination: PatientStore,
        domain: DedupDomain,
        digest: Digest,
        *,
        plan: CopyPlan,
        progress: Progress,
        addresses: tuple[StoreAddress, StoreAddress],
    ) -> CopyReport:
        """Make a copy that was just planned, once there is room in memory for what it has in flight.

        An engine other than this process opens the stores by their `addresses`; it has no keys, so it is not asked
        for what is encrypted.
        """
        progress = _by_the_byte(source, progress, plan.bytes)
        threads = min(self.threads_for(source), plan.at_once)
        if self._engine is not None and domain.key_id == PLAIN_KEY_ID:
            plan = _bring(self._engine, source, destination, domain, plan=plan, progress=progress, addresses=addresses)
        with self._in_flight.hold(min(plan.bytes, 2 * threads * plan.pack_bytes)):
            brought = bring_packs(source, destination, domain, plan, threads)
            plan = _after(plan, brought, progress)
            return copy_artifact(source, destination, domain, digest, progress=progress, plan=plan, threads=threads)

    def threads_for(self, source: PatientStore) -> int:
        """How many packs are under way at once: as many as arrive within some seconds at the source's rate."""
        rate = source.bytes_per_second
        if rate is None:
            return self._threads
        return max(1, min(self._threads, int(rate * _UNDER_WAY_SECONDS / self._pack_bytes)))


def _by_the_byte(source: PatientStore, progress: Progress, total: int) -> Progress:
    """Progress that also moves with every answer of the source, and not only with every pack that has arrived."""
    guard = threading.Lock()
    arrived = told = 0

    def tell(n_arrived: int, n_told: int) -> None:
        nonlocal arrived, told
        with guard:
            arrived, told = arrived + n_arrived, max(told, n_told)
            done = max(min(arrived, total), told)
        progress(done, total)

    source.on_count(lambda n_bytes: tell(n_bytes, 0))
    return lambda done, _total: tell(0, done)


def _bring(
    engine: PackEngine,
    source: PatientStore,
    destination: PatientStore,
    domain: DedupDomain,
    *,
    plan: CopyPlan,
    progress: Progress,
    addresses: tuple[StoreAddress, StoreAddress],
) -> CopyPlan:
    """Have the packs of a plan brought by an engine; what of the plan is left to do here."""

    def bring() -> Iterator[BroughtPack]:
        for pack in engine.bring(*addresses, domain, pieces_of(plan)):
            source.count(pack.read_bytes)
            for name in {block.pack for block in pack.blocks}:
                destination.tell(domain.pack_key(name))
            yield pack

    return _after(plan, bring(), progress)


def _after(plan: CopyPlan, packs: Iterator[BroughtPack], progress: Progress) -> CopyPlan:
    """What of a plan is left to do when these packs have arrived."""
    brought: dict[Digest, StoredBlock] = {}
    done = 0
    for pack in packs:
        brought.update((block.digest, block) for block in pack.blocks)
        done += pack.size_bytes
        progress(min(done, plan.bytes), plan.bytes)
    return replace(plan, known={**brought, **plan.known}, whole_packs={}, moved={}, loose=())
