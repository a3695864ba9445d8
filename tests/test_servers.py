"""What a test may take for granted of the servers and the guards in conftest.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import psycopg
import pytest
import redis
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st

from tests.servers.object_stores import ObjectStoreServer
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerDidNotStart, is_listening, running_server
from tests.servers.redis_server import RedisServer


@pytest.fixture(params=["moto_server", "gcs_server", "azurite_server"])
def object_store(request: pytest.FixtureRequest) -> ObjectStoreServer:
    server: ObjectStoreServer = request.getfixturevalue(request.param)
    return server


def test_each_object_store_returns_the_bytes_it_was_given(object_store: ObjectStoreServer) -> None:
    files = fsspec.filesystem(object_store.scheme, **object_store.options)
    bucket = object_store.new_bucket()
    content = os.urandom(3 * 1024 * 1024)

    files.pipe_file(f"{bucket}/packs/one", content)

    assert files.cat_file(f"{bucket}/packs/one") == content
    assert files.cat_file(f"{bucket}/packs/one", start=1000, end=1010) == content[1000:1010]
    assert object_store.new_bucket() != bucket


def test_a_database_is_empty_and_speaks_sql(empty_database_url: str) -> None:
    engine = sqlalchemy.create_engine(empty_database_url)
    assert sqlalchemy.inspect(engine).get_table_names() == []
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE leftover (n INTEGER)"))
    engine.dispose()


def test_a_postgresql_database_is_dropped_although_somebody_is_connected(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with postgres_server.new_database() as url:
        name = url.rpartition("/")[2].partition("?")[0]
        engine = sqlalchemy.create_engine(url)
        idler = engine.connect()
    idler.close()
    engine.dispose()
    with psycopg.connect(postgres_url) as connection:
        names = [row[0] for row in connection.execute("SELECT datname FROM pg_database").fetchall()]
    assert "postgres" in names
    assert name not in names


def test_the_network_beyond_loopback_is_out_of_reach() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"), socket.socket() as client:
        client.connect(("192.0.2.1", 80))
    with pytest.raises(pytest.fail.Exception, match=r"example\.org"):
        socket.create_connection(("example.org", 80), timeout=1)


@given(st.integers())
def test_hypothesis_accepts_the_fixtures_that_every_test_has(number: int) -> None:
    assert isinstance(number, int)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    def command(port: int) -> list[str]:
        return [sys.executable, "-c", f"raise SystemExit('no licence for port {port}')"]

    with pytest.raises(ServerDidNotStart, match="no licence for port"), running_server("X", command, tmp_path / "log"):
        pass


def test_a_server_dies_with_a_test_run_that_was_killed(tmp_path: Path) -> None:
    program = f"""
import sys, time, pathlib
from tests.servers.process import running_server
command = lambda port: [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
with running_server("http.server", command, pathlib.Path({str(tmp_path / "log")!r})) as port:
    print(port, flush=True)
    time.sleep(60)
"""
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert run.stdout is not None
    with run.stdout:
        port = int(run.stdout.readline())
        assert is_listening(port)

        run.send_signal(signal.SIGKILL)
        run.wait()

    deadline = time.monotonic() + 10
    while is_listening(port) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_listening(port)


def test_redis_keeps_streams(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushdb()
        entry = client.xadd("pushed", {"row": "1"})

        assert client.xrange("pushed") == [(entry, {b"row": b"1"})]
