"""Upkeep: passes over all that one location holds, asked for by a person or by the calendar, done by its region.

A pass is a row (who asked, what was found) and a piece of work: one for each task and location at a time, so that two
passes of one task never meet. What is asked for while one runs waits for its turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.errors import FairleadError, JsonValue, LeaseLost, UpkeepNotFound
from fairlead.registry import audit, work
from fairlead.registry.identity import Caller, system_caller
from fairlead.registry.limits import parse_row_id
from fairlead.registry.location_returns import is_there
from fairlead.registry.locations import Location, all_locations, find_location, get_location
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.tables import LocationRow
from fairlead.registry.tables_bytes import ScrubRow

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.work import LeasedWork

UPKEEP = "upkeep"
"""The work of passing over a location; its subject is `{task}/{location id}`."""

FINDINGS_MAX = 1000
"""How many findings a pass keeps; its outcome counts them all."""

Task = Literal["scrub", "collect", "rebuild-index"]
UpkeepState = Literal["WAITING", "RUNNING", "DONE", "FAILED"]
JsonObject = dict[str, JsonValue]

_SCHEDULE = "schedule"
_ATTEMPTS = 4
_TELL_SECONDS = 1.0
_KEPT = timedelta(days=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """One pass over a location. Counts are of objects and bytes looked at; each finding names an object and a code."""

    id: str
    task: Task
    location: Location
    scope: Mapping[str, JsonValue]
    state: UpkeepState
    checked_objects: int
    checked_bytes: int
    outcome: Mapping[str, JsonValue]
    findings: Sequence[Mapping[str, JsonValue]]
    requested_by: str
    requested_at: datetime
    finished_at: datetime | None


@dataclass(slots=True, kw_only=True)
class Pass:
    """A pass that runs: where, what was asked for, and how to say how far it is.

    `tell` is called with (objects, bytes) looked at so far, as often as one likes; it raises `LeaseLost` once another
    worker has taken over.
    """

    leased: LeasedWork
    location: Location
    scope: Mapping[str, JsonValue]
    tell: Callable[[int, int], None]

    @property
    def is_dry_run(self) -> bool:
        """Whether nothing may be changed."""
        return self.scope.get("is_dry_run") is True


@dataclass(slots=True, kw_only=True)
class Report:
    """What a pass found: counts by name, and findings, of which the first are kept."""

    objects: int = 0
    size_bytes: int = 0
    outcome: JsonObject = field(default_factory=dict[str, JsonValue])
    findings: list[JsonObject] = field(default_factory=list[JsonObject])

    def count(self, name: str, number: int = 1) -> None:
        """Add to a count of the outcome."""
        self.outcome[name] = cast("int", self.outcome.get(name, 0)) + number

    def find(self, code: str, key: str, **facts: JsonValue) -> None:
        """Say something of an object."""
        self.count("findings")
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append({"code": code, "object": key, **facts})


TaskRunner = Callable[[Pass], Report]
"""Does one pass. What it changes it does under the lease, in steps that may be repeated."""


class Upkeeps:
    """Asks for passes and shows them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def request(
        self, caller: Caller, task: Task, *, location: str | None = None, scope: Mapping[str, JsonValue] | None = None
    ) -> list[Upkeep]:
        """Ask for a pass over a location, or over every storage location of the workspace.

        Asking again for what waits already gives the same pass.

        Raises:
            LocationNotFound: if the workspace has none of this name.
        """
        with self._database.write() as session:
            if location is None:
                places = [each for each in all_locations(session, caller.workspace_id) if each.kind == "storage"]
            else:
                places = [find_location(session, caller.workspace_id, location)]
            return [self._request(session, caller, task, place, scope or {}) for place in places]

    def get(self, caller: Caller, upkeep_id: str) -> Upkeep:
        """One pass.

        Raises:
            UpkeepNotFound: if the workspace has none of this id.
        """
        with self._database.read() as session:
            identity = (caller.workspace_id, parse_row_id(upkeep_id, UpkeepNotFound, what="pass"))
            row = session.get(ScrubRow, identity)
            if row is None:
                raise UpkeepNotFound(f"There is no pass {upkeep_id!r}.", hint="See: fairlead store passes")
            return _to_upkeep(row, get_location(session, caller.workspace_id, row.location_id))

    def list(self, caller: Caller, page: PageRequest) -> Page[Upkeep]:
        """The workspace's passes, newest first."""
        query = select(ScrubRow).where(ScrubRow.workspace_id == caller.workspace_id)
        with self._database.read() as session:
            listing = ("upkeep", caller.workspace_id)
            found = page.fetch(session, query, [ScrubRow.id], listing=listing, descending=True)
            return found.map(lambda row: _to_upkeep(row, get_location(session, row.workspace_id, row.location_id)))

    def _request(
        self, session: Session, caller: Caller, task: Task, place: Location, scope: Mapping[str, JsonValue]
    ) -> Upkeep:
        now = self._clock.now()
        if (waiting := _find_waiting(session, caller, task, place, scope)) is not None:
            _require(session, waiting, place.region, work.USUAL, now)
            return _to_upkeep(waiting, place)
        row = _insert(
            session,
            caller.workspace_id,
            task,
            location_id=place.id,
            scope=scope,
            requested_by=caller.principal,
            now=now,
        )
        _require(session, row, place.region, work.USUAL, now)
        facts: JsonObject = {"location": place.name, "region": place.region, "scope": dict(scope)}
        audit.record(session, caller, self._clock, action=f"store.{task}", subject=row.id, facts=facts)
        return _to_upkeep(row, place)


