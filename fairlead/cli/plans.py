"""A promotion's plan as text."""

from __future__ import annotations

from typing import Any

from fairlead.cli.output import render_value

_MARKS = {"passed": "pass", "failed": "FAIL", "pending": "wait"}


def describe_plan(plan: dict[str, Any]) -> str:
    """The move, each gate with value, limit and verdict, what is missing where, and the deployments touched."""
    moves = plan.get("moves") or {}
    lines = [f"move: version {render_value(moves.get('from'))} -> {render_value(moves.get('to'))}"]
    for gate in plan.get("gates", []):
        mark = _MARKS.get(str(gate.get("verdict")), str(gate.get("verdict")))
        lines.append(
            f"  [{mark}] {gate.get('gate')}: {render_value(gate.get('value'))} (limit {render_value(gate.get('limit'))})"
        )
        if gate.get("verdict") != "passed":
            lines.extend(f"         {gate[key]}" for key in ("detail", "next_step") if gate.get(key))
    for replica in plan.get("missing_replicas", []):
        lines.append(
            f"  missing in {replica.get('region')}: {render_value(replica.get('bytes'))} bytes, "
            f"${render_value(replica.get('usd'))} from {render_value(replica.get('source_region'))}"
        )
    for deployment in plan.get("deployments", []):
        lines.append(f"  deployment touched: {render_value(deployment)}")
    return "\n".join(lines) + "\n"
