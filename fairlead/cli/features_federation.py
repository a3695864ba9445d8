"""`fairlead features get-historical`: a training set of views that live in different regions."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.amounts import render_dollars, render_size, render_span
from fairlead.cli.context import command, connected, group
from fairlead.core.clock import parse_time
from fairlead.core.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from fairlead.sdk.federation import FederatedRead, HopOutcome

app = group("Features of views that live in different regions.")

_POLICIES = ("error", "stale", "missing")


@command(app, "get-historical")
def get_historical(
    service: Annotated[str | None, typer.Argument(help="Feature service; or name features.", metavar="SERVICE")] = None,
    *,
    entities: Annotated[Path, typer.Option(help="Entity rows: .parquet or .csv with keys and event_timestamp.")],
    destination: Annotated[Path | None, typer.Option(help="Where the training set goes: .parquet or .csv.")] = None,
    feature: Annotated[list[str] | None, typer.Option(help="view:feature; repeat for more.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="Snapshot digest; none: the newest.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Read the views' sources in place of snapshots.")] = False,
    live_until: Annotated[str | None, typer.Option(help="Up to this time, with --live; none: now.")] = None,
    region: Annotated[str | None, typer.Option(help="Where you are; FAIRLEAD_REGION if unset.")] = None,
    residency: Annotated[str, typer.Option(help="Residency class of the entity rows.")] = "unrestricted",
    on_unavailable: Annotated[
        str, typer.Option(help="A region that does not answer: error, stale (an older snapshot) or missing.")
    ] = "error",
    explain: Annotated[bool, typer.Option("--explain", help="Show what crosses each hop and what it costs.")] = False,
    run_code: Annotated[bool, typer.Option(help="Run the code of on-demand views that the service takes.")] = False,
) -> None:
    """Join features where they live to entity rows as of each row's time: only keys and times leave.

    With --explain and no --destination, only the plan is made, and nothing is sent.
    """
    if on_unavailable not in _POLICIES:
        raise InvalidInput(f"{on_unavailable[:40]!r} is no policy.", hint=f"Choose from: {', '.join(_POLICIES)}.")
    if destination is None and not explain:
        raise InvalidInput("The training set goes nowhere.", hint="Give --destination FILE, or --explain for the plan.")
    if destination is not None and not destination.absolute().parent.is_dir():
        # Known beforehand, so that nothing crosses for it.
        raise InvalidInput(f"There is no folder {destination.parent}.", hint="Make it, or give another --destination.")
    table = read_table(entities)
    wanted: dict[str, Any] = {
        "service": service,
        "features": feature or [],
        "snapshot": snapshot,
        "live": live,
        "live_until": None if live_until is None else parse_time(live_until),
        "region": region,
        "residency": residency,
        "on_unavailable": on_unavailable,
    }
    with connected() as (client, output):
        plan = client.federation.plan(table, **wanted)
        if destination is None:
            output.record(without_tickets(plan), human=describe_plan, name="usd")
            return
        if explain and output.form == "human":
            output.message(describe_plan(plan))
        found = client.federation.get_historical_features(table, plan=plan, run_code=run_code)
        write_table(found.table, destination)
        shown = _record(found, destination)
        output.record(shown, human=lambda _: describe_read(found, destination), name="destination")


def describe_plan(plan: dict[str, Any]) -> str:
    """A plan as a table: each hop with its views, then what moving the data would take instead."""
    head = ["region", "view", "joined by", "rows", "out", "back (est.)", "dollars (est.)", "instead: move the data"]
    rows: list[list[str]] = []
    for hop in plan["hops"]:
        numbers = hop["bytes_back"] - sum(view["bytes_back"] for view in hop["views"])
        for number, view in enumerate(hop["views"]):
            is_first = number == 0
            rows.append(
                [
                    (hop["region"] or "-") if is_first else "",
                    view["view"] if view["alias"] == view["view"] else f"{view['view']} as {view['alias']}",
                    _joiner(hop) if is_first else "",
                    str(plan["rows"]),
                    render_size(hop["bytes_out"]) if is_first else "(as above)",
                    render_size(view["bytes_back"] + (numbers if is_first else 0)),
                    render_dollars(_sum(hop["usd_out"], hop["usd_back"])) if is_first else "",
                    _moving(view["moving"]),
                ]
            )
    lines = [f"{plan['service']} for a reader in {plan['region'] or 'no stated region'}, {plan['rows']} entity rows"]
    lines += _columns([head, *rows])
    lines.append(f"All hops: {render_dollars(plan['usd'])}. Sent are {_sent(plan)}, and nothing else.")
    for hop in plan["hops"]:
        if hop["problem"]:
            lines.append(f"{hop['region']}: {hop['problem']} {_policy(plan, hop)}")
    return "\n".join(lines) + "\n"


def describe_read(read: FederatedRead, destination: Path) -> str:
    """What was read: each hop as planned and as it was, and what is not what was asked for."""
    head = ["region", "views", "outcome", "rows", "out", "back (planned)", "back", "dollars (planned)", "dollars"]
    rows = [
        [
            hop.region or "-",
            ", ".join(hop.views),
            hop.outcome.upper() if hop.outcome != "joined" else hop.outcome,
            str(hop.rows),
            render_size(hop.bytes_out),
            render_size(hop.planned_back),
            render_size(hop.bytes_back),
            render_dollars(str(hop.planned_usd)),
            render_dollars(str(hop.usd)),
        ]
        for hop in read.hops
    ]
    lines = [f"{read.table.num_rows} rows in {destination}", *_columns([head, *rows])]
    lines += [label(hop) for hop in read.hops if hop.outcome != "joined"]
    return "\n".join(lines) + "\n"


def label(hop: HopOutcome) -> str:
    """What a hop's columns hold that were not joined in their region."""
    views = ", ".join(hop.views)
    if hop.outcome == "missing":
        return f"MISSING: {views} has no values, because {hop.region} did not answer ({hop.problem})"
    age = render_span(hop.age_seconds or 0.0)
    snapshots = ", ".join(f"{view}: {digest[:19]} of {as_of}" for view, (digest, as_of) in hop.snapshots.items())
    return f"STALE: {views} is {age} old ({snapshots}), because {hop.region} did not answer ({hop.problem})"


