"""`fairlead events`: what happened, in order, and what happens."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group

app = group("What happens, in order.")


@command(app, "events")
def events(
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what happens, until interrupted.")] = False,
    after: Annotated[
        int | None,
        typer.Option(help="Only events after this sequence. Without it: all, or with --follow what is to come.", min=0),
    ] = None,
    action: Annotated[
        list[str] | None, typer.Option(help="Only these actions, such as 'model.*'; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only of these models, such as 'churn-*'.")] = None,
    environment: Annotated[str | None, typer.Option(help="Only of these environments.")] = None,
    limit: Annotated[int | None, typer.Option(help="Leave after so many events.", min=1)] = None,
) -> None:
    """Print sealed audit events in order, one a line; `--output json` prints one JSON object a line."""
    actions = action or []
    with connected() as (client, output):
        found = (
            client.events.follow(after=after, actions=actions, model=model, environment=environment)
            if follow
            else client.events.list(after=after or 0, actions=actions, model=model, environment=environment)
        )
        output.lines(islice(found, limit), ["sequence", "happened_at", "actor", "action", "subject", "facts"])