class UpkeepWork:
    """The handler of `upkeep`."""

    def __init__(self, database: Database, clock: Clock, *, tasks: Mapping[Task, TaskRunner]) -> None:
        self._database = database
        self._clock = clock
        self._tasks = dict(tasks)

    def __call__(self, leased: LeasedWork) -> None:
        """Do the oldest pass of a task over a location that is not done.

        Raises:
            LeaseLost: if another worker took over.
            FairleadError: whatever kept the location from being read; after some attempts the pass is FAILED instead.
        """
        task, _, location_id = leased.subject.partition("/")
        with self._database.write() as session:
            work.check_lease(session, leased)
            row = _oldest_open(session, leased.workspace_id, task, location_id)
            if row is None:
                work.finish(session, leased)
                return
            location = get_location(session, leased.workspace_id, location_id)
            if not is_there(session, session.get_one(LocationRow, (leased.workspace_id, location_id))):
                # What lies at the place is another location's by now, or nobody's.
                row.state, row.finished_at = "FAILED", self._clock.now()
                work.finish(session, leased)
                return
            row.state = "RUNNING"
        running = Pass(leased=leased, location=location, scope=row.scope, tell=self._teller(leased, row.id))
        try:
            report = self._tasks[cast("Task", task)](running)
        except LeaseLost:
            raise
        except FairleadError as error:
            if leased.attempt < _ATTEMPTS:
                raise
            report = Report(outcome={"error": {"code": error.code, "detail": error.detail, "hint": error.hint}})
            self._record(leased, row.id, "FAILED", report)
        else:
            self._record(leased, row.id, "DONE", report)

    def _record(self, leased: LeasedWork, row_id: str, state: UpkeepState, report: Report) -> None:
        with self._database.write() as session:
            row = session.get_one(ScrubRow, (leased.workspace_id, row_id), with_for_update=True)
            row.state = state
            row.outcome = report.outcome
            row.findings = cast("list[Any]", report.findings)
            row.checked_objects, row.checked_bytes = report.objects, report.size_bytes
            row.finished_at = self._clock.now()
            facts: JsonObject = {"task": row.task, "state": state, **report.outcome}
            caller = system_caller(leased.workspace_id, "worker")
            audit.record(session, caller, self._clock, action="store.pass", subject=row_id, facts=facts)
            work.finish(session, leased)
            session.flush()
            if (waiting := _oldest_open(session, row.workspace_id, row.task, row.location_id)) is not None:
                _require(session, waiting, leased.region, leased.priority, self._clock.now())

    def _teller(self, leased: LeasedWork, row_id: str) -> Callable[[int, int], None]:
        due = time.monotonic() + _TELL_SECONDS

        def tell(objects: int, size_bytes: int) -> None:
            nonlocal due
            if time.monotonic() < due:
                return
            due = time.monotonic() + _TELL_SECONDS
            with self._database.write() as session:
                work.check_lease(session, leased)
                row = session.get_one(ScrubRow, (leased.workspace_id, row_id))
                row.checked_objects, row.checked_bytes = objects, size_bytes

        return tell


