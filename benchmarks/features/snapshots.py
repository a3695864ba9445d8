"""Snapshots as a base and deltas: what a day's change costs on the wire, and how much memory each step takes.

    .venv/bin/python benchmarks/features/snapshots.py [--rows 1000000] [--share 0.02] [--days 1] [--no-store] [--seed 1]
        [--times 1] [--folder FOLDER]

A source of `--rows` rows of measurements (a key, a time, three doubles, a float, a whole number and a short text; ten
rows of each entity) changes on each day: `--share` of its rows, anywhere, get new values. Each step runs in a process
of its own, whose peak memory (maximum resident set) and CPU seconds are those of the whole process:

    write       read the source into rows in canonical order, digest them, take statistics
    store       put the artifact into a location (a local folder), as a worker does
    copy        bring it to a second location, as replication does
    compare     write the next day's artifact: the one before, with one more delta
    restore     download it from the second location and flatten it, and compare the rows with those of the source

`--times` has each row so many times, in as many files, where making a source would take longer than reading it.

Bytes are what was sent: packs, layout and manifest, after the content store's compression and deduplication.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psutil

from fairlead.catalog.residency import UNRESTRICTED
from fairlead.core.ids import Digest
from fairlead.featurestore.definitions import Column, ViewDefinition
from fairlead.featurestore.row_files import WrittenRows
from fairlead.featurestore.rows import write_rows
from fairlead.featurestore.source_definitions import ParquetFiles, SourceDefinition
from fairlead.featurestore.sources import Sources
from fairlead.featurestore.stored_rows import flatten, read_stored, write_base, write_successor
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.copy import copy_artifact
from fairlead.sync.store.domain import PLAIN_KEY_ID, DedupDomain
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.store.writer import write_artifact

AS_OF = datetime(2027, 1, 1, tzinfo=UTC)
DOMAIN = DedupDomain("benchmark", "unrestricted", PLAIN_KEY_ID)
FEATURES = (("f1", "DOUBLE"), ("f2", "DOUBLE"), ("f3", "DOUBLE"), ("f4", "FLOAT"), ("f5", "INT32"), ("f6", "STRING"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where everything is, and what is measured."""

    folder: Path
    rows: int
    share: float
    seed: int
    times: int = 1

    def source(self, day: int) -> Path:
        return self.folder / f"source-{day}.parquet"

    def flat(self, day: int) -> Path:
        return self.folder / f"flat-{day}.parquet"

    def artifact(self, day: int) -> Path:
        return self.folder / f"artifact-{day}"

    def location(self, name: str) -> str:
        return (self.folder / "locations" / name).as_uri()

    def view(self, day: int) -> ViewDefinition:
        return ViewDefinition(
            name="measurements",
            entities=("sensor",),
            keys=(Column(name="sensor", type="INT64"),),
            features=tuple(Column(name=name, type=kind) for name, kind in FEATURES),
            source=SourceDefinition(
                place=ParquetFiles(uri=str(self.source(day))),
                timestamp_field="measured_at",
                created_timestamp_column=None,
                field_mapping={},
            ),
            ttl_seconds=None,
            residency=UNRESTRICTED,
        )


def make_source(run: Run, day: int) -> dict[str, Any]:
    """A table in no order; on later days a share of the rows has another `f1` and `f5`."""
    random = "(hash(i, {salt}) / 18446744073709551615.0)"

    def noise(salt: int) -> str:
        return random.format(salt=run.seed * 1000 + salt)

    changed = " OR ".join(f"{noise(100 + each)} < {run.share}" for each in range(1, day + 1)) or "false"
    rank = "+".join(f"({noise(100 + each)} < {run.share})::INTEGER" for each in range(1, day + 1)) or "0"
    query = (
        f"SELECT i // 10 AS sensor, TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_minutes(i % 10 * 60) AS measured_at, "  # noqa: S608
        f"CASE WHEN {changed} THEN {noise(1)} + {rank} ELSE {noise(1)} END AS f1, ln({noise(2)} + 1e-9) AS f2, "
        f"round({noise(3)} * 1000, 2) AS f3, {noise(4)}::FLOAT AS f4, "
        f"(hash(i, 5) % 1000 + {rank})::INTEGER AS f5, 'class-' || (hash(i, 6) % 50) AS f6 "
        f"FROM (SELECT (r * 7919) % {run.rows // run.times} AS i FROM range({run.rows // run.times}) t(r))"
    )
    with duckdb.connect(config={"memory_limit": "2GiB", "temp_directory": str(run.folder / "spill")}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"COPY ({query}) TO '{run.source(day)}' (FORMAT parquet)")
    if run.times > 1:
        made = run.folder / "made.parquet"
        run.source(day).rename(made)
        run.source(day).mkdir()
        for number in range(run.times):
            os.link(made, run.source(day) / f"{number}.parquet")
        made.unlink()
    return {"bytes": sum(path.stat().st_size for path in run.folder.glob(f"source-{day}.parquet/*"))}


def write(run: Run, day: int) -> dict[str, Any]:
    """Read the source into flat rows."""
    scratch = run.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    found = write_rows(
        run.view(day), as_of=AS_OF, sources=Sources(), destination=run.flat(day), scratch=scratch
    ).written
    (run.folder / f"written-{day}.json").write_text(json.dumps([found.rows, found.digest]))
    return {"rows": found.rows, "bytes": run.flat(day).stat().st_size}


def written(run: Run, day: int) -> WrittenRows:
    """What `write` found on a day."""
    rows, digest = json.loads((run.folder / f"written-{day}.json").read_bytes())
    return WrittenRows(rows=rows, digest=Digest(digest))


