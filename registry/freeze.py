"""Freeze windows: times at which nothing is promoted. Pure: a window and a moment in, whether it is frozen out.

A window is either an interval (`from`, `until`) or recurs: a cron schedule of five fields says when it begins, and a
duration how long it lasts. Both are read in the window's time zone, so that Friday evening is Friday evening also when
the clocks change.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from fairlead.core.clock import format_time
from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.registry.gates import parse_duration

DURATION_MAX = timedelta(days=31)
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_SUNDAY = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """A window, with its reason. Either `begins` and `ends` (local times) are set, or `schedule` and `duration`."""

    name: str
    reason: str
    timezone: str = "UTC"
    begins: str | None = None
    ends: str | None = None
    schedule: str | None = None
    duration: str | None = None


def frozen_until(freeze: Freeze, now: datetime) -> datetime | None:
    """When the window that holds `now` ends; None where none does."""
    zone = zoneinfo.ZoneInfo(freeze.timezone)
    if freeze.schedule is None:
        begins, ends = _local(freeze.begins or "", zone), _local(freeze.ends or "", zone)
        return ends if begins <= now < ends else None
    lasts = parse_duration(freeze.duration or "")
    began = _last_start(_parse_schedule(freeze.schedule), now, now - lasts, zone)
    return None if began is None else began + lasts


def check_freeze(freeze: Freeze) -> None:
    """Refuse a window that cannot be read.

    Raises:
        InvalidInput: naming the window and what is wrong.
    """
    what = f"The freeze {freeze.name!r}"
    try:
        zone = zoneinfo.ZoneInfo(freeze.timezone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise InvalidInput(
            f"{what} is in the time zone {freeze.timezone[:40]!r}, which does not exist.", hint="Write Europe/Berlin."
        ) from None
    if not freeze.reason.strip():
        raise InvalidInput(f"{what} says no reason.", hint="Say why nothing is promoted then: reason: ...")
    is_interval, recurs = freeze.begins is not None, freeze.schedule is not None
    is_whole = (freeze.ends is not None) if is_interval else (freeze.duration is not None)
    is_mixed = freeze.duration is not None if is_interval else freeze.ends is not None
    if is_interval == recurs or not is_whole or is_mixed:
        raise InvalidInput(
            f"{what} is neither an interval nor a schedule.", hint="Give from and until, or schedule and duration."
        )
    try:
        _check_times(freeze, zone)
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error.detail}", hint=error.hint) from None


def freeze_to_json(freeze: Freeze) -> dict[str, JsonValue]:
    """A window as the record keeps it."""
    when: dict[str, JsonValue] = (
        {"from": freeze.begins, "until": freeze.ends}
        if freeze.schedule is None
        else {"schedule": freeze.schedule, "duration": freeze.duration}
    )
    return {"name": freeze.name, "reason": freeze.reason, "timezone": freeze.timezone, **when}


def freeze_from_json(members: Mapping[str, object]) -> Freeze:
    """Read a window from the record."""
    optional = {
        ours: cast("str | None", members.get(theirs))
        for ours, theirs in {"begins": "from", "ends": "until", "schedule": "schedule", "duration": "duration"}.items()
    }
    return Freeze(
        name=str(members["name"]),
        reason=str(members["reason"]),
        timezone=str(members.get("timezone") or "UTC"),
        **optional,
    )


def until_text(until: datetime) -> str:
    """The end of a window, to the second."""
    return format_time(until).partition(".")[0] + "Z"


def _check_times(freeze: Freeze, zone: zoneinfo.ZoneInfo) -> None:
    if freeze.schedule is None:
        if _local(freeze.begins or "", zone) >= _local(freeze.ends or "", zone):
            raise InvalidInput("It ends before it begins.")
        return
    _parse_schedule(freeze.schedule)
    if not timedelta(0) < parse_duration(freeze.duration or "") <= DURATION_MAX:
        raise InvalidInput("It lasts for longer than 31 days, or for no time.")


def _local(text: str, zone: zoneinfo.ZoneInfo) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return (moment.replace(tzinfo=zone) if moment.tzinfo is None else moment).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{text[:40]!r} is no time.", hint="Write it like 2026-12-20T18:00.") from None


_Schedule = tuple[frozenset[int], ...]


def _parse_schedule(text: str) -> _Schedule:
    fields = text.split()
    if len(fields) != len(_FIELDS) or len(text) > 200:
        raise InvalidInput(
            f"{text[:40]!r} is no schedule.", hint="Give minute, hour, day, month and weekday: '0 18 * * 5'."
        )
    parsed = [_parse_field(part, *rule) for part, rule in zip(fields, _FIELDS, strict=True)]
    weekdays = {day % _SUNDAY for day in parsed[4]}
    return (*parsed[:4], frozenset(weekdays), frozenset({fields[2] != "*", 2 + (fields[4] != "*")}))


def _parse_field(text: str, name: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step_text = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            step = int(step_text) if step_text else 1
            if span == "*":
                begin, end = low, high
            else:
                begin = int(first)
                end = int(last) if dash else (high if step_text else begin)
        except ValueError:
            step, begin, end = 0, low, high
        if step < 1 or not low <= begin <= end <= high or not part.isascii():
            raise InvalidInput(f"{part[:20]!r} is no {name}.", hint=f"A {name} is a number from {low} to {high}, or *.")
        found.update(range(begin, end + 1, step))
    return frozenset(found)


def _last_start(schedule: _Schedule, now: datetime, after: datetime, zone: zoneinfo.ZoneInfo) -> datetime | None:
    minutes, hours = (sorted(field, reverse=True) for field in schedule[:2])
    day = now.astimezone(zone).date()
    first = after.astimezone(zone).date()
    while day >= first:
        if _is_day(schedule, day.day, day.month, day.isoweekday() % _SUNDAY):
            for hour in hours:
                for minute in minutes:
                    start = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).astimezone(UTC)
                    if after < start <= now:
                        return start
        day -= timedelta(days=1)
    return None


def _is_day(schedule: _Schedule, day: int, month: int, weekday: int) -> bool:
    # As in cron: where both the day and the weekday are named, one of them is enough.
    _, _, days, months, weekdays, named = schedule
    if month not in months:
        return False
    in_days, in_weekdays = day in days, weekday in weekdays
    if 1 in named and 3 in named:
        return in_days or in_weekdays
    return in_days and in_weekdays
