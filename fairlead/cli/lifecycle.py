"""`fairlead model archive, delete, restore, card` and `fairlead retention`: what becomes of what is needed no more."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.cli.amounts import render_size
from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.cli.model import app as model_app
from fairlead.cli.output import Output, without_controls
from fairlead.cli.parsing import read_named_resource
from fairlead.core.errors import InvalidInput
from fairlead.sdk.lifecycle import RetentionStep

app = group("Retention policies: which versions go by themselves, and when.")
card_app = group("Model cards: what people say of a model or a version, in Markdown.")
model_app.add_typer(card_app, name="card")

_Reference = Annotated[str, typer.Argument(help="NAME, or NAME/VERSION.", metavar="REFERENCE")]
_Name = Annotated[str, typer.Argument(help="Policy.")]
_Revision = Annotated[int | None, typer.Option(help="Refuse unless it still has this revision.", min=0)]
_Template = Annotated[
    bool, typer.Option("--template", help="A card that is yet to be written, filled with what the record knows.")
]


@command(model_app, "archive", has_dry_run=True)
def archive(reference: _Reference) -> None:
    """Hide a model or version from lists; it can be read and not promoted."""
    with connected() as (client, output):
        output.record(client.lifecycle.archive(reference))


@command(model_app, "unarchive", has_dry_run=True)
def unarchive(reference: _Reference) -> None:
    """Take a model or version out of the archive."""
    with connected() as (client, output):
        output.record(client.lifecycle.unarchive(reference))


@command(model_app, "delete", has_dry_run=True)
def delete(reference: _Reference) -> None:
    """Delete a model with its versions, or a version; it can be restored while its bytes are kept."""
    with connected() as (client, output):
        client.lifecycle.delete(reference)
        if not is_dry_run():
            output.message(f"Deleted {reference}. To take it back: fairlead model restore {reference}")


@command(model_app, "restore", has_dry_run=True)
def restore(reference: _Reference) -> None:
    """Take the deletion of a model or version back; aliases stay deleted."""
    with connected() as (client, output):
        output.record(client.lifecycle.restore(reference))


@command(card_app, "show")
def show_card(reference: _Reference, *, template: _Template = False) -> None:
    """Print a card, as the text that was written."""
    with connected() as (client, output):
        if template:
            output.record({"text": client.cards.draft(reference)}, human=lambda row: str(row["text"]))
            return
        card = client.cards.get(reference)
        if not card.text and output.form == "human":
            output.message(f"{reference} has no card. Write one: fairlead model card edit {reference} --template")
            return
        output.record(card, human=lambda row: str(row["text"]), markdown=lambda row: str(row["text"]))


@command(card_app, "set", has_dry_run=True)
def set_card(
    reference: _Reference,
    file: Annotated[Path | None, typer.Argument(help="Markdown file, or - for standard input.")] = None,
    *,
    template: _Template = False,
    revision: _Revision = None,
) -> None:
    """Write a card from a file; an empty one takes it away."""
    if (file is None) == (not template):
        raise typer.BadParameter("Give a FILE, or --template.")
    text = None if file is None else _read(file)
    with connected() as (client, output):
        wanted = client.cards.draft(reference) if text is None else text
        _say(output, client.cards.put(reference, wanted, revision=revision).to_json())


@command(card_app, "edit")
def edit_card(reference: _Reference, *, template: _Template = False) -> None:
    """Open a card in your editor, and write it back unless somebody changed it meanwhile."""
    with connected() as (client, output):
        card = client.cards.get(reference)
        before = card.text or (client.cards.draft(reference) if template else "")
        after = _edit(before)
        if after == card.text:
            output.message("Nothing was changed.")
            return
        _say(output, client.cards.put(reference, after, revision=card.revision).to_json())


@command(app, "list")
def list_policies() -> None:
    """List the policies by name."""
    with connected() as (client, output):
        columns = [
            "name",
            "models",
            "keep_last",
            "keep_held_days",
            "delete_archived_after_days",
            "release_deleted_after_days",
            "revision",
        ]
        output.table(client.retention.list(), columns)


@command(app, "show")
def show_policy(name: _Name) -> None:
    """Show one policy, as its owners write it."""
    import yaml

    with connected() as (client, output):
        found = client.retention.get(name)
        document = {
            "apiVersion": "fairlead/v1",
            "kind": "RetentionPolicy",
            "metadata": {"name": name},
            "spec": found.spec(),
        }
        output.record(found, human=lambda _: yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


@command(app, "apply", has_dry_run=True)
def apply(
    files: Annotated[list[Path], typer.Argument(help="YAML or JSON resources of kind RetentionPolicy.")],
    *,
    revision: _Revision = None,
) -> None:
    """Create or replace policies from files, and print what would go by all of them now."""
    wanted = [read_named_resource(file, "RetentionPolicy") for file in files]
    with connected() as (client, output):
        steps = client.retention.plan(dict(wanted))
        applied = [client.retention.apply(name, spec, revision=revision) for name, spec in wanted]
        if output.form == "json":
            output.record(
                {"policies": [each.to_json() for each in applied], "steps": [each.to_json() for each in steps]}
            )
            return
        _show_steps(output, steps)
        if not is_dry_run():
            output.message("\n".join(f"{each.name} is at revision {each.revision}." for each in applied))
            output.message("A worker applies it within the hour; at once: fairlead retention run")


@command(app, "delete", has_dry_run=True)
def delete_policy(name: _Name, *, revision: _Revision = None) -> None:
    """Remove a policy; nothing goes by it any longer."""
    with connected() as (client, output):
        client.retention.delete(name, revision=revision)
        output.message(f"Removed {name}.")


@command(app, "plan")
def plan() -> None:
    """Show what would go now by the policies that are applied."""
    with connected() as (client, output):
        _show_steps(output, client.retention.plan())


@command(app, "run", has_dry_run=True)
def run() -> None:
    """Let go what would go now, without waiting for the hour."""
    with connected() as (client, output):
        _show_steps(output, client.retention.run())


def _show_steps(output: Output, steps: tuple[RetentionStep, ...]) -> None:
    output.table(steps, ["reference", "action", "bytes", "policy", "because"])
    released = sum(step.bytes for step in steps if step.action == "release")
    output.message(
        f"{sum(step.action == 'delete' for step in steps)} to delete (they can be restored), "
        f"{sum(step.action == 'release' for step in steps)} to release: {render_size(released)} at all locations."
    )


def _say(output: Output, row: dict[str, Any]) -> None:
    output.record({name: value for name, value in row.items() if output.form == "json" or name != "text"})


def _edit(text: str) -> str:
    """What the person's editor makes of a text."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "card.md"
        file.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise InvalidInput(f"The editor {editor!r} failed: {error}.", hint="Set EDITOR, or use: card set") from None
        return _read(file)


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(without_controls(f"{str(file)!r} cannot be read: {error}."), hint="Give UTF-8.") from None