def derive_upkeep(session: Session, now: datetime) -> None:
    """Require the work of every pass that is not done."""
    query = (
        select(ScrubRow, LocationRow.region)
        .join(
            LocationRow, (LocationRow.workspace_id == ScrubRow.workspace_id) & (LocationRow.id == ScrubRow.location_id)
        )
        .where(ScrubRow.state.in_(("WAITING", "RUNNING")))
    )
    for row, region in session.execute(query).all():
        _require(session, row, region, work.USUAL * 2 if row.requested_by == _SCHEDULE else work.USUAL, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How often locations are passed over by themselves; `scrub_days`: within how many days all of it is read."""

    scrub_days: int = 30
    collect_every: timedelta = timedelta(hours=6)

    def __call__(self, session: Session, now: datetime) -> None:
        """The deriver of scheduled passes: a slice of each location a day, and a collection now and then.

        A slice that failed, or that a worker's absence put off, is the next one to be read: none is left out.
        """
        places = select(LocationRow).where(LocationRow.kind == "storage")
        # Locked, so that of two workers that look at once, one asks.
        for location in session.scalars(places.with_for_update(skip_locked=True)).all():
            if not is_there(session, location):
                continue
            last = _last_scheduled(session, location, "collect")
            if _is_due(last, location.created_at, self.collect_every, now):
                _schedule(session, location, "collect", {}, now)
            last = _last_scheduled(session, location, "scrub")
            if location.state != "RETIRED" and _is_due(last, location.created_at, timedelta(days=1), now):
                _schedule(session, location, "scrub", {"slice": self._next_slice(last), "of": self.scrub_days}, now)
        over = select(ScrubRow).where(ScrubRow.finished_at < now - _KEPT)
        for row in session.scalars(over).all():
            session.delete(row)

    def _next_slice(self, last: ScrubRow | None) -> int:
        if last is None or last.scope.get("of") != self.scrub_days:
            return 1
        number = int(last.scope["slice"])
        return number if last.state == "FAILED" else number % self.scrub_days + 1


def _is_due(last: ScrubRow | None, since: datetime, every: timedelta, now: datetime) -> bool:
    if last is None:
        return since + every <= now
    return last.finished_at is not None and last.requested_at + every <= now


def _last_scheduled(session: Session, location: LocationRow, task: Task) -> ScrubRow | None:
    query = select(ScrubRow).where(
        ScrubRow.workspace_id == location.workspace_id,
        ScrubRow.location_id == location.id,
        ScrubRow.task == task,
        ScrubRow.requested_by == _SCHEDULE,
    )
    return session.scalars(query.order_by(ScrubRow.id.desc()).limit(1)).first()


def _schedule(
    session: Session, location: LocationRow, task: Task, scope: Mapping[str, JsonValue], now: datetime
) -> None:
    _insert(
        session,
        location.workspace_id,
        task,
        location_id=location.id,
        scope=scope,
        requested_by=_SCHEDULE,
        now=now,
    )


def _insert(
    session: Session,
    workspace_id: str,
    task: Task,
    *,
    location_id: str,
    scope: Mapping[str, JsonValue],
    requested_by: str,
    now: datetime,
) -> ScrubRow:
    row = ScrubRow(
        workspace_id=workspace_id,
        location_id=location_id,
        task=task,
        scope=dict(scope),
        state="WAITING",
        requested_by=requested_by,
        requested_at=now,
    )
    session.add(row)
    session.flush()
    return row


def _require(session: Session, row: ScrubRow, region: str, priority: int, now: datetime) -> None:
    work.require_work(
        session,
        workspace_id=row.workspace_id,
        residency="unrestricted",
        kind=UPKEEP,
        subject=f"{row.task}/{row.location_id}",
        region=region,
        priority=priority,
        now=now,
    )


def _find_waiting(
    session: Session, caller: Caller, task: Task, place: Location, scope: Mapping[str, JsonValue]
) -> ScrubRow | None:
    """The same pass, asked for by the same caller, that nobody has begun."""
    query = select(ScrubRow).where(
        ScrubRow.workspace_id == caller.workspace_id,
        ScrubRow.location_id == place.id,
        ScrubRow.task == task,
        ScrubRow.state == "WAITING",
        ScrubRow.requested_by == caller.principal,
    )
    return next((row for row in session.scalars(query) if row.scope == dict(scope)), None)


def _oldest_open(session: Session, workspace_id: str, task: str, location_id: str) -> ScrubRow | None:
    query = select(ScrubRow).where(
        ScrubRow.workspace_id == workspace_id,
        ScrubRow.location_id == location_id,
        ScrubRow.task == task,
        ScrubRow.state.in_(("WAITING", "RUNNING")),
    )
    return session.scalars(query.order_by(ScrubRow.id).limit(1).with_for_update()).first()


def _to_upkeep(row: ScrubRow, location: Location) -> Upkeep:
    return Upkeep(
        id=row.id,
        task=cast("Task", row.task),
        location=location,
        scope=row.scope,
        state=cast("UpkeepState", row.state),
        checked_objects=row.checked_objects,
        checked_bytes=row.checked_bytes,
        outcome=row.outcome,
        findings=row.findings,
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        finished_at=row.finished_at,
    )
