"""`fairlead issuer`: whose identity tokens are exchanged for API tokens, and whom they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.parsing import read_resource

app = group("Issuers: CI systems and clusters whose identity tokens are believed, and whom they stand for.")

_Name = Annotated[str, typer.Argument(help="Issuer.")]
_Revision = Annotated[int | None, typer.Option(help="Refuse unless the issuer still has this revision.")]


@command(app, "list")
def list_() -> None:
    """List the issuers by name."""
    with connected() as (client, output):
        output.table(client.issuers.list(), ["name", "issuer", "audience", "rules", "revision"])


@command(app, "put", has_dry_run=True)
def put(
    name: _Name,
    file: Annotated[Path, typer.Argument(help="YAML or JSON resource of kind Issuer.")],
    *,
    revision: _Revision = None,
) -> None:
    """Create or replace an issuer from a file."""
    wanted = read_resource(file, "Issuer")
    with connected() as (client, output):
        output.record(client.issuers.put(name, wanted, revision=revision))


@command(app, "delete", has_dry_run=True)
def delete(name: _Name, *, revision: _Revision = None) -> None:
    """Believe an issuer no longer; tokens that were exchanged for its own end in their minutes."""
    with connected() as (client, output):
        client.issuers.delete(name, revision=revision)
        output.message(f"Removed {name}.")
