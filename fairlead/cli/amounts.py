"""Bytes, dollars and spans of time as a person reads them."""

from __future__ import annotations

from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def render_size(size: int) -> str:
    """A number of bytes, with three digits and a decimal unit."""
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}" if unit else f"{size} B"


def render_dollars(amount: str) -> str:
    """An exact amount as cents, or with four digits where it is less than a dollar."""
    value = float(amount)
    sign = "-" if value < 0 else ""
    return f"{sign}${abs(value):.2f}" if abs(value) >= 1 else f"{sign}${abs(value):.4g}"


def render_span(seconds: float) -> str:
    """A span of time, in the unit that suits it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def render_cost(copies: dict[str, Any]) -> str:
    """What copies come to: the members `bytes`, `usd` and `seconds` of a plan."""
    return f"{render_size(copies['bytes'])}, {render_dollars(copies['usd'])}, {render_span(copies['seconds'])}"
