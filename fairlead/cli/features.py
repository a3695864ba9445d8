"""`fairlead features`: apply definitions, compare them, materialize, read."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.cli.feature_plans import plan_text
from fairlead.cli.parsing import parse_pairs
from fairlead.core.errors import InvalidInput

app = group("Features: apply definitions, take snapshots, materialize, read.")

_COMPARED = "SERVICE, SERVICE:NUMBER, view:NAME:NUMBER, a snapshot's digest, MODEL/VERSION or MODEL@ALIAS."

Service = Annotated[str, typer.Argument(help="Name of the feature service.", metavar="SERVICE")]


@command(app, "apply")
def apply(
    path: Annotated[Path, typer.Argument(help="Feast repository: a folder of Python definitions.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also what breaks a model in an environment.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Take away what the project has no more.")] = False,
) -> None:
    """Apply a Feast repository's definitions, each versioned by its content."""
    with connected() as (client, output):
        output.record(client.features.apply(path, dry_run=dry_run, force=force, prune=prune), human=plan_text)


@command(app, "diff")
def diff(
    before: Annotated[str, typer.Argument(help=_COMPARED)], after: Annotated[str, typer.Argument(help="Likewise.")]
) -> None:
    """Show what differs between two versions of features, and whether it breaks a reader."""
    with connected() as (client, output):
        found: Any = client.features.diff(before, after)
        if output.form != "human":
            output.record(found)
            return
        if not found["differences"]:
            output.message(f"{before} and {after} are the same.")
            return
        output.table(found["differences"], ["effect", "path", "before", "after"])


@command(app, "list")
def list_() -> None:
    """List feature services."""
    with connected() as (client, output):
        output.table(client.features.services(), ["name", "version", "digest", "updated_at"])


@command(app, "show")
def show(service: Service) -> None:
    """Show a feature service as it is defined now."""
    with connected() as (client, output):
        output.record(client.features.get_service(service), name="digest")


@command(app, "materialize", has_dry_run=True)
def materialize(
    service: Service,
    *,
    snapshot: Annotated[str | None, typer.Option(help="Snapshot digest; none: the newest.")] = None,
    region: Annotated[list[str] | None, typer.Option(help="Only this region; repeat for more.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until every region serves it.")] = True,
) -> None:
    """Load a snapshot into each region's online store, from that region's own replica."""
    with connected() as (client, output):
        states = client.features.materialize(service, snapshot=snapshot, regions=region, wait=wait and not is_dry_run())
        output.table(states, ["region", "state", "snapshot", "rows", "materialized_at", "error.detail"])


@command(app, "read")
def read(
    service: Service,
    *,
    entity: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE[,VALUE...]; repeat for more keys, or give none."),
    ] = None,
    region: Annotated[str | None, typer.Option(help="Region whose store the server reads; none: its own.")] = None,
    near: Annotated[str | None, typer.Option(help="Ask feature servers, from the nearest to this region on.")] = None,
    max_staleness: Annotated[float | None, typer.Option(min=0, help="With --near: how old, in seconds.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Read the store of --region from this machine.")] = False,
) -> None:
    """Read the latest feature values of entities online; SERVICE@DIGEST reads one snapshot."""
    asked = parse_pairs(entity).items()
    entities = {key: [parse_value(item) for item in values.split(",")] for key, values in asked}
    if near is not None and (region is not None or local):
        raise InvalidInput("--near asks feature servers; --region and --local do not.", hint="Leave one out.")
    if max_staleness is not None and near is None and not local:
        raise InvalidInput("--max-staleness goes with --near or --local.", hint="Name the region: --near REGION.")
    limit = None if max_staleness is None else timedelta(seconds=max_staleness)
    with connected() as (client, output):
        answer: Any
        if near is not None or local:
            reader = (
                client.features.local_reader(service, region=region, max_staleness=limit)
                if local
                else client.features.reader(service, near=near, max_staleness=limit)
            )
            with reader:
                answer = reader.read(entities).to_json()
        else:
            answer = client.features.online(service, entities, region=region)
        if output.form == "human":
            output.message(f"{answer['region']}, snapshot {answer['snapshot']}")
            output.table(answer["rows"], list(answer["rows"][0]) if answer["rows"] else ["-"])
        else:
            output.record(answer)


def parse_value(text: str) -> Any:
    """An entity key as the store has it: a whole number where it reads as one, text otherwise."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int) and not isinstance(value, bool) else text
