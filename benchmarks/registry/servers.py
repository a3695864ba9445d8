"""The servers that are compared, as their users start them, and the processor time that they take."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from tests.servers.mlflow_server import PYTHON, START_SECONDS
from tests.servers.process import running_server

ROOT = Path(__file__).parents[2]
FAIRLEAD = Path(sys.executable).with_name("fairlead")
DRIVER = "psycopg2-binary==2.9.11"
"""The PostgreSQL driver that MLflow's documentation asks for; its own environment has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answers."""

    name: str
    port: int
    process: psutil.Process
    headers: tuple[tuple[str, str], ...] = ()

    def cpu_seconds(self) -> float:
        """What its processes have taken until now, all that it started among them."""
        return sum(_seconds(process) for process in [self.process, *self.process.children(recursive=True)])


def database_cpu_seconds() -> float:
    """What PostgreSQL's processes below this one have taken, those that ended among them."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == "postgres":
                total += _seconds(process, with_children=True)
    return total


@contextlib.contextmanager
def fairlead_server(url: str, secret: str, folder: Path, *, processes: int = 1) -> Generator[Running]:
    """`fairlead server` on a database that is there; replicating is other processes' work."""
    environment = {"FAIRLEAD_HOME": str(folder), "FAIRLEAD_DATABASE_URL": url}
    count = [] if processes == 1 else ["--processes", str(processes)]

    def command(port: int) -> list[str | Path]:
        return [FAIRLEAD, "server", "--port", str(port), "--no-worker", *count]

    log = folder.with_suffix(".log")
    with running_server("Fairlead", command, log, is_ready=_is_ok("/healthz"), environment=environment) as port:
        yield Running(
            name="Fairlead", port=port, process=_listener(port), headers=(("Authorization", f"Bearer {secret}"),)
        )


@contextlib.contextmanager
def mlflow_server(url: str, folder: Path, *, workers: int, driver: Path) -> Generator[Running]:
    """`mlflow server` on a database of either kind, without its processes for background jobs."""
    folder.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> list[str | Path]:
        places = ["--backend-store-uri", url, "--artifacts-destination", folder / "artifacts"]
        mlflow = PYTHON.with_name("mlflow")
        return [mlflow, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers), *places]

    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONPATH": str(driver),
    }
    log = folder.with_suffix(".log")
    ready = _is_ok("/health")
    with running_server(
        "MLflow", command, log, is_ready=ready, environment=environment, start_seconds=START_SECONDS
    ) as port:
        name = f"MLflow, {workers} worker{'s' if workers > 1 else ''}"
        yield Running(name=name, port=port, process=_listener(port))


def make_mlflow_schema(url: str, driver: Path) -> None:
    """Make MLflow's tables."""
    environment = os.environ | {"PYTHONPATH": str(driver)}
    make = (
        "import sys, sqlalchemy; from mlflow.store.db.utils import _initialize_tables;"
        " _initialize_tables(sqlalchemy.create_engine(sys.argv[1]))"
    )
    subprocess.run([PYTHON, "-c", make, url], check=True, env=environment, stderr=subprocess.DEVNULL)


def install_driver(work: Path) -> Path:
    """MLflow's driver for PostgreSQL in a folder of its own, installed once."""
    folder = work / "psycopg2"
    if not (folder / "psycopg2").exists():
        uv = ROOT / ".tools" / "uv" / "bin" / "uv"
        install = [uv, "pip", "install", "--quiet", "--python", PYTHON, "--target", folder, DRIVER]
        subprocess.run(install, check=True)
    return folder


def _is_ok(path: str) -> Callable[[int], bool]:
    def answers(port: int) -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"http://127.0.0.1:{port}{path}", timeout=2, trust_env=False).status_code == 200
        return False

    return answers


def _listener(port: int) -> psutil.Process:
    """The topmost process that listens on a port."""
    holders = [process for process in psutil.Process().children(recursive=True) if _listens(process, port)]
    return min(holders, key=lambda process: len(process.parents()))


def _listens(process: psutil.Process, port: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(
            each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port
            for each in process.net_connections("tcp")
        )
    return False


def _seconds(process: psutil.Process, *, with_children: bool = False) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        ended = times.children_user + times.children_system if with_children else 0.0
        return times.user + times.system + ended
    return 0.0
