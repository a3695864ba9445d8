"""Ask the record and MLflow's server the same, on the same machine, in the same run.

    .venv/bin/python -m benchmarks.registry [--quick] [--databases sqlite postgresql] [--work .tools/registry]

Needs `make install`. Each database is filled with 1000 and then 100 000 versions (see `filling.py`), and both servers
are asked by 1, 16 and 64 clients: an alias's version, a search by tag, a new version, a move of an alias. The calls of
MLflow's REST API are the same to both, but for Fairlead's token and the address of a new version's files; `native` are
Fairlead's own. MLflow runs with its default of 4 workers and with 1, Fairlead with one process. Then get-by-alias is
asked at a thousand and at a million versions, and of 1, 2 and 4 processes on one PostgreSQL.

All servers run all the time, and those that are compared are asked in turns, several rounds of each: whatever else the
machine does meets all of them alike.

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
from dataclasses import dataclass
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
from benchmarks.registry.tables import NAMES, Measured, result_tables, target_lines
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
ROUNDS = 3
MLFLOW_WORKERS = (1, 4)
# As in production: what was answered is on the disk.
DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB"}


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter rounds, and no 16 clients")
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
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    print("# What the record costs, against MLflow's server\n")
    print(f"`.venv/bin/python -m benchmarks.registry`; Python {platform.python_version()}, {machine}.")
    for line in result_tables(run.measured):
        print(line)
    for line in target_lines(run.measured):
        print(line)
    python = HERE.parents[1] / ".tools" / "mlflow" / "bin" / "python"
    subprocess.run([python, HERE / "plots.py", work / "results.json", work], check=True)
    print(f"\n{time.perf_counter() - began:.0f} seconds in all", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Asked:
    """One kind of call to one server, whose database has so many versions."""

    server: Running
    call: Call
    versions: int

    def plan(self, clients: int, seconds: float) -> Plan:
        """What the load generator does."""
        requests, is_own = self.call.requests, self.call.is_own
        return Plan(port=self.server.port, requests=requests, clients=clients, seconds=seconds, is_own=is_own)


class Benchmark:
    """One run: measures, and keeps what it measured."""

    def __init__(self, work: Path, *, is_quick: bool) -> None:
        self._work = work
        self._is_quick = is_quick
        # Of each round.
        self._seconds = 0.3 if is_quick else 0.6
        self.measured: list[Measured] = []

    def measure(self, kind: str) -> None:
        """Everything on one kind of database."""
        with tempfile.TemporaryDirectory(prefix="registry-benchmark-") as name, _databases(kind, Path(name)) as urls:
            folder = Path(name)
            ours, theirs, small = urls
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
                    asked = [Asked(server, call, versions) for server in servers for call in calls_of(server, versions)]
                    for call_kind in NAMES:
                        same = [each for each in asked if each.call.kind == call_kind]
                        for clients in (1, 64) if self._is_quick else CLIENTS:
                            self._ask(kind, same, clients)
            fill(ours, None, LARGE)
            self._grow(kind, ours, small, secret, folder)

    def _grow(self, kind: str, ours: str, small: str, secret: str, folder: Path) -> None:
        """Get by alias at few and at very many versions, and of several processes at those."""
        small_secret = make_fairlead(small)
        fill(small, None, SIZES[0])
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(fairlead_server(small, small_secret, folder / "small"))
            few = [Asked(_called(server, 1), call, SIZES[0]) for call in calls_of(server, SIZES[0])]
            many: list[Asked] = []
            for processes in PROCESSES if kind == "postgresql" else (1,):
                home = folder / f"ours-{processes}"
                server = stack.enter_context(fairlead_server(ours, secret, home, processes=processes))
                many += [Asked(_called(server, processes), call, LARGE) for call in calls_of(server, LARGE)]
            asked = [each for each in few + many if each.call.kind == "alias" and each.call.dialect == "mlflow"]
            for clients in (1, 64):
                self._ask(kind, asked, clients)

    def _ask(self, kind: str, asked: Sequence[Asked], clients: int) -> None:
        """Ask all in turns, for several rounds."""
        found = [Figures() for _ in asked]
        cpu, database_cpu = [0.0] * len(asked), [0.0] * len(asked)
        for turn in range(-1, ROUNDS):
            for place, each in enumerate(asked):
                plan = each.plan(clients, self._seconds if turn >= 0 else 0.3)
                before, database_before = each.server.cpu_seconds(), database_cpu_seconds()
                figures = _generate(plan)
                # In the first turn statements are planned, connections opened and pages read.
                if turn >= 0:
                    found[place].add(figures)
                    cpu[place] += each.server.cpu_seconds() - before
                    database_cpu[place] += database_cpu_seconds() - database_before
        for place, each in enumerate(asked):
            measured = Measured.of(
                found[place],
                cpu_seconds=cpu[place],
                database_cpu_seconds=database_cpu[place],
                database=kind,
                versions=each.versions,
                server=each.server.name,
                dialect=each.call.dialect,
                call=each.call.kind,
                clients=clients,
            )
            self._keep(measured, found[place].first_refusal)

    def _keep(self, found: Measured, first_refusal: str) -> None:
        self.measured.append(found)
        refused = f", {found.refused} refused: {first_refusal[:400]}" if found.refused else ""
        where = f"{found.database} {found.versions} {found.server} {found.dialect} {found.call} {found.clients}"
        print(
            f"{where}: {found.per_second:.0f}/s, {found.cpu_ms:.2f} CPU-ms (+{found.database_cpu_ms:.2f}),"
            f" p50 {found.p50_ms:.1f} p99 {found.p99_ms:.1f} ms{refused}",
            file=sys.stderr,
            flush=True,
        )


def _called(server: Running, processes: int) -> Running:
    return dataclasses.replace(server, name=f"Fairlead, {processes} process{'es' * (processes > 1)}")


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
def _databases(kind: str, folder: Path) -> Generator[tuple[str, str, str]]:
    """Three empty databases of a kind: for Fairlead, for MLflow, and for a Fairlead that stays small."""
    if kind == "sqlite":
        ours, theirs, small = (f"sqlite:///{folder / name}.db" for name in ("fairlead", "mlflow", "small"))
        yield ours, theirs, small
        return
    with (
        postgres_server(folder, settings=DURABLE) as server,
        server.new_database() as ours,
        server.new_database() as theirs,
        server.new_database() as small,
    ):
        yield ours, theirs, small


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
