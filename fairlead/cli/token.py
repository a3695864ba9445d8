"""`fairlead token`: API tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group, is_dry_run

app = group("API tokens.")


@command(app, "create", has_dry_run=True)
def create(
    name: Annotated[str, typer.Argument(help="What the token is for.")],
    *,
    principal: Annotated[str, typer.Option(help="Who it stands for.")],
    scope: Annotated[list[str], typer.Option(help="read, write, promote, approve, deploy or admin; repeat for more.")],
    days: Annotated[float | None, typer.Option(help="Days until it expires; none: never.", min=0.0001)] = None,
) -> None:
    """Make a token; its secret is printed this once."""
    with connected() as (client, output):
        seconds = None if days is None else round(days * 86400)
        created = client.tokens.create(name, principal=principal, scopes=scope, expires_in_seconds=seconds)
        if is_dry_run():
            output.record(replace(created, secret=None))
            return
        output.message("Keep the secret now: it is not shown again.")
        output.record({"secret": created.secret} | created.to_json())


@command(app, "list")
def list_() -> None:
    """List tokens, without their secrets."""
    with connected() as (client, output):
        output.table(client.tokens.list(), ["id", "name", "principal", "scopes", "expires_at", "revoked_at"])


@command(app, "revoke", has_dry_run=True)
def revoke(token_id: Annotated[str, typer.Argument(help="Id of the token.")]) -> None:
    """End a token at once."""
    with connected() as (client, output):
        client.tokens.revoke(token_id)
        if not is_dry_run():
            output.message("Revoked.")
