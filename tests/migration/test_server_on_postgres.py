"""A server and workers of their own beside PostgreSQL, as an operator runs them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.acceptance.command_line import LABELS, CommandLine, write_folder
from tests.acceptance.servers import Running, running, running_server
from tests.acceptance.world import when
from tests.serving.models import model_files

pytestmark = pytest.mark.timeout(240)

US, EU, AZURE = "aws:us-east-1", "gcp:europe-west4", "azure:westeurope"


@pytest.fixture
def operator(tmp_path: Path, postgres_database: str) -> CommandLine:
    """The operator's shell: an upgraded database; leases are short, so that the test need not wait long."""
    variables = {"FAIRLEAD_DATABASE_URL": postgres_database, "FAIRLEAD_LEASE": "PT3S"}
    shell = CommandLine(home=tmp_path / "server", variables=variables)
    shell("db", "upgrade")
    return shell


def test_the_owners_token_is_printed_at_the_first_start_alone(operator: CommandLine) -> None:
    with running_server(operator, "--no-worker") as (server, url):
        secret = server.wait_for(r"shown this once: (fl_\S+)")[1]
        health = httpx2.get(f"{url}/healthz", trust_env=False)
        assert (health.status_code, health.json()["status"]) == (200, "ok")
        assert httpx2.get(f"{url}/api/v1/models", trust_env=False).status_code == 401
        ana = CommandLine(home=operator.home, variables={"FAIRLEAD_URL": url, "FAIRLEAD_TOKEN": secret})
        ana("model", "list")
        port = url.rpartition(":")[2]
        assert operator.refused("server", "--port", port, code=5)["type"] == "urn:fairlead:error:conflict"
    with running_server(operator, "--no-worker") as (server, url):
        assert not any("fl_" in line for line in server.lines)
        ana.as_(FAIRLEAD_URL=url)("model", "list")


def test_several_processes_answer_on_one_port_and_one_that_dies_is_replaced(operator: CommandLine) -> None:
    with running_server(operator, "--no-worker", "--processes", "2") as (server, url):
        secret = server.wait_for(r"shown this once: (fl_\S+)")[1]
        seen: set[str] = set()

        def meet(count: int) -> bool | None:
            # Each request is a connection of its own, and so somebody else's.
            seen.add(httpx2.get(f"{url}/healthz", trust_env=False).json()["instance"])
            return True if len(seen) == count else None

        when(lambda: meet(2))
        ana = CommandLine(home=operator.home, variables={"FAIRLEAD_URL": url, "FAIRLEAD_TOKEN": secret})
        ana("model", "list")
        (replica,) = psutil.Process(server.pid).children()
        replica.kill()
        # What has come to a process while it dies is reset; nobody can come to it any more.
        replica.wait(timeout=20)
        when(lambda: meet(3))
        (replica,) = psutil.Process(server.pid).children()
    replica.wait(timeout=20)


def test_several_processes_need_postgresql(tmp_path: Path) -> None:
    shell = CommandLine(home=tmp_path / "server", variables={})
    assert shell.refused("server", "--processes", "2", code=2)["type"] == "urn:fairlead:error:invalid-input"


def test_workers_do_their_own_regions_work_and_one_finishes_what_a_killed_one_began(
    operator: CommandLine, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "model", model_files(0.5, extra_bytes=100_000))
    with ExitStack() as stack:
        server, url = stack.enter_context(running_server(operator, "--no-worker"))
        secret = server.wait_for(r"shown this once: (fl_\S+)")[1]
        ana = CommandLine(
            home=operator.home, variables={"FAIRLEAD_URL": url, "FAIRLEAD_TOKEN": secret, "FAIRLEAD_REGION": US}
        )
        for region in (US, EU, AZURE):
            name = region.replace(":", "-")
            ana("location", "add", name, "--region", region, "--url", (tmp_path / name).as_uri())
        ana("model", "register", "churn", folder, *LABELS, "--no-wait")
        assert ana.json("model", "show", "churn/1")["state"] == "PENDING"

        american = start_worker(operator, stack, US)
        when(lambda: True if ana.json("model", "show", "churn/1")["state"] == "READY" else None)
        assert states(ana) == {US: "VERIFIED", EU: "PENDING", AZURE: "PENDING"}

        # The worker in Europe meets a source that does not answer, so it is killed in the middle of a copy. It is the
        # first hop of the cheapest tree: the other region waits for it.
        (pack,) = (tmp_path / "aws-us-east-1").rglob("*.pack")
        data = pack.read_bytes()
        pack.unlink()
        os.mkfifo(pack)
        european = start_worker(operator, stack, AZURE)
        when(lambda: running_in(ana, AZURE) or None)
        european.kill()
        pack.unlink()
        pack.write_bytes(data)

        start_worker(operator, stack, AZURE)
        when(lambda: True if states(ana)[AZURE] == "VERIFIED" else None)
        assert states(ana) == {US: "VERIFIED", AZURE: "VERIFIED", EU: "PENDING"}
        assert american.process.poll() is None
        copies = ana.json("ledger", "--kind", "replicate")
        assert [entry["region"] for entry in copies] == [AZURE]


def test_a_worker_of_a_region_that_nobody_knows_does_not_start(operator: CommandLine) -> None:
    refused = operator.refused("worker", "--region", "aws:us-east-9", code=2)
    assert refused["type"] == "urn:fairlead:error:unknown-region"


def start_worker(operator: CommandLine, stack: ExitStack, region: str) -> Running:
    worker = stack.enter_context(running(operator, "worker", "--region", region))
    worker.wait_for(f"Working for {region}")
    return worker


def states(ana: CommandLine) -> dict[str, str]:
    return {row["region"]: row["state"] for row in ana.json("model", "where", "churn/1")}


def running_in(ana: CommandLine, region: str) -> bool:
    return any(row["region"] == region and row["state"] == "RUNNING" for row in ana.json("work"))
