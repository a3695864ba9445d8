"""The plans of promotions and deployments as text."""

from __future__ import annotations

from typing import Any

from fairlead.cli.output import markdown_table, markdown_text, render_value

_MARKS = {"passed": "pass", "failed": "FAIL", "pending": "wait", "overridden": "over"}
_SYMBOLS = {"passed": "✅ passed", "failed": "❌ failed", "pending": "⏳ pending", "overridden": "⚠️ overridden"}


def describe_plan(plan: dict[str, Any]) -> str:
    """A promotion's move, each gate with value, limit and verdict, what is missing where, the deployments touched."""
    moves: dict[str, Any] = plan.get("moves") or {}
    lines = [f"move: version {render_value(moves.get('from'))} -> {render_value(moves.get('to'))}"]
    for gate in plan.get("gates", []):
        mark = _MARKS.get(str(gate.get("verdict")), str(gate.get("verdict")))
        value, limit = render_value(gate.get("value")), render_value(gate.get("limit"))
        lines.append(f"  [{mark}] {_gate_name(gate)}: {value} (limit {limit})")
        if gate.get("expression"):
            used: dict[str, Any] = gate.get("values") or {}
            values = ", ".join(f"{path} = {render_value(found)}" for path, found in used.items())
            lines.append(f"         {gate['expression']}" + (f"   with {values}" if values else ""))
        if gate.get("verdict") != "passed":
            lines += [f"         {gate[key]}" for key in ("detail", "next_step") if gate.get(key)]
    lines += [
        f"  missing in {replica.get('region')}: {render_value(replica.get('bytes'))} bytes, "
        f"${render_value(replica.get('usd'))} from {render_value(replica.get('source_region'))}"
        for replica in plan.get("missing_replicas", [])
    ]
    lines += [f"  deployment touched: {render_value(deployment)}" for deployment in plan.get("deployments", [])]
    return "\n".join(lines) + "\n"


def markdown_promotion(promotion: dict[str, Any]) -> str:
    """A promotion (or the plan of one) as a comment on a pull request."""
    plan: dict[str, Any] = promotion.get("plan") or {}
    moves: dict[str, Any] = plan.get("moves") or {}
    reference, environment = (markdown_text(str(promotion[key])) for key in ("reference", "environment"))
    asker, reason = (markdown_text(str(promotion.get(key) or "")) for key in ("requested_by", "reason"))
    lines = [
        f"### {reference} → {environment}: {promotion['state']}",
        "",
        f"Version {render_value(moves.get('from'))} → {render_value(moves.get('to'))}, asked for by {asker}.",
        reason,
        "",
    ]
    rows = [
        [
            _SYMBOLS.get(str(gate.get("verdict")), str(gate.get("verdict"))),
            _gate_name(gate) + (f": {gate['expression']}" if gate.get("expression") else ""),
            render_value(gate.get("value")),
            render_value(gate.get("limit")),
            str(gate.get("detail") or ""),
        ]
        for gate in plan.get("gates", [])
    ]
    lines.append(markdown_table(["", "gate", "value", "limit", ""], rows) if rows else "No gate is asked.\n")
    missing = plan.get("missing_replicas", [])
    if missing:
        lines.append(f"**Missing replicas**: {plan['bytes']:,} bytes, ${render_value(plan['usd'])}\n")
        cells = [[render_value(each.get(key)) for key in ("region", "state", "bytes", "usd")] for each in missing]
        lines.append(markdown_table(["region", "state", "bytes", "USD"], cells))
    if plan.get("deployments"):
        lines.append(f"**Deployments touched**: {markdown_text(render_value(plan['deployments']))}\n")
    if promotion["state"] == "AWAITING_APPROVAL":
        lines.append(f"Somebody else approves it with `fairlead model approve {promotion['id']}`.\n")
    return "\n".join(lines)


def _gate_name(gate: dict[str, Any]) -> str:
    return f"{gate['policy']}: {gate.get('gate')}" if gate.get("policy") else str(gate.get("gate"))
