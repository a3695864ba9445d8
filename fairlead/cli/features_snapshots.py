"""`fairlead features snapshot`, `snapshots`, `show-snapshot`, `export`: data as of a time, pinned and read again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.core.clock import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from fairlead.cli.output import Output
    from fairlead.sdk.records import Snapshot

app = group("Snapshots: take them, list them, show what is in them, and restore their rows.")

_PARTS = ["view", "residency", "rows", "left_out", "min_event_time", "max_event_time", "deltas", "sent_bytes", "digest"]
_COLUMNS = ["view", "column", "type", "nulls", "distinct", "min", "max", "mean"]


@command(app, "snapshots")
def snapshots(
    service: Annotated[str | None, typer.Argument(help="Feature service; none: all.")] = None,
    *,
    as_of: Annotated[str | None, typer.Option(help="Only those as of this time or before.")] = None,
) -> None:
    """List snapshots, newest first."""
    with connected() as (client, output):
        until = None if as_of is None else parse_time(as_of)
        found = client.features.snapshots(service=service, until=until)
        output.table(found, ["digest", "service", "as_of", "state", "id"])


@command(app, "snapshot", has_dry_run=True)
def snapshot(
    service: Annotated[str, typer.Argument(help="Name of the feature service.", metavar="SERVICE")],
    *,
    as_of: Annotated[str | None, typer.Option(help="Time, such as 2026-03-01T00:00:00Z; none: now.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is stored and read back.")] = True,
) -> None:
    """Pin a feature service's data as it was known at a time."""
    with connected() as (client, output):
        moment = None if as_of is None else parse_time(as_of)
        taken = client.features.snapshot(service, as_of=moment, wait=False)
        if not wait or is_dry_run():
            output.record(taken, name="id")
            return
        _show(output, client.features.wait_snapshot(taken.id, progress=_telling(output)))


@command(app, "show-snapshot")
def show_snapshot(
    snapshot: Annotated[str, typer.Argument(help="Snapshot digest or id.", metavar="SNAPSHOT")],
) -> None:
    """Show a snapshot: its parts, what is in their columns, and what each region lacks and why."""
    with connected() as (client, output):
        _show(output, client.features.get_snapshot(snapshot))


@command(app, "export")
def export(
    snapshot: Annotated[str, typer.Argument(help="Snapshot digest or id.", metavar="SNAPSHOT")],
    *,
    view: Annotated[str, typer.Option(help="Feature view.")],
    to: Annotated[Path, typer.Option(help="Parquet file to write.")],
    region: Annotated[str | None, typer.Option(help="Region that this runs in, for data under a class.")] = None,
    leave_out: Annotated[bool, typer.Option("--leave-out", help="Leave out features that may not be there.")] = False,
) -> None:
    """Restore the rows of one view of a snapshot, as they were read from its source."""
    with connected() as (client, output):
        found = client.features.export(snapshot, view, to, region=region, leave_out=leave_out)
        output.record({**asdict(found), "path": str(found.path)}, name="path")


def _show(output: Output, found: Snapshot) -> None:
    if output.form != "human":
        output.record(found, name="digest")
        return
    output.record({name: value for name, value in asdict(found).items() if name not in {"artifacts", "lacks"}})
    parts: list[Any] = list(found.artifacts)
    output.table([{**(part["statistics"] or {}), **part} for part in parts], _PARTS, title="parts")
    if columns := [row for part in parts for row in _column_rows(part)]:
        output.table(columns, _COLUMNS, title="columns")
    for each in found.lacks:
        lack: Any = each
        output.message(
            f"{lack['region']} lacks {', '.join(lack['features']) or 'everything'} of {lack['view']}: {lack['reason']}"
        )


def _column_rows(part: Any) -> list[dict[str, Any]]:
    """What is in the columns of a part; nothing where only its rows may be told."""
    statistics: dict[str, Any] = part["statistics"] or {}
    columns: dict[str, dict[str, Any]] = statistics.get("columns") or {}
    nulls: dict[str, int] = statistics.get("nulls") or {}
    return [{"view": part["view"], "column": name, "nulls": nulls.get(name), **each} for name, each in columns.items()]


def _telling(output: Output) -> Callable[[Snapshot], None]:
    """Says once how many parts are written, each time that there are more."""
    told = -1

    def tell(found: Snapshot) -> None:
        nonlocal told
        written = sum(part.get("digest") is not None for part in found.artifacts)
        if written != told and found.state == "PENDING":
            told = written
            output.message(f"{written} of {len(found.artifacts)} parts are written; each is read back then.")

    return tell
