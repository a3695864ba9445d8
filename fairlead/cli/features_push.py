"""`fairlead features push` and `lag`: rows of streams, and how far regions are behind them."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.cli.amounts import render_span
from fairlead.cli.context import command, connected, group
from fairlead.core.errors import InvalidInput, MissingExtra

app = group("Rows of streams: push them, and see how far each region is behind.")


@command(app, "push", has_dry_run=True)
def push(
    source: Annotated[str, typer.Argument(help="Push source, or another stream of a view.")],
    file: Annotated[Path, typer.Argument(help="Rows: .json (objects, or one on each line), .parquet or .csv.")],
    *,
    to: Annotated[str, typer.Option(help="online, offline or online_and_offline.")] = "online_and_offline",
    region: Annotated[str | None, typer.Option(help="Region that takes the rows; none: where the server is.")] = None,
) -> None:
    """Push rows: durable when this returns, and each event once, however often it is pushed."""
    rows = read_rows(file)
    with connected() as (client, output):
        pushed = client.features.push(source, rows, to=to, region=region)
        output.table([asdict(each) for each in pushed], ["view", "region", "accepted", "duplicates", "is_online"])


@command(app, "lag")
def lag(view: Annotated[str, typer.Argument(help="Name of the feature view.", metavar="VIEW")]) -> None:
    """Show how far each region is behind the rows that were pushed to a view."""
    with connected() as (client, output):
        logs: Any = client.features.logs(view)
        if output.form != "human":
            output.table(logs, ["log", "region", "rows", "unsealed_rows", "segments"])
            return
        rows = [
            {
                "taken in": log["region"],
                "rows": log["rows"],
                "region": region["region"],
                "has": region["through"],
                "behind": region["behind_rows"],
                "for": render_span(region["behind_seconds"]),
                "online": ", ".join(f"{each['service']}: {each['through']}" for each in region["online"]) or "-",
            }
            for log in logs
            for region in log["regions"]
        ]
        output.table(rows, ["taken in", "rows", "region", "has", "behind", "for", "online"])


def read_rows(file: Path) -> Any:
    """The rows of a file, as `Features.push` takes them.

    Raises:
        InvalidInput: if there is no such file, or it is of none of these kinds.
    """
    try:
        if file.suffix in {".json", ".jsonl", ".ndjson"}:
            text = file.read_text("utf-8")
            found: Any = json.loads(text) if text.lstrip().startswith("[") else _lines(text)
            return found
        if file.suffix not in {".parquet", ".csv"}:
            raise InvalidInput(
                f"{file.name!r} is no file of rows.", hint="Name a .json, .jsonl, .parquet or .csv file."
            )
        reader: Any = import_module("pyarrow.parquet" if file.suffix == ".parquet" else "pyarrow.csv")
        return reader.read_table(file) if file.suffix == ".parquet" else reader.read_csv(file)
    except ModuleNotFoundError as error:
        raise MissingExtra("Reading such files needs Arrow.", hint="Run: pip install 'fairlead[features]'") from error
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{str(file)!r} cannot be read: {error}.", hint="Name a file of rows.") from None


def _lines(text: str) -> list[Any]:
    found: list[Any] = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except ValueError:
            raise ValueError(f"line {number} is no JSON") from None
    return found