def read_table(path: Path) -> Any:
    """Entity rows from a file, as an Arrow table.

    Raises:
        InvalidInput: if it is not there or cannot be read.
    """
    arrow, parquet, csv = (_load(name) for name in ("pyarrow", "pyarrow.parquet", "pyarrow.csv"))
    try:
        if path.suffix == ".csv":
            return csv.read_csv(path)
        return parquet.read_table(path)
    except (arrow.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} holds no entity rows that can be read.", hint="Give .parquet or .csv.") from error


def write_table(table: Any, path: Path) -> None:
    """Write a training set to a file.

    Raises:
        InvalidInput: if it cannot be written.
    """
    arrow, parquet, csv = (_load(name) for name in ("pyarrow", "pyarrow.parquet", "pyarrow.csv"))
    try:
        if path.suffix == ".csv":
            csv.write_csv(table, path)
        else:
            parquet.write_table(table, path)
    except (arrow.ArrowException, OSError) as error:
        raise InvalidInput(
            f"The training set cannot be written to {path}.", hint="Give another --destination; lists need .parquet."
        ) from error


def without_tickets(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan to show: a ticket is for whoever goes by the plan, and a certificate for nobody to read."""

    def bare(hop: dict[str, Any] | None) -> dict[str, Any] | None:
        if hop is None:
            return None
        kept = {name: value for name, value in hop.items() if name not in {"ticket", "stand_in"}}
        if hop["agent"] is not None:
            kept["agent"] = {name: value for name, value in hop["agent"].items() if name != "certificate"}
        if "stand_in" in hop:
            kept["stand_in"] = bare(hop["stand_in"])
        return kept

    return {**plan, "hops": [bare(hop) for hop in plan["hops"]]}


def _record(read: FederatedRead, destination: Path) -> dict[str, Any]:
    return {
        "destination": str(destination),
        "rows": read.table.num_rows,
        "snapshot": None if read.pinned is None else read.pinned.snapshot_digest,
        "hops": [
            {
                "region": hop.region,
                "views": list(hop.views),
                "outcome": hop.outcome,
                "rows": hop.rows,
                "planned_bytes_out": hop.planned_out,
                "planned_bytes_back": hop.planned_back,
                "bytes_out": hop.bytes_out,
                "bytes_back": hop.bytes_back,
                "planned_usd": str(hop.planned_usd),
                "usd": str(hop.usd),
                "snapshots": {view: {"digest": of[0], "as_of": of[1]} for view, of in hop.snapshots.items()},
                "age_seconds": hop.age_seconds,
                "problem": hop.problem,
            }
            for hop in read.hops
        ],
        "plan": without_tickets(read.plan),
    }


def _joiner(hop: dict[str, Any]) -> str:
    if hop["agent"] is not None:
        return f"agent {hop['agent']['address']}"
    return "nobody: away" if hop["joiner"] == "agent" else "this service"


def _moving(moving: dict[str, Any] | None) -> str:
    if moving is None:
        return "-"
    if moving["refused"]:
        return f"refused: {moving['refused']}"
    if moving["bytes"] == 0:
        return "nothing: a replica is there already"
    pays = "" if moving["pays_after"] is None else f", pays after {moving['pays_after']} reads"
    return f"{render_size(moving['bytes'])}, {render_dollars(moving['usd'])}{pays}"


def _policy(plan: dict[str, Any], hop: dict[str, Any]) -> str:
    stand_in = hop["stand_in"]
    if stand_in is None:
        return "The read will fail: --on-unavailable stale or missing goes on without."
    if stand_in["joiner"] is None:
        return "Its values will be missing."
    return f"A snapshot {render_span(stand_in['age_seconds'])} old in {plan['region']} will stand in."


def _sent(plan: dict[str, Any]) -> str:
    names = dict.fromkeys(name for hop in plan["hops"] for name in hop["columns"])
    return f"{', '.join(names)} and a row number"


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _sum(*amounts: str) -> str:
    from decimal import Decimal

    return str(sum((Decimal(amount) for amount in amounts), Decimal(0)))


def _load(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra("Federated reads need Arrow.", hint="Run: pip install 'fairlead[features]'") from error
