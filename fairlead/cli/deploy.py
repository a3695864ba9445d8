"""`fairlead place` and `predict`: where models should run, and what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.features import parse_value
from fairlead.cli.parsing import parse_pairs, read_document, read_resource
from fairlead.cli.placements import describe_placement

app = group("Placement and predictions.")


@command(app, "place")
def place(request: Annotated[Path, typer.Argument(help="YAML or JSON placement request (- for stdin).")]) -> None:
    """Ask where to run: regions, cost, latency and carbon, and why the runner-up lost."""
    with connected() as (client, output):
        output.record(client.place(read_resource(request, "PlacementRequest")), human=describe_placement)


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
