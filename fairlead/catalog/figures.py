"""A figure: a number that knows its unit, where it comes from, and whether anyone measured it."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.core.errors import JsonValue

BYTES_PER_GB = 10**9
"""Tariffs are read as dollars per decimal gigabyte. Where a cloud bills by 2^30 bytes a plan is up to 7 % too dear,
and never too cheap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number from the catalog.

    `error` is the mean absolute error in the same unit where the figure comes from a fitted model, else None. `date` is
    when it held, in ISO 8601 and as exact as its source gives it (a year, a month or a day), `licence` what its source
    may be used under; None where it was worked out here.
    """

    value: float
    unit: str
    source: str
    is_estimate: bool = False
    error: float | None = None
    date: str | None = None
    licence: str | None = None

    def __str__(self) -> str:
        mark = "~" if self.is_estimate else ""
        return f"{mark}{self.value:g} {self.unit}"

    def to_json(self) -> dict[str, JsonValue]:
        """The figure as plain JSON; `error`, `date` and `licence` only where there is one."""
        members: dict[str, JsonValue] = {
            "value": self.value,
            "unit": self.unit,
            "source": self.source,
            "is_estimate": self.is_estimate,
        }
        known: dict[str, JsonValue] = {"error": self.error, "date": self.date, "licence": self.licence}
        return members | {name: value for name, value in known.items() if value is not None}
