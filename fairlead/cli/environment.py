"""`fairlead environment`: the policies of dev, staging and production."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.parsing import read_resource

app = group("Environments and their promotion policies.")


@command(app, "list")
def list_() -> None:
    """List environments in their order, with their policies."""
    with connected() as (client, output):
        columns = ["name", "revision", "policy.gates", "policy.required_regions", "policy.approvals"]
        output.table(client.environments.list(), columns)


@command(app, "policy", has_dry_run=True)
def policy(
    name: Annotated[str, typer.Argument(help="Environment.")],
    file: Annotated[Path | None, typer.Argument(help="YAML or JSON policy to set; none: show it.")] = None,
    *,
    revision: Annotated[int | None, typer.Option(help="Refuse unless the policy still has this revision.")] = None,
) -> None:
    """Show an environment's policy, or replace it from a file."""
    with connected() as (client, output):
        if file is None:
            output.record(client.environments.get(name))
        else:
            wanted = read_resource(file, "EnvironmentPolicy")
            output.record(client.environments.set_policy(name, wanted, revision=revision))
