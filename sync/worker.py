"""The worker: derives what should be true, leases the difference, and makes it true, until it is told to stop.

Threads take work by `lease`, each for the kinds of its lane, so that what hangs in one lane holds up no other; one more
thread runs the derivers every second, and one renews the leases that are held, so that a long copy is not presumed
dead. Handlers do their I/O outside transactions and record their result together with `finish`, in one. A handler that
raises gives its work back with a back-off; a worker that dies leaves leases that expire. Any number of workers may run,
in any number of processes.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fairlead.core.errors import FairleadError, LeaseLost
from fairlead.core.ids import new_row_id
from fairlead.registry import work
from fairlead.registry.work import LeasedWork

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.sync.transfer import Meter

Handler = Callable[[LeasedWork], None]
"""Makes one piece of work true, and calls `work.finish` in the transaction that records it."""

Deriver = Callable[["Session", datetime], None]
"""Requires the work that the desired state lacks. Runs every second in a transaction of its own: cheap, repeatable."""


@runtime_checkable
class PreparedDeriver(Protocol):
    """A deriver that has to read stores, or think for long, before it writes; that is done outside of transactions."""

    def prepare(self, now: datetime) -> None:
        """Get ready for the call that follows at once."""
        ...

    def __call__(self, session: Session, now: datetime) -> None:
        """Require the work that the desired state lacks."""
        ...


LEASE_TTL = timedelta(seconds=30)
_DERIVE_SECONDS = 1.0
_DERIVE_PAUSE_SECONDS = 0.05
_POLL_SECONDS = 10.0
_PROGRESS_SECONDS = 0.5
_SPEED_SECONDS = 10.0
_log = logging.getLogger(__name__)


def progress_reporter(
    database: Database, leased: LeasedWork, *, phase: str | None = None, meter: Meter | None = None
) -> Callable[[int, int], None]:
    """What a handler calls with (bytes done, bytes in all) as often as it likes; told to the record twice a second.

    With it goes the speed of the last seconds, and what the meter counted meanwhile. The call raises `LeaseLost` once
    another worker has taken over, which ends the handler early.
    """
    due = time.monotonic()
    seen: deque[tuple[float, int]] = deque()
    guard = threading.Lock()

    def report(done: int, total: int) -> None:
        nonlocal due
        now = time.monotonic()
        with guard:
            if now < due:
                return
            due = now + _PROGRESS_SECONDS
            seen.append((now, done))
            while now - seen[0][0] > _SPEED_SECONDS and len(seen) > 2:
                seen.popleft()
            (since, before), moved = seen[0], 0 if meter is None else meter.take_untold()
        speed = None if now == since else round((done - before) / (now - since))
        try:
            work.report_progress(database, leased, done, total, phase=phase, bytes_per_second=speed, moved_bytes=moved)
        except BaseException:
            if meter is not None:
                meter.give_back(moved)
            raise

    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Threads that do some kinds of work and no other: a hung handler holds up its own lane alone."""

    name: str
    kinds: frozenset[str]
    threads: int


def throttled(deriver: Deriver, span: timedelta) -> Deriver:
    """A deriver that runs at most once in a time span, for one that looks at much and finds little."""
    due: datetime | None = None

    def derive(session: Session, now: datetime) -> None:
        nonlocal due
        if due is None or now >= due:
            deriver(session, now)
            due = now + span

    return derive


