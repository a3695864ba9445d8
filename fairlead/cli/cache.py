"""`fairlead cache`: copies of artifacts near those who read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.server import server_packages

app = group("Edge caches: artifacts' files over HTTP, pulled through and verified.")


@command(app, "serve")
def serve(
    *,
    location: Annotated[str, typer.Option(help="Name of the cache location (location add --kind cache).")],
    folder: Annotated[Path | None, typer.Option(help="Where blocks are kept; cache/NAME in the home if unset.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Bytes to keep; the location's size_bytes, or 10 GB.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free one.", min=0, max=65535)] = 8480,
) -> None:
    """Serve unrestricted artifacts' files at /artifacts/DIGEST/files/PATH, each byte verified."""
    with server_packages():
        from fairlead.app.edge_http import serve_edge
    with connected() as (client, _):
        place = folder or client.settings.home / "edge" / location
        serve_edge(client, location=location, folder=place, size_bytes=size, host=host, port=port)
