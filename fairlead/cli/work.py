"""`fairlead work`: what workers are doing, what waits for one, and when it will be done."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.output import render_value, without_controls
from fairlead.core.clock import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fairlead.cli.output import Output
    from fairlead.sdk.client import Fairlead

app = group("What workers are doing.")

_LOOK_SECONDS = 1.0
_SOON = timedelta(minutes=1)
_COLUMNS = ("work", "from", "region", "state", "progress", "speed", "to go", "moved", "attempts", "next", "reason")
_DIGEST_LENGTH = 12
_HEX_LENGTH = 64


@command(app, "work")
def work(
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on showing it until nothing runs or is due within a minute.")
    ] = False,
) -> None:
    """Show what workers are doing and what waits for one: progress, speed, time to go, and why it waits."""
    with connected() as (client, output):
        if watch:
            watch_work(client, output)
        elif output.form == "human":
            output.table([describe(item) for item in client.work()], _COLUMNS)
        else:
            output.table(client.work(), ["subject"])


def watch_work(client: Fairlead, output: Output, *, kinds: Sequence[str] | None = None) -> None:
    """Show work of some kinds (None: all) as it goes on, until nothing runs or is due soon: bars or lines."""
    draw: Callable[[list[dict[str, Any]]], None] = _print_lines(output)
    bars = None
    if output.form == "human" and sys.stderr.isatty():
        bars = _Bars()
        draw = bars.draw
    try:
        while True:
            items = [item for item in client.work() if kinds is None or item["kind"] in kinds]
            draw(items)
            if not any(_goes_on(item) for item in items):
                break
            time.sleep(_LOOK_SECONDS)
    finally:
        if bars is not None:
            bars.close()
    if output.form == "human" and items:
        output.table([describe(item) for item in items], _COLUMNS)


def describe(item: dict[str, Any]) -> dict[str, Any]:
    """One piece of work as a person reads it."""
    done, total, speed = item.get("progress_bytes"), item.get("total_bytes"), item.get("bytes_per_second")
    is_running = item["state"] == "RUNNING"
    progress = None
    if is_running and total:
        progress = (
            f"{item.get('phase') or ''} {in_bytes(done or 0)} of {in_bytes(total)} ({100 * (done or 0) // total} %)"
        )
    eta = item.get("eta_seconds")
    return {
        "work": f"{item['kind']} {_short(str(item['subject']))}",
        "from": item.get("source_region"),
        "region": item["region"],
        "state": item["state"],
        "progress": None if progress is None else progress.strip(),
        "speed": None if speed is None else f"{in_bytes(speed)}/s",
        "to go": None if eta is None else in_time(eta),
        "moved": in_bytes(item["moved_bytes"]) if item.get("moved_bytes") else None,
        "attempts": item["attempts"],
        "next": None if is_running else item["not_before"],
        "reason": None if is_running else item.get("error_detail"),
    }


def in_bytes(count: int) -> str:
    """A number of bytes in the unit that suits it."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def in_time(seconds: int) -> str:
    """A span of seconds in the two units that suit it."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _short(subject: str) -> str:
    """A subject as a person tells it apart: an artifact by its first digits, since its region is shown beside it."""
    parts = subject.split("/")
    digests = [part[:_DIGEST_LENGTH] for part in parts if len(part) == _HEX_LENGTH]
    return digests[0] if digests else subject


def _goes_on(item: dict[str, Any]) -> bool:
    return item["state"] == "RUNNING" or parse_time(item["not_before"]) <= datetime.now(UTC) + _SOON


def _print_lines(output: Output) -> Callable[[list[dict[str, Any]]], None]:
    """Print each piece of work whenever something about it has changed: plain lines, or a JSON object on each."""
    last: dict[str, str] = {}
    regions: dict[str, str] = {}

    def draw(items: list[dict[str, Any]]) -> None:
        for item in items:
            shown = describe(item)
            if output.form == "json":
                line = json.dumps(item)
            else:
                parts = (f"{key} {value}" for key, value in shown.items() if value is not None and key != "work")
                line = f"{shown['work']}: {', '.join(parts)}"
            key = f"{item['kind']} {item['subject']}"
            regions[key] = item["region"]
            if last.get(key) != line:
                last[key] = line
                sys.stdout.write(without_controls(line) + "\n")
        for key in last.keys() - {f"{item['kind']} {item['subject']}" for item in items}:
            del last[key]
            if output.form == "human":
                kind, _, subject = key.partition(" ")
                sys.stdout.write(without_controls(f"{kind} {_short(subject)} in {regions[key]}: done\n"))
        sys.stdout.flush()

    return draw


class _Bars:
    """A bar for each piece of work that runs or waits, on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
        from rich.table import Column

        self._progress = Progress(
            # Without markup: a name such as `[red]` is a name.
            # Each piece of work has one line, whatever the terminal's width: what does not fit is cut off.
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=12),
            DownloadColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[status]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=Console(file=sys.stderr),
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._progress.start()

    def draw(self, items: list[dict[str, Any]]) -> None:
        """Show these, and no others."""
        keys = {f"{item['kind']} {item['subject']}": item for item in items}
        for key in self._tasks.keys() - keys.keys():
            self._progress.remove_task(self._tasks.pop(key))
        for key, item in keys.items():
            shown = describe(item)
            if key not in self._tasks:
                title = without_controls(f"{shown['work']} -> {item['region']}")
                self._tasks[key] = self._progress.add_task(title, total=None, status="")
            if item["state"] == "RUNNING":
                status = " ".join(str(part) for part in (item.get("phase"), shown["speed"], shown["to go"]) if part)
            else:
                until = render_value(item["not_before"], is_short=True)
                status = f"{item.get('error_code') or 'waits'} until {until}"
            self._progress.update(
                self._tasks[key],
                completed=item.get("progress_bytes") or 0,
                total=item.get("total_bytes"),
                status=without_controls(status),
            )

    def close(self) -> None:
        """Take the bars away."""
        self._progress.stop()
