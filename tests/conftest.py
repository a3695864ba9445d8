"""What all tests share: real servers started on demand, fresh databases, and no network but loopback."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from fairlead.app.schema import upgrade
from fairlead.core.db import Database
from fairlead.testing.clock import ManualClock
from tests.records import migrated_database
from tests.servers import object_stores, postgres
from tests.servers import redis_server as redis_servers
from tests.servers.object_stores import ObjectStoreServer
from tests.servers.postgres import PostgresServer
from tests.servers.redis_server import RedisServer

# Read when gcsfs is imported: its probe for hierarchical namespaces hangs for a minute on an emulator.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
os.environ["BENTOML_DO_NOT_TRACK"] = "true"

# `HYPOTHESIS_PROFILE=thorough pytest tests/sync` looks longer; the default finds what is near at every run.
hypothesis.settings.register_profile("fast", max_examples=25, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("thorough", max_examples=1000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "fast"))


@pytest.fixture(scope="session", autouse=True)
def _imports_are_no_garbage() -> Iterator[None]:
    """A tenth of a file's time went into looking for garbage among all that its tests import."""
    before = gc.get_threshold()
    gc.set_threshold(10_000, 20, 20)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    """Charge what a file leaves open to that file, and not to whichever runs when the collector of garbage comes."""
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the home, server or token of the person who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("FAIRLEAD_")]:
            patch.delenv(name)
        patch.setenv("FAIRLEAD_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    """Fail a test that reaches for the network, also where the code under test catches every `Exception`."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _refuse_network(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse_network(self, address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_local(host):
            pytest.fail(f"The test looked up {host!r}. Tests use loopback only.")
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
        yield


def _refuse_network(client: socket.socket, address: Any) -> None:
    if client.family in {socket.AF_INET, socket.AF_INET6} and not _is_local(address[0]):
        pytest.fail(f"The test connected to {address}. Tests use loopback only.")


def _is_local(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in {None, "", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@pytest.fixture
def manual_clock() -> ManualClock:
    """Time that moves only when the test says so."""
    return ManualClock()


@pytest.fixture(scope="session")
def server_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers below write."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def moto_server(server_logs: Path) -> Iterator[ObjectStoreServer]:
    """S3."""
    with object_stores.moto_server(server_logs) as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server(server_logs: Path) -> Iterator[ObjectStoreServer]:
    """Google Cloud Storage, without true create-only writes."""
    with object_stores.gcs_server(server_logs) as server:
        yield server


@pytest.fixture(scope="session")
def azurite_server(server_logs: Path) -> Iterator[ObjectStoreServer]:
    """Azure Blob Storage."""
    with object_stores.azurite_server(server_logs) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(server_logs: Path) -> Iterator[RedisServer]:
    """A Redis server that the session's tests share: each flushes the database that it takes."""
    with redis_servers.redis_server(server_logs) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(server_logs: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL cluster that the session's tests share, each with databases of its own."""
    with postgres.postgres_server(server_logs) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL (libpq form) of the cluster's own database, for its superuser."""
    return postgres_server.admin_url


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The SQLAlchemy URL of an empty PostgreSQL database, dropped after the test."""
    with postgres_server.new_database() as url:
        yield url


@pytest.fixture
def used_postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The SQLAlchemy URL of a PostgreSQL database for `open_record`, which empties it of what an earlier test left."""
    with postgres_server.used_database() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of a PostgreSQL database at the newest revision, to copy."""
    with postgres_server.new_database() as url:
        database = Database(url)
        upgrade(database)
        database.close()
        yield url.rpartition("/")[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The SQLAlchemy URL of a database for `open_record`, which empties it: the test runs once on each kind."""
    return _database_url(request, tmp_path, postgres="used_postgres_database")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The SQLAlchemy URL of an empty database: the test runs once on each kind."""
    return _database_url(request, tmp_path, postgres="postgres_database")


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The SQLAlchemy URL of a database at the newest revision, without rows: the test runs once on each kind."""
    with migrated_database(request, tmp_path) as url:
        yield url


def _database_url(request: pytest.FixtureRequest, folder: Path, *, postgres: str) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'fairlead.db'}"
    url: str = request.getfixturevalue(postgres)
    return url
