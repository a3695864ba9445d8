"""`fairlead bundle`: built, shown with their papers, tested, and what they may hold."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fairlead.cli.context import command, connected, group, is_dry_run, listing
from fairlead.core.errors import GateRefused, InvalidInput
from fairlead.sdk.records import Bundle

_BUILD = "build"
_COLUMNS = ["reference", "state", "digest", "size_bytes", "error_detail", "id"]
_Reference = Annotated[str, typer.Argument(help="NAME/VERSION or NAME@ALIAS.", metavar="REFERENCE")]


class BundleGroup(TyperGroup):
    """`fairlead bundle NAME@ENVIRONMENT` means `fairlead bundle build NAME@ENVIRONMENT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # References hold a slash or an at sign, and names of commands and forms of output do not.
        word = next((each for each in args if each in self.commands or "/" in each or "@" in each), None)
        if word is not None and word not in self.commands:
            args = [_BUILD, *args]
        return super().parse_args(ctx, args)


app = group("Bundles: build, show, test; alone, it lists them.", is_listing=True)


@listing(app)
def list_() -> None:
    """List the bundles; with a REFERENCE, build one (see `fairlead bundle build`)."""
    with connected() as (client, output):
        output.table(client.bundles.list(), _COLUMNS)


@command(app, _BUILD, has_dry_run=True)
def build(
    reference: _Reference,
    *,
    service: Annotated[Path | None, typer.Option(help="File with a BentoML service of your own.")] = None,
    service_file: Annotated[str | None, typer.Option(help="Path of one in the version's files.")] = None,
    lock: Annotated[Path | None, typer.Option(help="Requirements with hashes, such as another bundle's lock.")] = None,
    test: Annotated[bool, typer.Option("--test", help="Run its smoke test once it is built.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until it is built, stored and read back.")] = True,
) -> None:
    """Build the BentoML bundle of a version; the same recipe gives the same digest."""
    with connected() as (client, output):
        has_waited = (wait or test) and not is_dry_run()
        built = client.bundles.build(
            reference,
            service_source=_read(service),
            service_file=service_file,
            lock=_read(lock),
            wait=has_waited,
        )
        if test and not is_dry_run():
            _require_passed(client.bundles.test(built.id))
        output.record(built, name="digest" if has_waited else "id")


@command(app, "show")
def show(
    reference: _Reference,
    *,
    sbom: Annotated[bool, typer.Option("--sbom", help="Print what is in it, as CycloneDX 1.6 JSON.")] = False,
    provenance: Annotated[bool, typer.Option("--provenance", help="Print the signed statement of its build.")] = False,
    lock: Annotated[bool, typer.Option("--lock", help="Print its requirements with their hashes.")] = False,
) -> None:
    """Show the bundle of a version that deployments run, or one of its papers."""
    if sbom + provenance + lock > 1:
        raise typer.BadParameter("Give one of --sbom, --provenance and --lock.")
    with connected() as (client, output):
        found: Bundle = client.bundles.of(reference)
        if lock:
            sys.stdout.write(client.bundles.paper(found.id, "lock"))
        elif sbom or provenance:
            paper = client.bundles.paper(found.id, "sbom" if sbom else "provenance")
            sys.stdout.write(json.dumps(paper, indent=2) + "\n")
        else:
            output.record(found, name="digest")


@command(app, "test", has_dry_run=True)
def run_test(
    reference: _Reference,
    *,
    wait: Annotated[bool, typer.Option(help="Wait for what comes of it.")] = True,
) -> None:
    """Run a bundle in a clean virtual environment, and compare it with the version's recorded examples."""
    with connected() as (client, output):
        has_waited = wait and not is_dry_run()
        found = client.bundles.test(client.bundles.of(reference).id, wait=has_waited)
        output.record(found, name="state" if has_waited else "id")
        if has_waited:
            _require_passed(found)


@command(app, "tests")
def tests(reference: _Reference) -> None:
    """List the smoke tests of a version's bundle, newest first."""
    with connected() as (client, output):
        columns = ["created_at", "state", "answered", "compared", "largest_difference", "seconds", "error_detail"]
        output.table(client.bundles.tests(client.bundles.of(reference).id), columns)


@command(app, "policy", has_dry_run=True)
def policy(
    model: Annotated[str, typer.Argument(help="Model.", metavar="MODEL")],
    *,
    allow_pickle: Annotated[
        bool | None,
        typer.Option("--allow-pickle/--refuse-pickle", help="Whether its bundles may hold pickles; none: show it."),
    ] = None,
) -> None:
    """Show or set what bundles of a model may hold. A pickle can run any code when it is opened."""
    with connected() as (client, output):
        if allow_pickle is None:
            output.record(client.bundles.policy(model))
        else:
            output.record(client.bundles.set_policy(model, allows_pickle=allow_pickle))


def _require_passed(test: Any) -> None:
    if test.state != "PASSED":
        raise GateRefused(f"The smoke test of {test.reference} failed: {test.error_detail}", reference=test.reference)


def _read(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}.") from None
