"""The results as Markdown: one table for each precision and version, all contestants side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.sync.race.contestants import Run

Results = Mapping[str, Mapping[str, Mapping[str, Run]]]
"""Runs by precision, version and contestant."""

TITLES = {
    "v1": "the first version",
    "v2": "all weights fine-tuned",
    "lora": "adapters merged",
    "header": "a note added to the header",
}
CLOUDS = ("S3", "GCS", "Azure")


def race_tables(results: Results) -> Iterator[str]:
    """Bytes to each destination, egress dollars, and time; the least of every column is bold."""
    for precision, versions in results.items():
        for version, runs in versions.items():
            yield f"\n**{precision.upper()}, {version}: {TITLES[version]}**\n"
            yield "| | S3 | GCS | Azure | all three | $ for 1000 | seconds | CPU seconds |"
            yield "|---|---|---|---|---|---|---|---|"
            for name, run in runs.items():
                yield _row(name, run, runs)


def _row(name: str, run: Run, runs: Mapping[str, Run]) -> str:
    cells = [_least(run.sent.get(cloud), [other.sent.get(cloud) for other in runs.values()]) for cloud in CLOUDS]
    whole = [other for other in runs.values() if len(other.sent) == len(CLOUDS)]
    if run in whole:
        cells.append(_least(sum(run.sent.values()), [sum(other.sent.values()) for other in whole]))
        cells.append(_least(run.egress_usd * 1000, [other.egress_usd * 1000 for other in whole], digits=3))
        cells.append(_least(run.seconds, [other.seconds for other in whole], digits=2))
        cells.append(_least(run.cpu_seconds, [other.cpu_seconds for other in whole], digits=2))
    else:
        cells += ["", f"{run.egress_usd * 1000:.3f} (S3)", f"{run.seconds:.2f} (S3)", f"{run.cpu_seconds:.2f} (S3)"]
    return f"| {name} | {' | '.join(cells)} |"


def _least(value: float | None, others: list[float | None] | list[float] | list[int | None], digits: int = 0) -> str:
    if value is None:
        return ""
    text = f"{value:,.{digits}f}"
    return f"**{text}**" if value <= min(other for other in others if other is not None) else text


def read_back_table(results: Results, ours: str) -> Iterator[str]:
    """What it takes to read every byte back at all destinations, which only one contestant does."""
    yield "| | seconds | CPU seconds |"
    yield "|---|---|---|"
    for precision, versions in results.items():
        for version, runs in versions.items():
            run = runs[ours]
            yield f"| {precision.upper()} {version} | {run.read_back_seconds:.2f} | {run.read_back_cpu_seconds:.2f} |"


def seconds_table(results: Results, names: Sequence[str]) -> Iterator[str]:
    """The seconds of copying alone, by destination, of some contestants."""
    yield "| | | S3 | GCS | Azure |"
    yield "|---|---|---|---|---|"
    for precision, versions in results.items():
        for version, runs in versions.items():
            for name in names:
                cells = " | ".join(f"{runs[name].copy_seconds[cloud]:.2f}" for cloud in CLOUDS)
                yield f"| {precision.upper()} {version} | {name} | {cells} |"


def target_lines(results: Results, ours: str) -> Iterator[str]:
    """What is sent for each version against the best of all others, whatever that is."""
    yield "| | best of the others | bytes of it | ours | ratio |"
    yield "|---|---|---|---|---|"
    for precision, versions in results.items():
        for version, runs in versions.items():
            totals = {name: sum(run.sent.values()) for name, run in runs.items() if len(run.sent) == len(CLOUDS)}
            mine = totals.pop(ours)
            best = min(totals, key=lambda name: totals[name])
            row = f"{best} | {totals[best]:,} | {mine:,} | {mine / totals[best]:.3f}"
            yield f"| {precision.upper()} {version} | {row} |"
