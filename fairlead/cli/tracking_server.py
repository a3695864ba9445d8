"""`fairlead tracking-server`: MLflow servers that versions may be brought from."""

from __future__ import annotations

from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group

app = group("Tracking servers: MLflow servers that the files of versions are brought from.")

_COLUMNS = ["name", "url", "credentials_env", "created_by", "created_at"]


@command(app, "add", has_dry_run=True)
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="Its address, such as https://mlflow.example.org.")],
    *,
    credentials_env: Annotated[
        str | None,
        typer.Option(help="Variable of the workers, FAIRLEAD_TRACKING_..., that holds USER:PASSWORD or a token."),
    ] = None,
) -> None:
    """Name a tracking server; workers fetch the files of versions that were logged there."""
    with connected() as (client, output):
        output.record(client.tracking_servers.add(name, url, credentials_env=credentials_env))


@command(app, "list")
def list_() -> None:
    """List tracking servers."""
    with connected() as (client, output):
        output.table(client.tracking_servers.list(), _COLUMNS)


@command(app, "remove", has_dry_run=True)
def remove(name: Annotated[str, typer.Argument(help="Which one.")]) -> None:
    """Forget a tracking server; what was brought from it stays."""
    with connected() as (client, output):
        client.tracking_servers.remove(name)
        output.message(f"The tracking server {name!r} is forgotten.")