def compare(run: Run, day: int) -> dict[str, Any]:
    """Write the day's artifact."""
    folder = run.artifact(day)
    folder.mkdir()
    if day == 0:
        successor = write_base(run.flat(0))
    else:
        before = read_stored(run.artifact(day - 1))
        by = ["sensor", "measured_at"]
        successor = write_successor(before, run.flat(day - 1), run.flat(day), written(run, day), folder, by=by)
    for name, path in successor.files.items():
        if path != folder / name:
            os.link(path, folder / name)
    last = [path for name, path in successor.files.items() if name.startswith(f"delta-{successor.deltas:04d}")]
    return {"deltas": successor.deltas, "delta_bytes": sum(path.stat().st_size for path in last)}


def known(location: str, digests: Sequence[str]) -> Mapping[Digest, StoredBlock]:
    """Every block of the artifacts that a location holds, as the record's index has them."""
    store = open_store(location)
    blocks: dict[Digest, StoredBlock] = {}
    for digest in digests:
        blocks |= ArtifactReader.open(store, DOMAIN, Digest(digest)).layout.blocks
    return blocks


def digests_before(run: Run, day: int) -> list[str]:
    """The artifacts of the days before."""
    return [(run.folder / f"digest-{each}").read_text() for each in range(day)]


def store(run: Run, day: int) -> dict[str, Any]:
    """Put the day's artifact into the first location."""
    location = run.location("here")
    blocks = known(location, digests_before(run, day)[-1:])
    found = write_artifact(
        open_store(location, {"create": True}),
        DOMAIN,
        run.artifact(day),
        known_blocks=lambda wanted: {each: blocks[each] for each in wanted if each in blocks},
    )
    (run.folder / f"digest-{day}").write_text(found.digest)
    return {"sent_bytes": found.sent_bytes}


def copy(run: Run, day: int) -> dict[str, Any]:
    """Bring the day's artifact to the second location."""
    there = run.location("there")
    blocks = known(there, digests_before(run, day)[-1:])
    report = copy_artifact(
        open_store(run.location("here")),
        open_store(there, {"create": True}),
        DOMAIN,
        Digest((run.folder / f"digest-{day}").read_text()),
        known_blocks=lambda wanted: {each: blocks[each] for each in wanted if each in blocks},
    )
    return {"sent_bytes": report.bytes_moved}


def restore(run: Run, day: int) -> dict[str, Any]:
    """Flatten the day's artifact where it was copied to."""
    folder = run.artifact(day)
    digest = run.folder / f"digest-{day}"
    if digest.exists():
        folder = run.folder / "restored"
        shutil.rmtree(folder, ignore_errors=True)
        ArtifactReader.open(open_store(run.location("there")), DOMAIN, Digest(digest.read_text())).download(folder)
    found = flatten(read_stored(folder), run.folder / "again.parquet")
    return {"same_rows": found == written(run, day), "bytes": (run.folder / "again.parquet").stat().st_size}


STEPS: Mapping[str, Callable[[Run, int], dict[str, Any]]] = {
    "source": make_source,
    "write": write,
    "compare": compare,
    "store": store,
    "copy": copy,
    "restore": restore,
}


def measure(run: Run, step: str, day: int) -> dict[str, Any]:
    """Run one step in a process of its own."""
    arguments = [f"--rows={run.rows}", f"--share={run.share}", f"--seed={run.seed}"]
    arguments += [f"--times={run.times}", f"--folder={run.folder}"]
    command = [sys.executable, __file__, *arguments, f"--step={step}", f"--day={day}"]
    started = time.perf_counter()
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"step": step, "day": day, "seconds": time.perf_counter() - started} | json.loads(answer.stdout)


def run_step(run: Run, step: str, day: int) -> None:
    """Do one step, and say what it took."""
    answer = STEPS[step](run, day)
    used = resource.getrusage(resource.RUSAGE_SELF)
    # On Linux the maximum is in KiB.
    answer |= {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024}
    print(json.dumps(answer))


def main() -> None:
    """Run every step of every day, and say what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--no-store", action="store_true", help="Only the steps up to the artifact, and back.")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--day", type=int, default=0)
    options = parser.parse_args()
    if options.step is not None:
        run = Run(folder=options.folder, rows=options.rows, share=options.share, seed=options.seed, times=options.times)
        run_step(run, options.step, options.day)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        run = Run(folder=Path(name), rows=options.rows, share=options.share, seed=options.seed, times=options.times)
        print(f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}")
        base = 0
        for day in range(options.days + 1):
            steps = ["source", "write", "compare"] + ([] if options.no_store else ["store", "copy"]) + ["restore"]
            for step in steps:
                load = psutil.getloadavg()[0]
                found = measure(run, step, day)
                if step == "copy" and day == 0:
                    base = found["sent_bytes"]
                share = f" ({found['sent_bytes'] / base:.2%} of the base)" if step == "copy" and day else ""
                facts = ", ".join(
                    f"{key} {value:,}" for key, value in found.items() if key.endswith(("bytes", "rows", "deltas"))
                )
                print(
                    f"day {day} {step:8} {found['seconds']:7.1f} s, {found['cpu_seconds']:7.1f} CPU s, "
                    f"{found['peak_mib']:7.0f} MiB peak, load {load:.1f}: {facts}{share}",
                    flush=True,
                )
            shutil.rmtree(run.source(day)) if run.source(day).is_dir() else run.source(day).unlink()
            if day:
                run.flat(day - 1).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
