"""`fairlead agent`: who joins features in which region."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.server import server_packages
from fairlead.core.errors import InvalidInput

app = group("Feature agents: join features where they live, for federated reads.")

_COLUMNS = ["region", "address", "state", "principal", "seen_at", "certificate_sha256"]
Region = Annotated[str, typer.Option(help="Region whose views it joins (`cloud:region`).")]


@command(app, "serve")
def serve(
    *,
    region: Region,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free one.", min=0, max=65535)] = 8490,
    address: Annotated[str | None, typer.Option(help="HOST:PORT that callers reach it at; that one if unset.")] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM of its certificate chain; on loopback, one is made if unset.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM of the certificate's private key.")] = None,
    authority: Annotated[
        Path | None, typer.Option(help="PEM of the authority that callers hold it to; its certificate if unset.")
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Most entity rows of one call.")] = 20_000_000,
    max_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of one call's entity rows.")] = 2 * 2**30,
    max_answer_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of one call's answer.")] = 4 * 2**30,
    max_joins: Annotated[int, typer.Option(min=1, help="Most joins at once.")] = 4,
    max_calls: Annotated[int, typer.Option(min=1, help="Most calls of one principal at once.")] = 16,
    max_seconds: Annotated[float, typer.Option(min=1, help="Longest that one call may take.")] = 600.0,
) -> None:
    """Join features of a region for whoever brings a ticket, over Arrow Flight and TLS."""
    with server_packages():
        from fairlead.app.feature_agent import read_identity, serve_agent
        from fairlead.featurestore.agent_flight import AgentLimits
    if (certificate is None) != (key is None):
        raise InvalidInput("A certificate goes with its key.", hint="Give both --certificate and --key.")
    identity = None if certificate is None or key is None else read_identity(certificate, key, authority)
    limits = AgentLimits(
        rows=max_rows,
        bytes=max_bytes,
        answer_bytes=max_answer_bytes,
        joins=max_joins,
        calls=max_calls,
        seconds=max_seconds,
    )
    with connected() as (client, _):
        serve_agent(client, region=region, host=host, port=port, address=address, identity=identity, limits=limits)


@command(app, "list")
def list_() -> None:
    """List feature agents, and whether they serve."""
    with connected() as (client, output):
        output.table(client.agents.list(), _COLUMNS)


@command(app, "add", has_dry_run=True)
def add(
    *,
    region: Region,
    address: Annotated[str, typer.Option(help="HOST:PORT that callers reach it at.")],
    certificate: Annotated[Path, typer.Option(help="PEM of its certificate, or of the authority that signs it.")],
    principal: Annotated[str | None, typer.Option(help="Principal whose token it runs with; yours if unset.")] = None,
) -> None:
    """Say that a feature agent may be trusted: entity rows and callers' tokens are sent there."""
    try:
        pem = certificate.read_text()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{certificate} is no file in PEM.", hint="Give its certificate.") from error
    with connected() as (client, output):
        output.record(client.agents.add(region=region, address=address, certificate=pem, principal=principal))


@command(app, "remove", has_dry_run=True)
def remove(*, region: Region, address: Annotated[str, typer.Option(help="HOST:PORT of the agent.")]) -> None:
    """Forget a feature agent: nothing is sent there any more."""
    with connected() as (client, output):
        client.agents.remove(region=region, address=address)
        output.message(f"No plan names the feature agent of {region} at {address} any more.")
