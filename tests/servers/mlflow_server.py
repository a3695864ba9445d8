"""MLflow's own tracking server, with runs and artifacts in a folder of the test session."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

import httpx2

from tests.servers.object_stores import TOOLS
from tests.servers.process import ServerDidNotStart, running_server

START_SECONDS = 240
"""It imports for half a minute of CPU time, and makes its database."""

MLFLOW = TOOLS / "mlflow" / "bin" / "mlflow"


@contextlib.contextmanager
def mlflow_server(folder: Path, logs: Path, *arguments: str) -> Generator[str]:
    """Run the server while the block runs; its address."""
    if not MLFLOW.exists():
        raise ServerDidNotStart(f"{MLFLOW} is not installed. Run: make install")

    def command(port: int) -> list[str | Path]:
        places = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
        artifacts = ["--serve-artifacts", "--artifacts-destination", folder / "artifacts"]
        return [
            MLFLOW,
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
            *places,
            *artifacts,
            *arguments,
        ]

    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # Its six processes for background jobs do nothing here and poll all the time.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with running_server(
        "MLflow", command, logs / "mlflow.log", is_ready=_answers, environment=environment, start_seconds=START_SECONDS
    ) as port:
        yield f"http://127.0.0.1:{port}"


def _answers(port: int) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2, trust_env=False).status_code == 200
    return False
