"""MLflow's own tracking server, with runs and artifacts in a folder of the test session."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

import httpx2

from tests.servers.object_stores import TOOLS
from tests.servers.process import ServerDidNotStart, running_server

START_SECONDS = 240
"""It imports for ten seconds of CPU time, and makes its database."""

PYTHON = TOOLS / "mlflow" / "bin" / "python"


@contextlib.contextmanager
def mlflow_server(folder: Path, logs: Path) -> Generator[str]:
    """Run the server while the block runs; its address.

    It is the application that `mlflow server --serve-artifacts` has a process of its own serve, told by variables as
    there: the command imports all of MLflow once more, only to start that process.
    """
    if not PYTHON.exists():
        raise ServerDidNotStart(f"{PYTHON} is not installed. Run: make install")

    def command(port: int) -> list[str | Path]:
        return [PYTHON, "-m", "uvicorn", "mlflow.server.fastapi_app:app", "--host", "127.0.0.1", "--port", str(port)]

    environment = {
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder / 'mlflow.db'}",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
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
