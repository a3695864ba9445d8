"""Ask the record and MLflow's server the same, on the same machine, in the same run.

    .venv/bin/python -m benchmarks.registry [--quick] [--databases sqlite postgresql] [--work .tools/registry]

Needs `make install`. Each database is filled with 1000 and then 100 000 versions (see `filling.py`), and both servers
are asked by 1, 16 and 64 clients: an alias's version, a search by tag, a new version, a move of an alias. The calls of
MLflow's REST API are the same to both, but for Fairlead's token and the address of a new version's files; `native` are
Fairlead's own. MLflow runs with its default of 4 workers and with 1, Fairlead with one process. Then get-by-alias is
asked at a million versions, and of 1, 2 and 4 processes on one PostgreSQL.

Processor time is that of all processes of a server. PostgreSQL's own, the same to whoever asks it the same, is a column
of its own. The load generator is another process and counts for nobody. Prints Markdown and whether each target is met,
and writes `results.json` and plots into the work folder. `--quick` is shorter, and no less of everything.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from sqlalchemy import create_engine

from benchmarks.registry.calls import Call, calls_of
from benchmarks.registry.filling import fill_fairlead, fill_mlflow
from benchmarks.registry.load import Figures, Plan, to_text
from benchmarks.registry.servers import (
    Running,
    database_cpu_seconds,
    fairlead_server,
    install_driver,
    make_mlflow_schema,
    mlflow_server,
)
from benchmarks.registry.tables import Measured, result_tables, target_lines
from fairlead.app.schema import upgrade
from fairlead.core.clock import SystemClock
from fairlead.core.db import Database
from fairlead.registry.identity import bootstrap
from tests.servers.postgres import postgres_server

HERE = Path(__file__).parent
SIZES = (1_000, 100_000)
LARGE = 1_000_000
CLIENTS = (1, 16, 64)
PROCESSES = (1, 2, 4)
MLFLOW_WORKERS = (1, 4)
# As in production: what was answered is on the disk.
DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB"}


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less than two minutes")
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--work", type=Path, default=Path(".tools/registry"))
    options = parser.parse_args()
    began, load = time.perf_counter(), os.getloadavg()[0]
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    run = Benchmark(work, is_quick=options.quick)
    for kind in options.databases:
        run.measure(kind)
    (work / "results.json").write_text(json.dumps([dataclasses.asdict(each) for each in run.measured], indent=1))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before"
    print("# What the record costs, against MLflow's server\n")
    print(f"`.venv/bin/python -m benchmarks.registry`; Python {platform.python_version()}, {machine}.")
    for line in result_tables(run.measured):
        print(line)
    for line in target_lines(run.measured):
        print(line)
    python = HERE.parents[1] / ".tools" / "mlflow" / "bin" / "python"
    subprocess.run([python, HERE / "plots.py", work / "results.json", work], check=True)
    print(f"\n{time.perf_counter() - began:.0f} seconds in all", file=sys.stderr)


class Benchmark:
    """One run: measures, and keeps what it measured."""

    def __init__(self, work: Path, *, is_quick: bool) -> None:
        self._work = work
        self._is_quick = is_quick
        self._seconds = 0.5 if is_quick else 1.5
        self.measured: list[Measured] = []

    def measure(self, kind: str) -> None:
        """Everything on one kind of database."""
        with tempfile.TemporaryDirectory(prefix="registry-benchmark-") as name, _databases(kind, Path(name)) as urls:
            folder = Path(name)
            ours, theirs = urls
            secret = make_fairlead(ours)
            driver = install_driver(self._work)
            theirs_here = theirs.replace("+psycopg", "+psycopg2")
            make_mlflow_schema(theirs_here, driver)
            with contextlib.ExitStack() as stack:
                # Those that wait idly take next to nothing.
                servers = [
                    stack.enter_context(fairlead_server(ours, secret, folder / "ours")),
                    *(
                        stack.enter_context(
                            mlflow_server(theirs_here, folder / f"mlflow-{workers}", workers=workers, driver=driver)
                        )
                        for workers in MLFLOW_WORKERS
                    ),
                ]
                for versions in SIZES:
                    fill(ours, theirs, versions)
                    for server in servers:
                        for call in calls_of(server, versions):
                            for clients in (1, 64) if self._is_quick else CLIENTS:
                                self._ask(kind, versions, server, call, clients)
            fill(ours, None, LARGE)
            for processes in PROCESSES if kind == "postgresql" else (1,):
                with fairlead_server(ours, secret, folder / f"ours-{processes}", processes=processes) as server:
                    called = dataclasses.replace(server, name=f"Fairlead, {processes} process{'es' * (processes > 1)}")
                    for call in calls_of(server, LARGE):
                        if call.kind == "alias" and call.dialect == "mlflow":
                            for clients in (1, 64):
                                self._ask(kind, LARGE, called, call, clients)

    def _ask(self, kind: str, versions: int, server: Running, call: Call, clients: int) -> None:
        plan = Plan(port=server.port, requests=call.requests, clients=clients, seconds=0.3, is_own=call.is_own)
        _generate(plan)  # plans are made, connections opened, pages read
        plan = dataclasses.replace(plan, seconds=self._seconds)
        before, database_before = server.cpu_seconds(), database_cpu_seconds()
        figures = _generate(plan)
        cpu, database_cpu = server.cpu_seconds() - before, database_cpu_seconds() - database_before
        found = Measured.of(
            figures,
            cpu_seconds=cpu,
            database_cpu_seconds=database_cpu,
            database=kind,
            versions=versions,
            server=server.name,
            dialect=call.dialect,
            call=call.kind,
            clients=clients,
        )
        self.measured.append(found)
        refused = f", {found.refused} refused: {figures.first_refusal[:400]}" if found.refused else ""
        print(
            f"{kind} {versions} {server.name} {call.dialect} {call.kind} {clients}: {found.per_second:.0f}/s,"
            f" {found.cpu_ms:.2f} CPU-ms (+{found.database_cpu_ms:.2f}), p50 {found.p50_ms:.1f} p99 {found.p99_ms:.1f}"
            f" ms{refused}",
            file=sys.stderr,
            flush=True,
        )


def make_fairlead(url: str) -> str:
    """Our tables and a token."""
    database = Database(url)
    try:
        upgrade(database)
        return bootstrap(database, SystemClock(), principal="ana").secret
    finally:
        database.close()


def fill(ours: str, theirs: str | None, versions: int) -> None:
    """Bring both databases to so many versions."""
    database = Database(ours)
    fill_fairlead(database.engine, versions)
    database.close()
    if theirs is not None:
        engine = create_engine(theirs)
        fill_mlflow(engine, versions)
        engine.dispose()


@contextlib.contextmanager
def _databases(kind: str, folder: Path) -> Generator[tuple[str, str]]:
    """Two empty databases of a kind, for Fairlead and for MLflow."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'fairlead.db'}", f"sqlite:///{folder / 'mlflow.db'}"
        return
    with (
        postgres_server(folder, settings=DURABLE) as server,
        server.new_database() as ours,
        server.new_database() as theirs,
    ):
        yield ours, theirs


def _generate(plan: Plan) -> Figures:
    command: Sequence[str] = [sys.executable, "-m", "benchmarks.registry.load"]
    done = subprocess.run(
        command, input=to_text(plan), capture_output=True, text=True, check=False, timeout=plan.seconds + 90
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    return Figures(**json.loads(done.stdout))


if __name__ == "__main__":
    main()
