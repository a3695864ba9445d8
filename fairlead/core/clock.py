"""Time, as something that is passed in. All times are aware and in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from fairlead.core.errors import InvalidInput


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present, in UTC, to the microsecond."""
        return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """RFC 3339 with microseconds and `Z`: fixed width, so that text order is time order.

    Raises:
        InvalidInput: if the time is naive: nobody knows what it means.
    """
    if moment.tzinfo is None:
        raise InvalidInput(f"The time {moment.isoformat()} names no time zone.", hint="Use an aware time, in UTC.")
    # strftime("%Y") would not pad the year.
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time.

    Raises:
        InvalidInput: if it is not one, or names no offset from UTC.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{text[:60]!r} is not a time.", hint="Write it like 2026-03-01T12:00:00Z.") from None
    if moment.tzinfo is None:
        raise InvalidInput(f"{text[:60]!r} names no time zone.", hint="End it with Z for UTC.")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"{text[:60]!r} is beyond the years 1 to 9999 in UTC.") from None
