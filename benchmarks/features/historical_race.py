"""Point-in-time joins through `feast.FeatureStore`: Fairlead's offline store against Feast's DuckDB and Dask stores.

    .venv/bin/python benchmarks/features/historical_race.py [--cases 1m,deep,10m,10m-deep]
        [--engines fairlead,duckdb,dask] [--repeat 3] [--seed 1] [--plot docs/images/historical_race.svg]
        [--peers .tools/feast/bin/python]

`--peers` is a Python that has `feast[duckdb]`, for Feast's own stores; Fairlead runs in the Python that runs this.

Every store reads the same Parquet file through the same definitions, in a process of its own that has imported Feast
and opened the store before the clock starts; `to_arrow()` is measured. One row in a thousand is written twice with
equal times and other values (a tie), and two in a thousand are corrected later. The result of each store is compared
with Fairlead's, row by row; a difference is explained if Fairlead's row and the other's tie in the source.
"""

# ruff: noqa: S608  (every query is made of this file's own text)

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import duckdb

FEATURES = ("f1", "f2", "f3", "f4", "f5")
STORES = {
    "fairlead": {"type": "fairlead.featurestore.feast_offline.FairleadOfflineStore"},
    "duckdb": {"type": "duckdb"},
    "dask": {"type": "dask"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How much there is: rows of history about how many entities, and how many entity rows are asked for."""

    rows: int
    entities: int
    asked: int


MOST_CPU_SECONDS, MOST_GIB = 200, 12

CASES = {
    "1m": Case(rows=1_000_000, entities=20_000, asked=100_000),
    "deep": Case(rows=1_000_000, entities=1_000, asked=100_000),
    "10m": Case(rows=10_000_000, entities=200_000, asked=1_000_000),
    "10m-deep": Case(rows=10_000_000, entities=10_000, asked=1_000_000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one process took for the join."""

    cpu_seconds: float
    wall_seconds: float
    peak_mib: float
    added_mib: float
    rows: int


def generate(case: Case, folder: Path, seed: float) -> None:
    """Write the history and the entity rows of a case."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
        connection.execute(f"SELECT setseed({seed})")
        moment = "TIMESTAMPTZ '2026-01-01' + to_microseconds((random() * 90 * 86400000000)::BIGINT)"
        values = (
            "random() AS f1, random() AS f2, random()::FLOAT AS f3, "
            "(random() * 1000)::BIGINT AS f4, 'c' || (random() * 50)::INTEGER AS f5"
        )
        again = f"SELECT user_id, event_timestamp, created, {values} FROM first"
        connection.execute(
            f"""CREATE TABLE first AS SELECT *, event_timestamp + INTERVAL 1 HOUR AS created FROM
            (SELECT (random() * {case.entities - 1})::BIGINT AS user_id, {moment} AS event_timestamp, {values}, i
            FROM range({case.rows * 997 // 1000}) r(i))"""
        )
        connection.execute(
            f"""COPY (SELECT user_id, event_timestamp, created, {", ".join(FEATURES)} FROM first
            UNION ALL {again} WHERE i % 997 = 0
            UNION ALL {again.replace("created,", "created + INTERVAL 1 DAY,", 1)} WHERE i % 498 = 1)
            TO '{folder}/history.parquet'"""
        )
        connection.execute(
            f"""COPY (SELECT (random() * {case.entities * 1.02})::BIGINT AS user_id, {moment} AS event_timestamp,
            i AS label FROM range({case.asked}) r(i)) TO '{folder}/entities.parquet'"""
        )


def measure(engine: str, folder: Path) -> Run:
    """Join in this process."""
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_SECONDS, MOST_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_GIB * 2**30, MOST_GIB * 2**30))
    import pyarrow.parquet as pq
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float32, Float64, Int64, String

    store: Any = FeatureStore(
        config=RepoConfig(
            project="race",
            provider="local",
            registry=str(folder / f"{engine}.db"),
            offline_store=STORES[engine],
            online_store=None,
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    kinds = dict(zip(FEATURES, (Float64, Float64, Float32, Int64, String), strict=True))
    view = FeatureView(
        name="stats",
        entities=[user],
        ttl=timedelta(days=30),
        schema=[Field(name=name, dtype=kind) for name, kind in kinds.items()],
        source=FileSource(
            path=str(folder / "history.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        ),
    )
    store.apply([user, view])
    asked = cast("Any", pq.read_table(folder / "entities.parquet").to_pandas())
    wanted = [f"stats:{name}" for name in FEATURES]
    # Whatever a store imports when it is first used is not the join's.
    store.get_historical_features(entity_df=asked.head(1), features=wanted)

    before, cpu, wall = _peak_mib(), _cpu_seconds(), time.perf_counter()
    table = store.get_historical_features(entity_df=asked, features=wanted).to_arrow()
    run = Run(
        cpu_seconds=_cpu_seconds() - cpu,
        wall_seconds=time.perf_counter() - wall,
        peak_mib=_peak_mib(),
        added_mib=_peak_mib() - before,
        rows=table.num_rows,
    )
    pq.write_table(table.select(["label", *FEATURES]), folder / f"{engine}.parquet")
    return run


def compare(folder: Path, engine: str) -> Mapping[str, int]:
    """How another store's rows differ from Fairlead's."""
    same = " AND ".join(f"o.{name} IS NOT DISTINCT FROM t.{name}" for name in FEATURES)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"""CREATE TABLE differing AS SELECT o.label, o.f1 AS ours, t.f1 AS theirs
            FROM '{folder}/fairlead.parquet' o JOIN '{folder}/{engine}.parquet' t USING (label) WHERE NOT ({same})"""
        )
        # (a value of f1 names its row: 53 random bits)
        explained = f"""SELECT count(*) FROM differing d JOIN '{folder}/history.parquet' a ON a.f1 = d.ours
            JOIN '{folder}/history.parquet' b ON b.f1 = d.theirs AND a.user_id = b.user_id
            AND a.event_timestamp = b.event_timestamp"""
        missing = f"""SELECT count(*) FROM '{folder}/entities.parquet' WHERE label NOT IN
            (SELECT label FROM '{folder}/{engine}.parquet')"""
        questions = {"differ": "SELECT count(*) FROM differing", "tied": explained, "missing": missing}
        return {name: _number(connection, sql) for name, sql in questions.items()}


def run_apart(engine: str, folder: Path, peers: str) -> Run | None:
    """Measure in a process of its own; None if it needs more than there is."""
    python = sys.executable if engine == "fairlead" else peers
    command = [python, __file__, "--measure", engine, "--folder", str(folder)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return Run(**json.loads(answer.stdout.splitlines()[-1])) if answer.returncode == 0 else None


def race(case: Case, engines: Sequence[str], repeat: int, seed: float, peers: str) -> dict[str, Any]:
    """All engines in turns on one case."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="race-") as name:
        folder = Path(name)
        # (in a process of its own: a child begins with the peak of what started it)
        with ProcessPoolExecutor(1) as pool:
            pool.submit(generate, case, folder, seed).result()
        runs: dict[str, list[Run]] = {engine: [] for engine in engines}
        for _ in range(repeat):
            for engine in engines:
                if (run := run_apart(engine, folder, peers)) is not None:
                    runs[engine].append(run)
        for engine, measured in runs.items():
            if not measured:
                results[engine] = {"gave_up": True}
                continue
            fields = ("cpu_seconds", "wall_seconds", "peak_mib", "added_mib")
            results[engine] = {
                name: round(statistics.median(getattr(each, name) for each in measured), 2) for name in fields
            }
            results[engine]["spread"] = [round(each.cpu_seconds, 2) for each in measured]
            if engine != "fairlead":
                results[engine] |= compare(folder, engine)
    return results


def to_markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables of the results page."""
    lines = [
        (
            "| history | store | CPU s (of each run) | times Fairlead's | s by the clock | peak MiB | of it the join's "
            "| rows that differ / of them tied / missing |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, engines in results.items():
        ours = engines["fairlead"]["cpu_seconds"]
        for engine, each in engines.items():
            if "gave_up" in each:
                lines.append(f"| {name} | {engine} | more than {MOST_CPU_SECONDS} s or {MOST_GIB} GiB | | | | | |")
                continue
            spread = ", ".join(f"{value:.2f}" for value in each["spread"])
            found = "–" if engine == "fairlead" else f"{each['differ']} / {each['tied']} / {each['missing']}"
            lines.append(
                f"| {name} | {engine} | {each['cpu_seconds']:.2f} ({spread}) | {each['cpu_seconds'] / ours:.1f} "
                f"| {each['wall_seconds']:.1f} | {each['peak_mib']:.0f} | {each['added_mib']:.0f} | {found} |"
            )
    return "\n".join(lines)


def plot(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Bars of CPU seconds and of memory by case and store, on logarithmic scales, as SVG."""
    width, height, left, bar = 760, 250, 60, 22
    colours = {"fairlead": "#0b6e99", "duckdb": "#b7c4cf", "dask": "#8a97a3"}
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
            'font-size="11" fill="#333">'
        ),
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for panel, (field, title) in enumerate((("cpu_seconds", "CPU seconds"), ("peak_mib", "peak memory, MiB"))):
        values = [each[field] for engines in results.values() for each in engines.values() if field in each]
        low, high = math.log10(min(values)) - 0.3, math.log10(max(values))
        start = left + panel * (width // 2)
        parts.append(f'<text x="{start}" y="18" font-weight="bold">{title} (logarithmic)</text>')
        for number, (case, engines) in enumerate(results.items()):
            place = start + number * (len(colours) * bar + 14)
            parts.append(f'<text x="{place}" y="{height - 28}">{case}</text>')
            for each, (engine, found) in enumerate(engines.items()):
                if field not in found:
                    continue
                tall = (math.log10(found[field]) - low) / (high - low) * (height - 90)
                x, y = place + each * bar, height - 44 - tall
                parts.append(
                    f'<rect x="{x}" y="{y:.1f}" width="{bar - 3}" height="{tall:.1f}" fill="{colours[engine]}"/>'
                )
                parts.append(f'<text x="{x}" y="{y - 3:.1f}" font-size="8">{found[field]:.3g}</text>')
    for number, (engine, colour) in enumerate(colours.items()):
        x = left + number * 90
        parts.append(f'<rect x="{x}" y="{height - 18}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{height - 9}">{engine}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _cpu_seconds() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row: Any = connection.execute(query).fetchone()
    return int(row[0])


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--engines", default=",".join(STORES))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--peers", default=sys.executable)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        run = measure(arguments.measure, arguments.folder)
        print(json.dumps({name: getattr(run, name) for name in Run.__dataclass_fields__}))
        return
    results: dict[str, Any] = {}
    for name in arguments.cases.split(","):
        results[name] = race(
            CASES[name], arguments.engines.split(","), arguments.repeat, arguments.seed / 100, arguments.peers
        )
        print(name, json.dumps(results[name]), file=sys.stderr)
    versions = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    print(f"{versions}, load {os.getloadavg()[0]:.0f}, seed {arguments.seed}\n\n{to_markdown(results)}")
    if arguments.plot:
        arguments.plot.write_text(plot(results))


if __name__ == "__main__":
    main()
