"""`fairlead token`: API tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.cli.replicate import parse_duration

app = group("API tokens.")


@command(app, "create", has_dry_run=True)
def create(
    name: Annotated[str, typer.Argument(help="What the token is for.")],
    *,
    principal: Annotated[str, typer.Option(help="Who it stands for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, write, promote, approve, deploy, admin or server; repeat for more."),
    ] = None,
    by_roles: Annotated[
        bool, typer.Option("--by-roles", help="Good for what the roles of the principal and its groups give.")
    ] = False,
    member: Annotated[
        list[str] | None, typer.Option("--group", help="Group of the principal; repeat for more.")
    ] = None,
    models: Annotated[list[str] | None, typer.Option(help="Pattern of models it is limited to; repeatable.")] = None,
    environments: Annotated[
        list[str] | None, typer.Option(help="Pattern of environments it is limited to; repeatable.")
    ] = None,
    days: Annotated[float | None, typer.Option(help="Days until it expires; none: never.", min=0.0001)] = None,
) -> None:
    """Make a token; its secret is printed this once."""
    with connected() as (client, output):
        seconds = None if days is None else round(days * 86400)
        created = client.tokens.create(
            name,
            principal=principal,
            # By roles, the most of it is what the roles say.
            scopes=scope or (["admin"] if by_roles else []),
            groups=member or [],
            by_roles=by_roles,
            models=models,
            environments=environments,
            expires_in_seconds=seconds,
        )
        if is_dry_run():
            output.record(replace(created, secret=None))
            return
        output.message("Keep the secret now: it is not shown again.")
        output.record({"secret": created.secret} | created.to_json())


@command(app, "rotate", has_dry_run=True)
def rotate(
    token_id: Annotated[str, typer.Argument(help="Id of the token.")],
    *,
    overlap: Annotated[str, typer.Option(help="How long the old one goes on, such as 24h.")] = "24h",
) -> None:
    """Make a successor of a token, and end the old one after an overlap; the new secret is printed this once."""
    with connected() as (client, output):
        created = client.tokens.rotate(token_id, overlap_seconds=round(parse_duration(overlap)))
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
