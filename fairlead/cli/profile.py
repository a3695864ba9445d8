"""`fairlead profile`: what one replica of a bundle does."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fairlead.cli.amounts import render_size
from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.core.errors import FairleadError, Unavailable

_TAKE = "take"
_Reference = Annotated[str, typer.Argument(help="NAME/VERSION or NAME@ALIAS.", metavar="REFERENCE")]


class ProfileGroup(TyperGroup):
    """`fairlead profile NAME@ENVIRONMENT` means `fairlead profile take NAME@ENVIRONMENT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        word = next((each for each in args if each in self.commands or "/" in each or "@" in each), None)
        if word is not None and word not in self.commands:
            args = [_TAKE, *args]
        return super().parse_args(ctx, args)


app = group("Profiles: requests a second, latency, CPU and memory of one replica, measured.")


@command(app, _TAKE, has_dry_run=True)
def take(
    reference: _Reference,
    *,
    on: Annotated[
        str, typer.Option(help="CLOUD:REGION whose worker measures; local: wherever the bundle is.")
    ] = "local",
    p95: Annotated[float | None, typer.Option(help="Most milliseconds of the 95th percentile.", min=0.001)] = None,
    max_concurrency: Annotated[int, typer.Option(help="Most callers at once.", min=1, max=256)] = 64,
    seconds: Annotated[float, typer.Option(help="How long each step lasts.", min=0.2, max=60)] = 3.0,
    plot: Annotated[Path | None, typer.Option(help="Draw latency against throughput into this SVG file.")] = None,
) -> None:
    """Measure a bundle under more and more load, until the limit or saturation."""
    with connected() as (client, output):
        bundle = client.bundles.of(reference)
        with output.progress(f"Measuring {reference}") as advance:
            found = client.profiles.take(
                bundle.id,
                region=None if on == "local" else on,
                p95_ms=p95,
                max_concurrency=max_concurrency,
                seconds=seconds,
                progress=lambda profile: advance(len(profile.levels), max(len(profile.levels), 1)),
            )
        if found.state == "FAILED" and not is_dry_run():
            error: FairleadError = Unavailable(
                found.error_detail or f"The profile of {reference} failed.", hint="Mend what is named, and try again."
            )
            raise error
        row = found.to_json()
        if plot is not None and not is_dry_run():
            plot.write_text(draw(row), encoding="utf-8")
            output.message(f"Wrote {plot}.")
        output.record(row, human=_describe, name="requests_per_second")


@command(app, "list")
def list_(reference: _Reference) -> None:
    """List the profiles of a version's bundle, newest first."""
    with connected() as (client, output):
        columns = ["state", "region", "instance_type", "requests_per_second", "p95_ms", "cpu_ms_per_request"]
        found = client.profiles.list(client.bundles.of(reference).id)
        output.table(found, [*columns, "peak_memory_bytes", "finished_at", "id"])


def _describe(row: dict[str, Any]) -> str:
    if row["state"] != "MEASURED":
        return f"{row['reference']}: {row['state']} in {row['region']}"
    rate = row["requests_per_second"]
    lines = [
        f"{row['reference']} on {row['instance_type'] or 'a machine of ' + row['region']}: "
        + ("no level kept the limit" if rate is None else f"{rate:.1f} requests/s a replica"),
        f"  starts in {row['start_seconds']:.1f} s, at most {render_size(row['peak_memory_bytes'])}",
        "  callers  requests/s  p50 ms  p95 ms  p99 ms  CPU ms  errors",
    ]
    lines += [
        f"  {each['concurrency']:>7}  {each['requests_per_second']:>10.1f}  {each['p50_ms']:>6.1f}  "
        f"{each['p95_ms']:>6.1f}  {each['p99_ms']:>6.1f}  {each['cpu_ms_per_request']:>6.2f}  {each['errors']:>6}"
        for each in row["levels"]
    ]
    return "\n".join(lines)


def draw(row: dict[str, Any]) -> str:
    """A profile as an SVG picture: p50 and p95 over requests a second, one point for each number of callers."""
    levels: list[dict[str, Any]] = row["levels"]
    width, height, edge = 640, 400, 60
    most_x = max((each["requests_per_second"] for each in levels), default=1.0) or 1.0
    most_y = max((each["p95_ms"] for each in levels), default=1.0) or 1.0

    def place(each: dict[str, Any], name: str) -> tuple[float, float]:
        x = edge + (width - 2 * edge) * each["requests_per_second"] / most_x
        return x, height - edge - (height - 2 * edge) * each[name] / most_y

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{edge}" y="30">{escape(row["reference"])}: latency over throughput of one replica</text>',
        f'<path d="M{edge} {edge}V{height - edge}H{width - edge}" fill="none" stroke="black"/>',
        f'<text x="{width - edge}" y="{height - 20}" text-anchor="end">{most_x:.0f} requests/s</text>',
        f'<text x="5" y="{edge}">{most_y:.0f} ms</text>',
    ]
    for name, colour in (("p50_ms", "#1b6ca8"), ("p95_ms", "#c8553d")):
        points = [place(each, name) for each in levels]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{each["concurrency"]}</title></circle>'
            for (x, y), each in zip(points, levels, strict=True)
        ]
        if points:
            x, y = points[-1]
            parts.append(f'<text x="{x - 5:.1f}" y="{y - 8:.1f}" text-anchor="end" fill="{colour}">{name[:3]}</text>')
    return "\n".join([*parts, "</svg>", ""])
