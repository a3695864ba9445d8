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

    `error` is the mean absolute error in the same unit where the figure comes from a fitted model, else None.
    """

    value: float
    unit: str
    source: str
    is_estimate: bool = False
    error: float | None = None

    def __str__(self) -> str:
        mark = "~" if self.is_estimate else ""
        return f"{mark}{self.value:g} {self.unit}"

    def to_json(self) -> dict[str, JsonValue]:
        """The figure as plain JSON; `error` only where there is one."""
        members: dict[str, JsonValue] = {
            "value": self.value,
            "unit": self.unit,
            "source": self.source,
            "is_estimate": self.is_estimate,
        }
        return members if self.error is None else members | {"error": self.error}
