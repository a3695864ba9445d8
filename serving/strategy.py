"""How traffic moves from one revision of a deployment to the next, and what ends the move.

Without a strategy a region's new endpoint gets all of its requests as soon as it is ready. With one, old and new run
side by side in every region, and requests are turned to the new one by the stated steps; each is watched for `pause`.

    canary:     {steps: [5, 25, 100], pause: 5m, max_error_rate: 0.01, max_p95_ms: 250}
    blue_green: {pause: 10m, max_error_rate: 0.01}

`blue_green` is a canary of one step, 100: the old revision is kept until the pause is over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from fairlead.core.errors import InvalidInput, JsonValue

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_PAUSE_MAX_SECONDS = 7 * 24 * 3600.0
_STEPS_MAX = 20
_MEMBERS = frozenset({"steps", "pause", "max_error_rate", "max_p95_ms", "min_requests"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """Percentages of traffic in the order in which they are tried, and what ends the move.

    A limit counts once `min_requests` were answered within a step; None: no limit. With fewer requests than that a
    step passes when its pause is over.
    """

    name: str
    steps: tuple[int, ...]
    pause_seconds: float
    max_error_rate: float | None = None
    max_p95_ms: float | None = None
    min_requests: int = 20

    def to_json(self) -> dict[str, JsonValue]:
        """The strategy as it is kept; `strategy_from_json` reads it."""
        body: dict[str, JsonValue] = {"pause": f"{self.pause_seconds:g}s", "min_requests": self.min_requests}
        if self.name == "canary":
            body["steps"] = list(self.steps)
        for name in ("max_error_rate", "max_p95_ms"):
            if getattr(self, name) is not None:
                body[name] = getattr(self, name)
        return {self.name: body}


def strategy_from_json(value: Mapping[str, object] | None) -> Strategy | None:
    """Read a strategy; None is none.

    Raises:
        InvalidInput: naming the member that is wrong in the attribute `pointer`.
    """
    if value is None:
        return None
    name = next(iter(value), "")
    body = value.get(name)
    if len(value) != 1 or name not in {"canary", "blue_green"} or not isinstance(body, Mapping):
        raise _wrong("", "A strategy is one of canary and blue_green, with its members below it.")
    members = cast("Mapping[str, Any]", body)
    unknown = [each for each in members if each not in _MEMBERS or (name == "blue_green" and each == "steps")]
    if unknown:
        raise _wrong(f"{name}/{unknown[0]}", "There is no such member.")
    return Strategy(
        name=name,
        steps=_steps(name, members.get("steps")),
        pause_seconds=_seconds(f"{name}/pause", members.get("pause", "5m")),
        max_error_rate=_number(f"{name}/max_error_rate", members.get("max_error_rate"), 1.0),
        max_p95_ms=_number(f"{name}/max_p95_ms", members.get("max_p95_ms"), 3_600_000.0),
        min_requests=_count(f"{name}/min_requests", members.get("min_requests", 20)),
    )


def _steps(name: str, value: object) -> tuple[int, ...]:
    if name == "blue_green":
        return (100,)
    steps = cast("list[object]", value) if isinstance(value, list) else []
    numbers = [each for each in steps if isinstance(each, int) and not isinstance(each, bool) and 0 < each <= 100]
    is_rising = all(before < after for before, after in pairwise(numbers))
    if len(numbers) != len(steps) or not 0 < len(numbers) <= _STEPS_MAX or not is_rising or numbers[-1] != 100:
        raise _wrong(f"{name}/steps", "The steps are whole percentages that rise to 100, such as [5, 25, 100].")
    return tuple(numbers)


def _seconds(pointer: str, value: object) -> float:
    match = _SPAN.fullmatch(value) if isinstance(value, str) else None
    seconds = None if match is None else float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    if seconds is None or not 0 <= seconds <= _PAUSE_MAX_SECONDS:
        raise _wrong(pointer, "It is a time of at most seven days, such as 90s, 5m or 1h.")
    return seconds


def _number(pointer: str, value: object, most: float) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        raise _wrong(pointer, f"It is a number from 0 to {most:g}.")
    return float(value)


def _count(pointer: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10**9:
        raise _wrong(pointer, "It is a whole number, at least 1.")
    return value


def _wrong(pointer: str, reason: str) -> InvalidInput:
    where = f"/strategy/{pointer}".rstrip("/")
    return InvalidInput(
        f"{where}: {reason}", hint="For example: {canary: {steps: [5, 25, 100], pause: 5m}}", pointer=where
    )
