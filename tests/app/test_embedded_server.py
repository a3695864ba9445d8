"""One server owns a home: started by whoever comes first, found by the others, replaced when it dies or leaves."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.acceptance.command_line import LABELS, CommandLine, kill, leave_nothing, processes_in, write_folder
from tests.acceptance.world import when
from tests.serving.models import model_files

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def fairlead(tmp_path_factory: pytest.TempPathFactory) -> Generator[CommandLine]:
    """A home that the module's tests share, with one model in it."""
    home = tmp_path_factory.mktemp("embedded") / "home"
    fairlead = CommandLine(home=home)
    try:
        # At once, in a home that is not there yet.
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(fairlead.json, ["model"] * 3, ["list"] * 3))
        assert answers == [[], [], []]
        assert len(servers(home)) == 1
        model = write_folder(home.parent / "model", model_files(0.5, extra_bytes=50_000))
        fairlead("model", "register", "churn", model, *LABELS)
        yield fairlead
    finally:
        leave_nothing(home)


def test_clients_that_come_at_once_share_one_server(fairlead: CommandLine) -> None:
    fairlead("model", "list")
    before = fairlead.address
    fairlead("stop")
    when(lambda: None if servers(fairlead.home) else True, seconds=10)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(fairlead.json, ["model"] * 4, ["list"] * 4))
    assert [[model["name"] for model in answer] for answer in answers] == [["churn"]] * 4
    (server,) = servers(fairlead.home)
    assert server.pid == fairlead.address["pid"]
    assert fairlead.address["instance"] != before["instance"]


def test_what_is_secret_is_readable_by_its_owner_alone(fairlead: CommandLine) -> None:
    fairlead("model", "list")
    assert stat.S_IMODE(fairlead.home.stat().st_mode) == 0o700
    for name in ("token", "refs.key", "server.log"):
        assert stat.S_IMODE((fairlead.home / name).stat().st_mode) == 0o600, name


def test_a_killed_server_is_replaced_by_the_next_command(fairlead: CommandLine) -> None:
    fairlead("model", "list")
    killed = fairlead.address["pid"]
    kill(killed)
    assert fairlead.address["pid"] == killed, "a killed server cannot take its address back"
    assert [model["name"] for model in fairlead.json("model", "list")] == ["churn"]
    assert fairlead.address["pid"] != killed
    assert fairlead.json("audit", "verify")["is_intact"] is True


def test_a_server_that_is_stopped_seals_what_happened_and_takes_its_address_back(fairlead: CommandLine) -> None:
    fairlead("model", "alias", "churn@champion", "1")
    fairlead("stop")
    assert not (fairlead.home / "server.json").exists()
    assert unsealed_events(fairlead.home) == 0
    assert "was not running" in fairlead("stop").stderr


def test_a_second_server_of_a_home_is_refused(fairlead: CommandLine) -> None:
    fairlead("model", "list")
    second = subprocess.run(
        [sys.executable, "-m", "fairlead.app.embedded", "--home", str(fairlead.home)],
        capture_output=True,
        encoding="utf-8",
        env=fairlead.environment,
        check=False,
    )
    assert second.returncode == 5
    assert "owns" in second.stderr
    fairlead("model", "list")
    assert len(servers(fairlead.home)) == 1


def test_an_idle_server_leaves_and_a_health_check_does_not_keep_it(fairlead: CommandLine) -> None:
    fairlead("stop")
    fairlead.as_(FAIRLEAD_IDLE_EXIT="PT2S")("model", "list")
    address = fairlead.address
    server = psutil.Process(address["pid"])

    def has_left() -> bool | None:
        try:
            httpx2.get(f"{address['url']}/healthz", trust_env=False, timeout=2)
        except httpx2.TransportError:
            return True
        return None

    when(has_left, seconds=30)
    server.wait(timeout=15)
    assert not (fairlead.home / "server.json").exists()
    fairlead("model", "list")


def test_a_server_that_does_not_start_says_why_and_the_next_one_does(fairlead: CommandLine) -> None:
    fairlead("stop")
    broken = fairlead.as_(FAIRLEAD_IDLE_EXIT="soon").refused("model", "list", code=1)
    assert broken["type"] == "urn:fairlead:error:server-unavailable"
    assert "FAIRLEAD_IDLE_EXIT" in broken["detail"]
    assert str(fairlead.home / "server.log") in broken["hint"]
    fairlead("model", "list")


def test_requests_of_other_hosts_and_pages_are_refused(fairlead: CommandLine) -> None:
    fairlead("model", "list")
    url, token = fairlead.address["url"], fairlead.token
    port = url.rpartition(":")[2]
    ours = {"authorization": f"Bearer {token}"}
    for headers in (
        {"host": "evil.example"},
        {"host": f"evil.example:{port}"},
        {"host": f"127.0.0.1.evil.example:{port}"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
    ):
        for path in ("/api/v1/models", "/healthz", "/docs", "/nowhere"):
            answer = httpx2.get(url + path, headers=ours | headers, trust_env=False)
            assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json"), headers
            assert answer.json()["hint"]
            assert token not in answer.text
    for headers in ({}, {"host": f"localhost:{port}"}, {"origin": url}, {"origin": f"http://localhost:{port}"}):
        answer = httpx2.get(f"{url}/api/v1/models", headers=ours | headers, trust_env=False)
        assert answer.status_code == 200, headers
        # No page may read an answer by way of a permissive header either.
        assert "access-control-allow-origin" not in answer.headers


def servers(home: Path) -> list[psutil.Process]:
    return [process for process in processes_in(home) if "fairlead.app.embedded" in process.cmdline()]


def unsealed_events(home: Path) -> int:
    with closing(sqlite3.connect(home / "fairlead.db")) as connection:
        query = "SELECT count(*) FROM audit_events WHERE sequence IS NULL"
        return int(json.loads(str(connection.execute(query).fetchone()[0])))