class Worker:
    """Runs handlers for the work of some regions (None: of all) until `stop`.

    Kinds of work that no lane names are done by `threads` threads of their own.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        regions: Collection[str] | None,
        handlers: Mapping[str, Handler],
        derivers: Sequence[Deriver],
        threads: int = 2,
        lanes: Sequence[Lane] = (),
        lease_ttl: timedelta = LEASE_TTL,
    ) -> None:
        self._database = database
        self._clock = clock
        self._regions = None if regions is None else frozenset(regions)
        self._handlers = dict(handlers)
        self._derivers = tuple(derivers)
        named = frozenset[str]().union(*(lane.kinds for lane in lanes))
        rest = Lane(name="work", kinds=frozenset(handlers) - named, threads=threads)
        self._lanes = tuple(lane for lane in (*lanes, rest) if lane.kinds)
        self._lease_ttl = lease_ttl
        self.holder = f"{socket.gethostname()}/{os.getpid()}/{new_row_id()}"
        self._held: dict[str, LeasedWork] = {}
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._derive_now = threading.Event()
        self._work_now = threading.Condition()
        self._calls = 0
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads; returns at once."""
        if self._threads:
            return
        self._stopping.clear()
        loops: list[tuple[str, Callable[[], None]]] = [("derive", self._derive_loop), ("renew", self._renew_loop)]
        loops += [
            (f"{lane.name}-{number}", partial(self._work_loop, lane.kinds))
            for lane in self._lanes
            for number in range(lane.threads)
        ]
        self._threads = [threading.Thread(target=loop, name=f"fairlead-{name}", daemon=True) for name, loop in loops]
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_seconds: float = 30.0) -> bool:
        """Take no more work and wait for what is running; False if some still ran when the time was up.

        What still runs then keeps its lease until it ends or the process does, so another worker takes over no sooner
        than is safe. A stopped worker may be started again.
        """
        self._stopping.set()
        self.wake()
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        is_done = not any(thread.is_alive() for thread in self._threads)
        if is_done:
            self._threads = []
        return is_done

    def wake(self) -> None:
        """Look for work now instead of within a second, because the desired state has just changed."""
        self._derive_now.set()
        self._call_threads()

    @property
    def is_busy(self) -> bool:
        """Whether a handler is running."""
        with self._guard:
            return bool(self._held)

    def run_until_idle(self, timeout_seconds: float = 60.0) -> int:
        """Derive and do all work that is due, in this thread; returns how many pieces were tried.

        Work that failed waits for its back-off and is not waited for. For tests and one-shot commands.
        """
        deadline = time.monotonic() + timeout_seconds
        tried = 0
        while True:
            self.derive()
            before = tried
            while self._run_one(self._handlers.keys()):
                tried += 1
                if time.monotonic() > deadline:
                    return tried
            if tried == before:
                return tried

    def derive(self) -> None:
        """Run every deriver once; one that fails does not keep the others from running."""
        for deriver in self._derivers:
            try:
                if isinstance(deriver, PreparedDeriver):
                    deriver.prepare(self._clock.now())
                with self._database.write() as session:
                    deriver(session, self._clock.now())
            except Exception:  # noqa: BLE001  (the loop of a worker)
                _log.exception("a deriver failed and is tried again")

    def _run_one(self, kinds: Collection[str]) -> bool:
        leased = work.lease(
            self._database,
            self._clock,
            kinds=kinds,
            regions=self._regions,
            holder=self.holder,
            ttl=self._lease_ttl,
        )
        if leased is None:
            return False
        with self._guard:
            self._held[leased.id] = leased
        try:
            self._handlers[leased.kind](leased)
        except LeaseLost:
            _log.info("lost the lease of %s; another worker records it", leased)
        except Exception as error:  # noqa: BLE001  (the loop of a worker)
            self._give_back(leased, error)
        finally:
            with self._guard:
                self._held.pop(leased.id, None)
        return True

    def _give_back(self, leased: LeasedWork, error: Exception) -> None:
        if isinstance(error, FairleadError):
            _log.warning("%s failed (attempt %d): %s", leased, leased.attempt, error)
        else:
            _log.error("%s failed (attempt %d)", leased, leased.attempt, exc_info=error)
        try:
            work.fail(self._database, self._clock, leased, error, None)
        except FairleadError as second:
            # The lease then expires by itself.
            _log.warning("could not give back %s: %s", leased, second)

    def _work_loop(self, kinds: Collection[str]) -> None:
        while not self._stopping.is_set():
            with self._work_now:
                calls = self._calls
            try:
                if self._run_one(kinds):
                    # What was just recorded often makes other work possible: verified bytes can be copied on.
                    self.wake()
                    continue
            except Exception:  # noqa: BLE001  (the loop of a worker)
                _log.exception("could not look for work")
            with self._work_now:
                self._work_now.wait_for(lambda seen=calls: self._calls != seen, _POLL_SECONDS)

    def _derive_loop(self) -> None:
        while not self._stopping.is_set():
            self._derive_now.clear()
            self.derive()
            self._call_threads_if_due()
            # Busy threads wake this loop after every piece of work; it need not look as often as that.
            if not self._stopping.wait(_DERIVE_PAUSE_SECONDS):
                self._derive_now.wait(_DERIVE_SECONDS)

    def _call_threads_if_due(self) -> None:
        # One look for all threads: an idle worker costs next to nothing.
        try:
            is_due = work.is_due(self._database, self._clock, kinds=self._handlers.keys(), regions=self._regions)
        except Exception:  # noqa: BLE001  (the loop of a worker)
            _log.exception("could not look for work")
        else:
            if is_due:
                self._call_threads()

    def _call_threads(self) -> None:
        with self._work_now:
            self._calls += 1
            self._work_now.notify_all()

    def _renew_loop(self) -> None:
        # Held leases are renewed also while stopping: what runs is waited for.
        while not self._stopping.wait(self._lease_ttl.total_seconds() / 3) or self.is_busy:
            with self._guard:
                held = list(self._held.values())
            for leased in held:
                try:
                    work.renew(self._database, self._clock, leased, self._lease_ttl)
                except LeaseLost:
                    # It has just finished, or was taken over; then the handler's own `finish` says so.
                    _log.debug("no longer holding %s", leased)
                except FairleadError as error:
                    _log.warning("could not renew %s: %s", leased, error)
            if self._stopping.is_set():
                time.sleep(min(0.05, self._lease_ttl.total_seconds() / 3))
