"""The dialect as it is served: the whole application over each database, with a worker that runs when it is told."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from fairlead.app.http import create_app
from fairlead.app.service import Service
from fairlead.app.settings import ServerSettings
from fairlead.registry.identity import Caller, Scope, bootstrap
from fairlead.sync.version_pulls import PULL_VERSION, derive_pulls
from fairlead.sync.worker import Worker
from fairlead.testing.clock import ManualClock
from tests.records import migrated_sqlite_file
from tests.servers.mlflow_server import mlflow_server
from tests.servers.postgres import PostgresServer

MLFLOW = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
REGION = "aws:us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A server, a workspace in it with its location, and somebody who speaks MLflow to it."""

    service: Service
    owner: Caller
    secret: str
    location: Path
    http: TestClient

    def get(self, path: str, **query: Any) -> Any:
        return self.answered(self.http.get(f"{MLFLOW}/{path}", params=query))

    def send(self, method: str, path: str, **body: Any) -> Any:
        return self.answered(self.http.request(method, f"{MLFLOW}/{path}", json=body))

    def post(self, path: str, **body: Any) -> Any:
        return self.send("POST", path, **body)

    def refused(self, method: str, path: str, **body: Any) -> tuple[int, str]:
        """The status and MLflow's code of a refusal."""
        place = path if path.startswith("/") else f"{MLFLOW}/{path}"
        asked: dict[str, Any] = {"params": body} if method == "GET" else {"json": body}
        return code_of(self.http.request(method, place, **asked))

    def upload(self, folder: str, files: dict[str, bytes]) -> str:
        """Upload files as a client does; the source that a version is made of."""
        for name, data in files.items():
            assert self.http.put(f"{ARTIFACTS}/{folder}/{name}", content=data).status_code == 200
        return f"mlflow-artifacts:/{folder}"

    def register(self, name: str, files: dict[str, bytes], *, folder: str = "staged", **fields: Any) -> str:
        """A READY version, made of uploaded files."""
        made = self.post("model-versions/create", name=name, source=self.upload(folder, files), **fields)
        self.work()
        return str(made["model_version"]["version"])

    def work(self) -> None:
        """Do all work that is due."""
        self.service.storing.wait()
        worker = Worker(
            self.service.database,
            self.service.clock,
            regions=None,
            handlers={**self.service.duties.handlers, PULL_VERSION: self.service.version_pull},
            derivers=[derive_pulls, *self.service.duties.derivers],
        )
        worker.run_until_idle()

    def token(self, principal: str, *scopes: Scope) -> str:
        return self.service.tokens.create(self.owner, name=principal, principal=principal, scopes=scopes).secret

    @staticmethod
    def answered(response: Any) -> Any:
        assert response.status_code == 200, response.text
        return response.json()


def code_of(response: Any) -> tuple[int, str]:
    body = response.json()
    assert set(body) == {"error_code", "message"}, response.text
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["error_code"]


@pytest.fixture(scope="session")
def tracking_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where MLflow's own server keeps its database, and its files in `artifacts`."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="session")
def tracking(tracking_folder: Path, server_logs: Path) -> Iterator[str]:
    """MLflow's own server, for runs and as a registry to move from."""
    with mlflow_server(tracking_folder, server_logs) as url:
        yield url


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """An application and its service."""

    app: FastAPI
    service: Service


@pytest.fixture(scope="session")
def served(
    postgres_server: PostgresServer, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Served]]:
    """The application over a kind of database, made once for the session: workspaces keep its tests apart."""
    with ExitStack() as stack:

        @cache
        def serve(kind: str) -> Served:
            folder = tmp_path_factory.mktemp("dialect")
            if kind == "sqlite":
                (folder / "migrated.db").write_bytes(migrated_sqlite_file())
                url = f"sqlite:///{folder / 'migrated.db'}"
            else:
                url = stack.enter_context(postgres_server.new_database(template=migrated_template))
            settings = ServerSettings(home=folder / "home", database_url=SecretStr(url))
            service = Service.build(settings, ManualClock(), is_embedded=True)
            stack.callback(service.close)
            return Served(app=create_app(service, instance="one"), service=service)

        yield serve


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest, served: Callable[[str], Served]) -> Iterator[Dialect]:
    """An empty workspace of a server, with one location."""
    server = served(request.param)
    service, workspace = server.service, f"w-{secrets.token_hex(8)}"
    secret = bootstrap(
        service.database,
        service.clock,
        principal="owner",
        workspace_id=workspace,
        jurisdiction=service.settings.jurisdiction,
        is_server_admin=True,
    ).secret
    owner = service.tokens.authenticate(secret)
    location = service.home / "locations" / workspace
    service.locations.add(owner, name="us", region=REGION, url=location.as_uri())
    headers = {"authorization": f"Bearer {secret}"}
    with TestClient(server.app, base_url="http://127.0.0.1:8000", headers=headers) as http:
        yield Dialect(service=service, owner=owner, secret=secret, location=location, http=http)
