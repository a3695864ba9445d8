"""`fairlead place` and `predict`: where models should run, and what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.features import parse_value
from fairlead.cli.front_plot import draw_front
from fairlead.cli.parsing import parse_milliseconds, parse_pairs, read_document, read_resource
from fairlead.cli.placements import describe_fleet, describe_placement

app = group("Placement and predictions.")


@command(app, "place")
def place(
    request: Annotated[Path | None, typer.Argument(help="YAML or JSON placement request (- for stdin).")] = None,
    *,
    fleet: Annotated[Path | None, typer.Option(help="Place many models under shared quotas instead.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="What if: without this cloud or region; repeat.")] = None,
    carbon_price: Annotated[float | None, typer.Option(help="What if: USD a tonne of CO2e.")] = None,
    slo: Annotated[str | None, typer.Option(help="What if: one latency limit for all, such as 80ms.")] = None,
    demand: Annotated[float | None, typer.Option(help="What if: so many times the demand.")] = None,
    budget: Annotated[float | None, typer.Option(help="What if: at most so many USD an hour.")] = None,
    carbon_budget: Annotated[float | None, typer.Option(help="What if: at most so many gCO2e an hour.")] = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="Show the front of cost, latency and carbon too.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw that front into this SVG file.")] = None,
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="Show where the choice would flip.")] = False,
    explain: Annotated[bool, typer.Option(help="Find the runner-up and what bound.")] = True,
) -> None:
    """Ask where to run: regions, cost, latency and carbon, and why the runner-up lost."""
    if (request is None) == (fleet is None):
        raise typer.BadParameter("Give a request, or --fleet FILE.")
    if plot is not None and plot.suffix != ".svg":
        raise typer.BadParameter(f"--plot writes SVG: call the file {plot.with_suffix('.svg').name}.")
    if fleet is not None:
        with connected() as (client, output):
            output.record(client.placements.create_fleet(read_resource(fleet, "Fleet")), human=describe_fleet)
        return
    document = read_resource(request or Path("-"), "PlacementRequest")
    changes = {
        "without": without,
        "carbon_price_usd_per_tonne": carbon_price,
        "latency_limit_ms": None if slo is None else parse_milliseconds(slo),
        "demand_times": demand,
        "budget_usd_per_hour": budget,
        "carbon_budget_g_per_hour": carbon_budget,
    }
    what_if: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    wanted = {"explanation": explain, "pareto": pareto or plot is not None, "sensitivity": sensitivity}
    document["include"] = [name for name, is_wanted in wanted.items() if is_wanted]
    if what_if:
        document["what_if"] = what_if
    with connected() as (client, output):
        with output.waiting("Placing ..."):
            placement = client.place(document)
        if plot is not None:
            plot.write_text(draw_front(placement.answer["pareto"]), encoding="utf-8")
            output.message(f"{plot}: {len(placement.answer['pareto'])} placements.")
        output.record(placement, human=describe_placement)


@command(app, "predict")
def predict(
    name: Annotated[str, typer.Argument(help="Deployment.")],
    *,
    entity: Annotated[list[str] | None, typer.Option(help="KEY=VALUE[,VALUE...]; repeat for more keys.")] = None,
    rows: Annotated[Path | None, typer.Option(help='JSON or YAML file {"rows": [{feature: value}]}.')] = None,
) -> None:
    """Ask a deployment, by entity keys or by ready rows of features."""
    if (entity is None) == (rows is None):
        raise typer.BadParameter("Give either --entity or --rows.")
    with connected() as (client, output):
        if entity is not None:
            keys = {
                key: [parse_value(item) for item in values.split(",")] for key, values in parse_pairs(entity).items()
            }
            answer: Any = client.deployments.predict(name, entities=keys)
        else:
            answer = client.deployments.predict(name, rows=read_document(rows or Path("-")).get("rows") or [])
        output.record(answer)
