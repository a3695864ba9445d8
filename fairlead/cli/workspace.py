"""`fairlead workspace`: tenants of one server."""

from __future__ import annotations

from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group, is_dry_run

app = group("Workspaces: tenants of one server, with no way to see across.")


@command(app, "create", has_dry_run=True)
def create(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and dashes.")],
    *,
    owner: Annotated[str, typer.Option(help="Principal of its first token.")] = "owner",
) -> None:
    """Make a workspace; its owner's secret is printed this once. Needs the scope server."""
    with connected() as (client, output):
        made = client.workspaces.create(name, owner=owner)
        members = {key: value for key, value in made.to_json().items() if key != "owner"}
        if is_dry_run() or made.owner is None:
            output.record(members)
            return
        output.message("Keep the owner's secret now: it is not shown again.")
        output.record({"secret": made.owner.secret, "principal": made.owner.principal, **members})


@command(app, "list")
def list_() -> None:
    """List the workspaces of the server. Needs the scope server."""
    with connected() as (client, output):
        output.table(client.workspaces.list(), ["name", "jurisdiction", "created_at"])


@command(app, "show")
def show(name: Annotated[str, typer.Argument(help="One's own workspace, or any with the scope server.")]) -> None:
    """Show one workspace."""
    with connected() as (client, output):
        members = client.workspaces.get(name).to_json()
        output.record({key: value for key, value in members.items() if key != "owner"})
