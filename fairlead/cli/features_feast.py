"""`fairlead features feast-repo`: a region as a Feast repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group

app = group("Feast over a region.")


@command(app, "feast-repo")
def feast_repo(
    service: Annotated[str, typer.Argument(help="Name of the feature service.", metavar="SERVICE")],
    *,
    region: Annotated[str, typer.Option(help="Region whose replica and online store Feast reads.")],
    to: Annotated[Path, typer.Option(help="Folder to write, or to write again.")],
    own_online_store: Annotated[
        bool, typer.Option("--own-online-store", help="An empty SQLite store of its own, for `feast materialize`.")
    ] = False,
) -> None:
    """Write a Feast repository of what a region serves."""
    with connected() as (client, output):
        snapshot = client.features.feast_repo(service, region=region, to=to, own_online_store=own_online_store)
        output.record({"folder": str(to), "service": service, "region": region, "snapshot": snapshot}, name="folder")
