"""How passes over locations are waited for and shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlead.cli.output import reach, render_value
from fairlead.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fairlead.cli.output import Output
    from fairlead.sdk.client import Fairlead
    from fairlead.sdk.upkeep import Upkeep

COLUMNS = ["id", "task", "location", "state", "checked_objects", "checked_bytes", "requested_by", "requested_at"]
_FINDINGS = ["object", "location", "code", "harm", "size_bytes", "action", "due_at"]


def show_passes(client: Fairlead, output: Output, asked: Sequence[Upkeep], *, wait: bool) -> None:
    """Show the findings of passes once they are over, or the passes at once.

    Raises:
        Unavailable: if a location could not be read.
    """
    if not wait:
        output.table(asked, COLUMNS)
        output.message("See how they get on: fairlead store passes")
        return
    passes = client.upkeep.wait(asked)
    if output.form == "json":
        output.table(passes, COLUMNS)
    else:
        rows = [{"location": each.location, **finding} for each in passes for finding in each.findings]
        shown = [name for name in _FINDINGS if any(name in row for row in rows)]
        if rows:
            output.table(rows, shown)
        for each in passes:
            output.message(_summary(each))
    for each in passes:
        if each.state == "FAILED":
            reason = render_value(reach(each.outcome, "error.detail"))
            hint = reach(each.outcome, "error.hint")
            raise Unavailable(
                f"The location {each.location!r} could not be passed over: {reason}",
                hint=str(hint) if hint else "Repeat the command when it can be reached.",
                location=each.location,
            )


def _summary(each: Upkeep) -> str:
    counts = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in each.outcome.items() if isinstance(value, int) and value
    )
    size = f"{each.checked_objects} objects, {each.checked_bytes / 1e6:.1f} MB looked at"
    done = "FAILED before it was through" if each.state == "FAILED" else counts or "nothing to do"
    return f"{each.location}: {size}; {done}"
