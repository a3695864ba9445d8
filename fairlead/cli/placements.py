"""A placement answer as text."""

from __future__ import annotations

from typing import Any

from fairlead.cli.output import render_value


def describe_placement(row: dict[str, Any]) -> str:
    """The chosen regions, what they cost and why, and the runner-up."""
    return render_value(row)
