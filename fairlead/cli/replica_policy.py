"""`fairlead replica-policy`: where artifacts should be, for how long, and what is not there yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.parsing import read_resource

app = group("Replica policies: which artifacts should be in which regions, and for how long.")

_Name = Annotated[str, typer.Argument(help="Policy.")]
_Revision = Annotated[int | None, typer.Option(help="Refuse unless the policy still has this revision.")]


@command(app, "list")
def list_() -> None:
    """List the policies by name."""
    with connected() as (client, output):
        columns = ["name", "match.models", "match.environments", "match.kinds", "regions", "retention", "revision"]
        output.table(client.replica_policies.list(), columns)


@command(app, "show")
def show(name: _Name) -> None:
    """Show one policy."""
    with connected() as (client, output):
        output.record(client.replica_policies.get(name))


@command(app, "apply", has_dry_run=True)
def apply(
    name: _Name,
    file: Annotated[Path, typer.Argument(help="YAML or JSON resource of kind ReplicaPolicy.")],
    *,
    revision: _Revision = None,
) -> None:
    """Create or replace a policy from a file."""
    with connected() as (client, output):
        wanted = read_resource(file, "ReplicaPolicy")
        output.record(client.replica_policies.apply(name, wanted, revision=revision))


@command(app, "delete", has_dry_run=True)
def delete(name: _Name, *, revision: _Revision = None) -> None:
    """Remove a policy; what it governed should be everywhere again, unless another governs it."""
    with connected() as (client, output):
        client.replica_policies.delete(name, revision=revision)
        output.message(f"Removed {name}.")


@command(app, "drift")
def drift() -> None:
    """List every replica that is not as the policies say: missing, damaged or unwanted."""
    with connected() as (client, output):
        columns = ["artifact", "kind", "location", "region", "drift", "state"]
        output.table(client.replica_policies.drift(), columns)
