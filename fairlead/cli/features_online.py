"""`fairlead features serve` and `servers`: feature servers, and how clients find them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.features import app

servers = group("Feature servers that clients find by themselves.")

_COLUMNS = ["region", "url", "is_alive", "seen_at", "id"]


@command(app, "serve")
def serve(
    *,
    region: Annotated[str, typer.Option(help="Region whose online stores are on this machine, or in its Redis.")],
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one.")] = 6566,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    url: Annotated[str | None, typer.Option(help="Address that clients are told; none: where it listens.")] = None,
    run_code: Annotated[bool, typer.Option("--run-code", help="Run code of on-demand views in this process.")] = False,
    log_features: Annotated[
        float, typer.Option(min=0, max=1, help="Share of answers that are noted, for `features skew`.")
    ] = 0.0,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file of the certificate and its chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
    offline_seconds: Annotated[
        float, typer.Option(min=0, help="How long a known token goes on while the registry is away.")
    ] = 3600,
) -> None:
    """Serve a region's online features over HTTP, as `feast serve` does; until SIGTERM."""
    from fairlead.app.feature_http import Serving, serve_features
    from fairlead.app.settings import ServerSettings

    with connected() as (client, _):
        serving = Serving(
            region=region,
            host=host,
            port=port,
            url=url,
            run_code=run_code,
            log_features=log_features,
            certificate=tls_certificate,
            key=tls_key,
            offline_seconds=offline_seconds,
        )
        serve_features(client, ServerSettings.read(), serving)


@command(servers, "list")
def list_() -> None:
    """List feature servers, and whether they were heard of lately."""
    with connected() as (client, output):
        output.table(client.features.servers.list(), _COLUMNS)


@command(servers, "add", has_dry_run=True)
def add(
    url: Annotated[str, typer.Argument(help="Where it answers: https://HOST:PORT.")],
    *,
    region: Annotated[str, typer.Option(help="Region that it serves.")],
) -> None:
    """List a feature server; clients send their tokens to it."""
    with connected() as (client, output):
        output.record(client.features.servers.register(region=region, url=url), name="id")


@command(servers, "remove", has_dry_run=True)
def remove(server: Annotated[str, typer.Argument(help="Id of the server.")]) -> None:
    """Take a feature server off the list."""
    with connected() as (client, output):
        client.features.servers.remove(server)
        output.message(f"{server} is off the list.")
