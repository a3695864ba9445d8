"""A server as an operator starts it, and MLflow's own client set to use it as its registry."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import mlflow
import pytest

from tests.acceptance.command_line import CommandLine
from tests.acceptance.servers import running_server


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The server's address, its owner's token and command line, and the folder that is its one location."""

    url: str
    secret: str
    admin: CommandLine
    location: Path


@contextmanager
def stock_registry(folder: Path, database_url: str) -> Generator[Registry]:
    """Run the server on a migrated database meanwhile; the client of this process has its address and token."""
    (folder / "server").mkdir()
    shell = CommandLine(home=folder / "server", variables={"FAIRLEAD_DATABASE_URL": database_url})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            # It would resolve this project's lock for every model that is saved.
            "MLFLOW_UV_AUTO_DETECT": "false",
        }.items():
            patch.setenv(name, value)
        with running_server(shell) as (server, url):
            secret = server.wait_for(r"shown this once: (fl_\S+)")[1]
            patch.setenv("MLFLOW_TRACKING_TOKEN", secret)
            headers = {"Authorization": f"Bearer {secret}"}
            location = {"name": "us", "region": "aws:us-east-1", "url": (folder / "us").as_uri()}
            assert httpx2.post(f"{url}/api/v1/locations", json=location, headers=headers, trust_env=False).is_success
            admin = CommandLine(home=folder, variables={"FAIRLEAD_URL": url, "FAIRLEAD_TOKEN": secret})
            before = mlflow.get_tracking_uri()
            mlflow.set_registry_uri(url)
            try:
                yield Registry(url=url, secret=secret, admin=admin, location=folder / "us")
            finally:
                mlflow.set_registry_uri(None)  # pyright: ignore[reportArgumentType]
                mlflow.set_tracking_uri(before)
