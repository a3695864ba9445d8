"""The sealed audit log as a stream: events in the order of their sequence, from any place on, narrowed by a filter.

Only sealed events are shown, so what was read once is never preceded by something new: a reader that remembers the last
sequence it saw misses nothing and sees nothing twice. Streams are woken by this process's sealer; what another process
seals is found within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput, Unavailable
from fairlead.registry.audit import AuditEvent, to_event
from fairlead.registry.identity import Caller
from fairlead.registry.limits import parse_text
from fairlead.registry.tables import AuditEventRow

SCANNED_AT_ONCE = 500
STREAMS_PER_CALLER = 20
PATTERNS_MAX = 50
_PATTERN_MAX_LENGTH = 255
_POLL_SECONDS = 1.0
# Their subjects begin with the name of a model.
_OF_MODELS = frozenset({"model", "version", "alias", "promotion", "bundle"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are wanted: any of the patterns of actions (none: all), and patterns of a model and an environment.

    Patterns hold the wild cards `*` and `?`. An event that is of no model, or of no environment, matches `*` alone.
    """

    actions: tuple[str, ...] = ()
    models: str = "*"
    environments: str = "*"

    def matches(self, event: AuditEvent) -> bool:
        """Whether an event is wanted."""
        return (
            (not self.actions or any(fnmatchcase(event.action, pattern) for pattern in self.actions))
            and _is_match(self.models, event_model(event))
            and _is_match(self.environments, event_environment(event))
        )


def parse_event_filter(
    *, actions: Sequence[str] = (), models: str | None = None, environments: str | None = None
) -> EventFilter:
    """Check the patterns of a filter.

    Raises:
        InvalidInput: naming the pattern that is empty or too long.
    """
    if len(actions) > PATTERNS_MAX:
        raise InvalidInput(f"There are more than {PATTERNS_MAX} patterns of actions.", hint="Use wild cards.")
    return EventFilter(
        actions=tuple(_parse_pattern(pattern, "action") for pattern in actions),
        models=_parse_pattern("*" if models is None else models, "model"),
        environments=_parse_pattern("*" if environments is None else environments, "environment"),
    )


def event_model(event: AuditEvent) -> str | None:
    """The name of the model that an event is of, or None."""
    named = event.facts.get("model")
    if isinstance(named, str):
        return named
    if event.action.partition(".")[0] not in _OF_MODELS:
        return None
    return event.subject.partition("/")[0].partition("@")[0]


def event_environment(event: AuditEvent) -> str | None:
    """The environment that an event is of, or None."""
    named = event.facts.get("environment")
    if named is None and event.action in {"model.promote", "model.rollback"}:
        named = event.facts.get("alias")
    if named is None and event.action.startswith("environment."):
        named = event.subject
    return named if isinstance(named, str) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Some events, and up to which sequence the log was looked through; `is_last` says that there was no more."""

    events: tuple[AuditEvent, ...]
    position: int
    is_last: bool


class EventLog:
    """Reads a workspace's sealed events in order."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, caller: Caller, wanted: EventFilter, *, after: int, limit: int = SCANNED_AT_ONCE) -> EventPage:
        """The wanted ones of the next events after a sequence, at most `limit` of them."""
        with self._database.read() as session:
            return read_events(session, caller.workspace_id, wanted, after=after, limit=limit)

    def head(self, workspace_id: str) -> int:
        """The sequence of the newest sealed event; 0 where there is none."""
        with self._database.read() as session:
            return head_of(session, workspace_id)


def read_events(session: Session, workspace_id: str, wanted: EventFilter, *, after: int, limit: int) -> EventPage:
    """As `EventLog.read`, within a session. At most 500 events are looked at."""
    rows = session.scalars(
        select(AuditEventRow)
        .where(AuditEventRow.workspace_id == workspace_id, AuditEventRow.sequence > after)
        .order_by(AuditEventRow.sequence)
        .limit(SCANNED_AT_ONCE)
    ).all()
    found: list[AuditEvent] = []
    position = after
    for row in rows:
        event = to_event(row)
        if wanted.matches(event):
            if len(found) == limit:
                return EventPage(events=tuple(found), position=position, is_last=False)
            found.append(event)
        position = row.sequence or position
    return EventPage(events=tuple(found), position=position, is_last=len(rows) < SCANNED_AT_ONCE)


def head_of(session: Session, workspace_id: str) -> int:
    """The sequence of a workspace's newest sealed event; 0 where there is none."""
    query = select(func.max(AuditEventRow.sequence)).where(AuditEventRow.workspace_id == workspace_id)
    return session.scalar(query) or 0


class Streams:
    """The streams that are open in this process: how many there may be, and what wakes them.

    A stream that waits holds no thread and no connection of the database. `wake` may be called from any thread; all
    else belongs to the event loop.
    """

    def __init__(self, log: EventLog, *, limit: int) -> None:
        self._log = log
        self._limit = limit
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}
        self._open: Counter[tuple[str, str]] = Counter()
        self._heads: dict[str, _Head] = {}
        self.is_closed = False

    @contextlib.contextmanager
    def admit(self, caller: Caller) -> Generator[None]:
        """Count a stream while the block runs.

        Raises:
            Unavailable: if there are as many as there may be, in all or of one caller.
        """
        key = (caller.workspace_id, caller.principal)
        if self._open.total() >= self._limit or self._open[key] >= STREAMS_PER_CALLER:
            raise Unavailable(
                "There are as many event streams as this server holds.",
                hint="Close one, read pages instead, or ask another replica of the API.",
            )
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
            self._open += Counter()

    async def wait(self, workspace_id: str, *, after: int, timeout_seconds: float) -> bool:
        """Wait until there is a sealed event after a sequence; False if the time was up, or the process ends."""
        deadline = time.monotonic() + timeout_seconds
        while not self.is_closed:
            if await self._head(workspace_id) > after:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await self._sleep(min(left, _POLL_SECONDS))
        return False

    def wake(self) -> None:
        """Say that events were sealed: every stream looks at once."""
        for head in list(self._heads.values()):
            head.read_at = 0.0
        for future, loop in list(self._waiting.items()):
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_finish, future)

    def close(self) -> None:
        """End every stream; its reader goes on elsewhere."""
        self.is_closed = True
        self.wake()

    async def _head(self, workspace_id: str) -> int:
        # One look serves all streams of a workspace.
        head = self._heads.setdefault(workspace_id, _Head())
        async with head.lock:
            now = time.monotonic()
            if now - head.read_at >= _POLL_SECONDS / 2:
                head.read_at = now
                head.sequence = await asyncio.to_thread(self._log.head, workspace_id)
        return head.sequence

    async def _sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting[future] = loop
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(future, None)


@dataclass(slots=True)
class _Head:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sequence: int = 0
    read_at: float = 0.0


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _is_match(pattern: str, name: str | None) -> bool:
    return pattern == "*" or (name is not None and fnmatchcase(name, pattern))


def _parse_pattern(text: str, what: str) -> str:
    pattern = parse_text(text, what=f"pattern of the {what}", max_length=_PATTERN_MAX_LENGTH)
    if not pattern or "[" in pattern:
        raise InvalidInput(f"{text[:80]!r} is no pattern of {what}s.", hint="Wild cards are * and ?.")
    return pattern
