"""The plans of promotions and deployments as text."""

from __future__ import annotations

from typing import Any

from fairlead.cli.output import render_value

_MARKS = {"passed": "pass", "failed": "FAIL", "pending": "wait"}


def describe_plan(plan: dict[str, Any]) -> str:
    """A promotion's move, each gate with value, limit and verdict, what is missing where, the deployments touched."""
    moves: dict[str, Any] = plan.get("moves") or {}
    lines = [f"move: version {render_value(moves.get('from'))} -> {render_value(moves.get('to'))}"]
    for gate in plan.get("gates", []):
        mark = _MARKS.get(str(gate.get("verdict")), str(gate.get("verdict")))
        value, limit = render_value(gate.get("value")), render_value(gate.get("limit"))
        lines.append(f"  [{mark}] {gate.get('gate')}: {value} (limit {limit})")
        if gate.get("verdict") != "passed":
            lines += [f"         {gate[key]}" for key in ("detail", "next_step") if gate.get(key)]
    lines += [
        f"  missing in {replica.get('region')}: {render_value(replica.get('bytes'))} bytes, "
        f"${render_value(replica.get('usd'))} from {render_value(replica.get('source_region'))}"
        for replica in plan.get("missing_replicas", [])
    ]
    lines += [f"  deployment touched: {render_value(deployment)}" for deployment in plan.get("deployments", [])]
    return "\n".join(lines) + "\n"


def describe_deployment_plan(plan: dict[str, Any]) -> str:
    """What applying a deployment would do in each region, what has to be copied, and what it costs."""
    version = render_value(plan.get("version"))
    follows = "" if plan.get("environment") is None else f", following {plan['environment']}"
    lines = [
        f"{plan['name']}: {plan['model']}/{version}{follows}",
        f"bundle: {plan['bundle_state']} {render_value(plan.get('bundle_digest'))}",
    ]
    for step in plan["steps"]:
        change = f"{render_value(step['from_version'])} -> {render_value(step['to_version'])}"
        line = f"  {step['action']:<8} {step['region']}: version {change}"
        if step["bytes"]:
            line += f", {step['bytes']} bytes from {render_value(step['source_region'])} for ${step['usd']}"
        if step["usd_per_hour"] is not None:
            line += f", ${step['usd_per_hour']} an hour"
        lines.append(line)
    total = f"copies: {plan['bytes']} bytes, ${plan['usd']}"
    lines.append(total if plan["usd_per_hour"] is None else f"{total}; running: ${plan['usd_per_hour']} an hour")
    return "\n".join(lines) + "\n"
