"""`fairlead replicate`: the cheapest way to where an artifact is wanted, before it is gone and after."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.amounts import render_cost, render_dollars, render_size, render_span
from fairlead.cli.context import command, connected, group
from fairlead.cli.output import render_value
from fairlead.cli.work import watch_work
from fairlead.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

app = group("Replication: the cheapest way to where an artifact is wanted, and what came of it.")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_REFERENCE = "NAME/VERSION, NAME@ALIAS (such as churn@production) or a digest."
_STATUS = [
    "location",
    "state",
    "planned_source",
    "planned_bytes",
    "planned_usd",
    "source",
    "moved_bytes",
    "actual_usd",
]


@command(app, "plan")
def plan(
    reference: Annotated[str, typer.Argument(help=_REFERENCE)],
    *,
    deadline: Annotated[str | None, typer.Option(help="How long the last copy may take, such as 90s or 10m.")] = None,
    to: Annotated[
        list[str] | None, typer.Option(help="What if it went to this CLOUD:REGION instead (repeatable).")
    ] = None,
) -> None:
    """Show the cheapest tree of copies: bytes, dollars, seconds, and what copying directly would cost."""
    seconds = None if deadline is None else parse_duration(deadline)
    with connected() as (client, output):
        found = client.replications.plan(reference, regions=to, deadline_seconds=seconds)
        output.record(found, human=describe_replication, name="saved_usd")


@command(app, "status")
def status(reference: Annotated[str, typer.Argument(help=_REFERENCE)]) -> None:
    """Compare each hop as it was planned with the copy that was made."""
    with connected() as (client, output):
        output.table(client.replications.status(reference), _STATUS)


@command(app, "watch")
def watch() -> None:
    """Show copies and their reading back as they go on, until none runs or is due within a minute."""
    with connected() as (client, output):
        watch_work(client, output, kinds=("verify-upload", "replicate", "verify-replica"))


def parse_duration(text: str) -> float:
    """Read a time span such as `90s`, `10m` or `1.5h` as seconds; a number alone is seconds.

    Raises:
        InvalidInput: if it is none, or nothing.
    """
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2] or "s"] if found else 0.0
    if seconds <= 0:
        raise InvalidInput(f"{text[:40]!r} is no span of time.", hint="Write it like 90s, 10m or 1.5h.")
    return seconds


def describe_replication(plan: dict[str, Any]) -> str:
    """A plan as a tree: each copy below the one that feeds it, then the totals, and what bound it."""
    tree, direct = plan["tree"], plan["direct"]
    hops: list[dict[str, Any]] = tree["hops"]
    lines = [f"{render_value(plan['artifact'], is_short=True)} ({plan['residency']})"]
    if not hops:
        return f"{lines[0]}\nNothing lacks it: there is nothing to copy.\n"
    children: dict[str, list[dict[str, Any]]] = {}
    for hop in hops:
        children.setdefault(hop["source"], []).append(hop)
    reached = {hop["location"] for hop in hops}
    for root in dict.fromkeys(hop["source"] for hop in hops if hop["source"] not in reached):
        lines.append(f"{root}  {children[root][0]['source_region']}  VERIFIED")
        lines += _branches(children, root, "")
    saved = float(plan["saved_usd"])
    share = f" ({100 * saved / float(direct['usd']):.0f} %)" if float(direct["usd"]) else ""
    lines += [
        f"plan:   {_total(tree)}",
        f"direct: {_total(direct)}",
        f"saved:  {render_dollars(plan['saved_usd'])}{share}",
    ]
    lines += [
        f"bound by {each['rule']}: {each['detail']}; without it {render_dollars(each['usd_without'])}"
        for each in plan["bindings"]
    ]
    if not plan["is_optimal"]:
        gap = 1 - float(plan["bound_usd"]) / float(tree["usd"])
        lines.append(
            f"not proved to be the cheapest, but at most {100 * gap:.2g} % dearer: "
            f"no plan costs less than {render_dollars(plan['bound_usd'])}"
        )
    if any(hop["is_estimate"] for hop in hops):
        lines.append("~ an estimate: nobody names this pair's tariff, or measured it")
    return "\n".join(lines) + "\n"


def _branches(children: Mapping[str, Sequence[dict[str, Any]]], of: str, indent: str) -> list[str]:
    lines: list[str] = []
    hops = children.get(of, ())
    for number, hop in enumerate(hops, start=1):
        is_last = number == len(hops)
        mark = "~" if hop["is_estimate"] else ""
        role = "  (relay)" if hop["is_relay"] else ""
        region = "" if hop["location"] == hop["region"] else f"  {hop['region']}"
        lines.append(
            f"{indent}{'└── ' if is_last else '├── '}{hop['location']}{region}  {render_size(hop['bytes'])}  "
            f"{mark}{render_dollars(hop['usd'])}  after {render_span(hop['ends_seconds'])}{role}"
        )
        lines += _branches(children, hop["location"], indent + ("    " if is_last else "│   "))
    return lines


def _total(copies: dict[str, Any]) -> str:
    count = len(copies["hops"])
    what = "copy" if count == 1 else "copies"
    return f"{count} {what}, {render_cost(copies)}"
