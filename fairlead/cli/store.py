"""`fairlead store`: what lies at locations, and how it is kept."""

from __future__ import annotations

from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.upkeep import COLUMNS, show_passes

app = group("What lies at locations: collecting garbage, and the block index.")

_Location = Annotated[str | None, typer.Argument(help="Which location; all if unset.")]
_Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait and show what was found.")]


@command(app, "collect")
def collect(
    location: _Location = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go, when and why; change nothing.")
    ] = False,
    wait: _Wait = True,
) -> None:
    """Let what nothing refers to go on by one step: marked, withdrawn, deleted; repack what is mostly dead."""
    with connected() as (client, output):
        show_passes(client, output, client.upkeep.collect(location, dry_run=dry_run), wait=wait)


@command(app, "rebuild-index")
def rebuild_index(
    location: _Location = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show how it differs; change nothing.")] = False,
    wait: _Wait = True,
) -> None:
    """Make the block index of a location again from its packs alone, reading every byte, while things run."""
    with connected() as (client, output):
        show_passes(client, output, client.upkeep.rebuild_index(location, dry_run=dry_run), wait=wait)


@command(app, "check")
def check(location: _Location = None, *, wait: _Wait = True) -> None:
    """Compare the block index with what the packs say they hold, without reading them whole."""
    with connected() as (client, output):
        show_passes(client, output, client.upkeep.rebuild_index(location, dry_run=True, quick=True), wait=wait)


@command(app, "passes")
def passes() -> None:
    """List scrubs, collections and comparisons, newest first."""
    with connected() as (client, output):
        output.table(client.upkeep.list(), COLUMNS)


@command(app, "show")
def show(pass_id: Annotated[str, typer.Argument(help="The pass.")]) -> None:
    """Show one pass and all that it found."""
    with connected() as (client, output):
        show_passes(client, output, [client.upkeep.get(pass_id)], wait=True)
