"""`fairlead keys`: encryption of what is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairlead.cli.context import command, connected, current_output, group, is_dry_run

app = group("Encryption keys: what is registered is encrypted under the active one.")

_COLUMNS = ["id", "state", "provider", "provider_key", "revision", "created_at", "wrapped_at"]
Provider = Annotated[str, typer.Option(help="What wraps the data key: file, aws-kms, gcp-kms or azure-key-vault.")]
WrappingKey = Annotated[
    str,
    typer.Option(
        "--wrapped-by", help="The wrapping key's name there: an ARN, projects/..., https://...; none: the key file."
    ),
]


@command(app, "make-file", has_dry_run=True)
def make_file(path: Annotated[Path, typer.Argument(help="The new file.")]) -> None:
    """Make a key file: 32 random bytes that wrap data keys. Without it nothing can be read; keep a copy elsewhere."""
    from fairlead.sync.store.keyring import make_key_file

    if is_dry_run():
        return
    name = make_key_file(path)
    current_output().record({"name": name, "path": str(path)}, human=lambda row: f"{row['path']} ({row['name']})")
    current_output().message(f"Set FAIRLEAD_KEY_FILE={path.absolute()} for the server, its workers and the clients.")


@command(app, "create", has_dry_run=True)
def create(*, provider: Provider = "file", wrapped_by: WrappingKey = "") -> None:
    """Make a data key and encrypt what is registered from now on under it."""
    with connected() as (client, output):
        output.record(client.keys.create(provider, wrapped_by))


@command(app, "list")
def list_() -> None:
    """List encryption keys; the data keys themselves are never shown."""
    with connected() as (client, output):
        output.table(client.keys.list(), _COLUMNS)


@command(app, "rotate", has_dry_run=True)
def rotate(
    key_id: Annotated[str | None, typer.Argument(help="Id of the key; none: every key.")] = None,
    *,
    provider: Annotated[str | None, typer.Option(help="Another kind of provider; none: the same.")] = None,
    wrapped_by: WrappingKey = "",
) -> None:
    """Have data keys wrapped anew; no object is rewritten."""
    with connected() as (client, output):
        wanted = [key_id] if key_id is not None else [key.id for key in client.keys.list()]
        rotated = [client.keys.rotate(each, provider=provider, provider_key=wrapped_by) for each in wanted]
        output.table(rotated, _COLUMNS)


@command(app, "retire", has_dry_run=True)
def retire(key_id: Annotated[str, typer.Argument(help="Id of the key.")]) -> None:
    """Encrypt nothing more under a key; what it encrypted stays readable."""
    with connected() as (client, output):
        output.record(client.keys.retire(key_id))
        if not is_dry_run() and not any(key.state == "ACTIVE" for key in client.keys.list()):
            output.message("No key is active: what is registered from now on is not encrypted by Fairlead.")
