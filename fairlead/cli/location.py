"""`fairlead location`: where bytes may be."""

from __future__ import annotations

from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.parsing import parse_pairs

app = group("Locations: buckets and prefixes, each in a region.")


@command(app, "add", has_dry_run=True)
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    region: Annotated[str, typer.Option(help="CLOUD:REGION, such as aws:us-east-1.")],
    url: Annotated[str, typer.Option(help="A folder, s3://, gs:// or abfs://.")],
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the filesystem, such as endpoint_url=...; no secrets.")
    ] = None,
) -> None:
    """Add a location; what policy wants there is replicated to it."""
    with connected() as (client, output):
        output.record(client.locations.add(name, region, url, options=dict(parse_pairs(option))))


@command(app, "list")
def list_() -> None:
    """List locations."""
    with connected() as (client, output):
        output.table(client.locations.list(), ["name", "region", "jurisdiction", "url"])
