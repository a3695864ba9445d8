"""Deployments as a person reads them: plans with what they cost, revisions with their steps."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from fairlead.cli.output import render_value

_UNITS = (("usd_per_hour", "$", " an hour"), ("carbon_g_per_hour", "", " gCO2e an hour"))


def describe_deployment_plan(plan: dict[str, Any]) -> str:
    """What applying a deployment would do in each region, what has to be copied, what it costs and emits."""
    version = render_value(plan.get("version"))
    follows = "" if plan.get("environment") is None else f", following {plan['environment']}"
    lines = [
        f"{plan['name']}: {plan['model']}/{version}{follows}",
        f"bundle: {plan['bundle_state']} {render_value(plan.get('bundle_digest'))}",
    ]
    if plan.get("strategy") is not None:
        lines.append(f"traffic: {_strategy(plan['strategy'])}")
    lines += [_step(step) for step in plan["steps"]]
    lines.append(f"copies: {plan['bytes']} bytes, ${plan['usd']}, {_amount(plan['carbon_g'])} gCO2e")
    totals = [
        _change(plan[f"from_{name}"], plan[name], before, after)
        for name, before, after in _UNITS
        if plan[name] is not None or plan[f"from_{name}"] is not None
    ]
    if totals:
        lines.append(f"running: {', '.join(totals)}")
    return "\n".join(lines) + "\n"


def describe_deployment(deployment: dict[str, Any]) -> str:
    """A deployment in some lines; its regions are a table of their own."""
    follows = "" if deployment["environment"] is None else f", follows {deployment['environment']}"
    state = deployment["revision_state"] or deployment["state"]
    address = deployment["endpoint"] or "no endpoint yet"
    lines = [f"{deployment['name']}: revision {deployment['revision']} is {state}{follows}, {address}"]
    if deployment["state"] != "ACTIVE":
        lines = [f"{deployment['name']}: {deployment['state']}"]
    if deployment["failure"]:
        lines.append(f"It was given up, and revision {deployment['live_revision']} goes on. {deployment['failure']}")
    if state != "LIVE":
        lines += [_progress(step) for step in deployment["steps"]]
    return "\n".join(lines) + "\n"


def describe_revisions(found: dict[str, Any]) -> str:
    """Revisions, each with its steps."""
    lines: list[str] = []
    for revision in found["revisions"]:
        what = f"version {render_value(revision['version'])} in {', '.join(revision['regions'])}"
        strategy = "" if revision["strategy"] is None else f", {_strategy(revision['strategy'])}"
        lines.append(
            f"{revision['number']}  {revision['state']}  {revision['cause']} by {revision['created_by']} "
            f"at {render_value(revision['created_at'], is_short=True)}: {what}{strategy}"
        )
        if revision["why"]:
            lines.append(f"   why: {revision['why']}")
        lines += [f" {_progress(step)}" for step in revision["steps"]]
    return "\n".join(lines) + "\n"


def _step(step: dict[str, Any]) -> str:
    change = f"{render_value(step['from_version'])} -> {render_value(step['to_version'])}"
    line = f"  {step['action']:<8} {step['region']}: version {change}"
    if step["target"] != step["from_target"] and (step["target"] or "local") != "local":
        line += f", on {step['target']}"
    if step["from_replicas"] is not None and step["replicas"] not in {None, step["from_replicas"]}:
        line += f", replicas {step['from_replicas']} -> {step['replicas']}"
    elif (step["replicas"] or 1) > 1:
        line += f", {step['replicas']} replicas"
    for instance in step["instances"] or ():
        line += f", {instance['count']} x {instance['sku']}{' (spot)' if instance['is_spot'] else ''}"
    if step["bytes"]:
        line += f", {step['bytes']} bytes from {render_value(step['source_region'])} for ${step['usd']}"
    for name, before, after in _UNITS:
        if step[name] is not None or step[f"from_{name}"] is not None:
            line += f", {_change(step[f'from_{name}'], step[name], before, after)}"
    return line


def _change(was: str | None, now: str | None, before: str, after: str) -> str:
    if now is None:
        return f"{before}{_amount(was or '0')}{after} until now, and nobody says how much from then on"
    if was in {None, now}:
        return f"{before}{_amount(now)}{after}"
    return f"{before}{_amount(was or '0')} -> {before}{_amount(now)}{after}"


def _amount(text: str) -> str:
    return f"{Decimal(text):f}"


def _strategy(strategy: dict[str, Any]) -> str:
    name, body = next(iter(strategy.items()))
    steps = "all at once" if name == "blue_green" else ", ".join(f"{step} %" for step in body["steps"])
    limits = [f"{name} {value}" for name, value in body.items() if name.startswith("max_")]
    words = [f"{name.replace('_', '/')} {steps}", f"each watched for {body['pause']}", *limits]
    return ", ".join(words)


def _progress(step: dict[str, Any]) -> str:
    where = step["region"] or ("" if step["traffic_percent"] is None else f"{step['traffic_percent']} % of requests")
    detail = f": {step['detail']}" if step["detail"] else ""
    return f"  {step['state']:<8} {step['action']} {where}".rstrip() + detail
