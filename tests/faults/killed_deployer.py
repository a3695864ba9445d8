"""Run by the test of killed deployments: a canary whose worker is killed with SIGKILL a step later each time.

    python killed_deployer.py FOLDER

Run number N goes on where the one before it died, and dies at its own N-th step (the record is about to note
something, it has just noted it, a process is about to be started, it has just been). After each death every region must
still have an endpoint that answers. It ends when a run gets through, and writes what is there then.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.serving import local_target
from fairlead.serving.artifacts import RegionArtifacts
from fairlead.serving.deployments import DeploymentDraft
from fairlead.serving.local_target import LocalTarget
from fairlead.serving.routing import read_table
from fairlead.serving.strategy import strategy_from_json
from fairlead.serving.targets import EndpointSpec
from fairlead.testing.clock import ManualClock
from tests.faults.killed_collector import in_a_process
from tests.fleet import ADMIN, BACK_OFF, Fleet, open_fleet
from tests.serving.models import model_files
from tests.serving.platform import EU_WEST, US, Platform
from tests.serving.small_server import write_interpreter

REGIONS = (US, EU_WEST)
CANARY = {"canary": {"steps": [20, 100], "pause": 0}}
_KEY = bytes(range(32))


@dataclass(slots=True, kw_only=True)
class RealPlatform(Platform):
    """Serving whose endpoints are processes; its record and its folders are there already."""

    def __post_init__(self) -> None:
        fleet = self.fleet
        artifacts = RegionArtifacts(fleet.database, fleet.clock, uploads=fleet.uploads, open_store=fleet.open_store)

        def download(spec: EndpointSpec, destination: Path) -> None:
            artifacts.download(spec.workspace_id, spec.residency, spec.bundle_digest, spec.region, destination)

        python = str(fleet.root / "python" / "python")
        self.target = cast("Any", LocalTarget(fleet.root / "deployments", download, python=python))


class Steps:
    """Kills this process at a given step."""

    def __init__(self, number: int) -> None:
        self._left = number

    def count(self) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


class CountedDatabase(Database):
    """A database whose commits are steps."""

    steps: Steps

    @contextmanager
    def write(self) -> Generator[Session]:
        with super().write() as session:
            yield session
            self.steps.count()
        self.steps.count()


def opened(folder: Path, clock: ManualClock, kind: type[Database] = Database) -> RealPlatform:
    database = kind(f"sqlite:///{folder / 'fairlead.db'}")
    return RealPlatform(fleet=Fleet(root=folder, database=database, clock=clock, signing_key=_KEY))


def go_on(folder: Path, clock: ManualClock, number: int) -> None:
    """Work until nothing is left to do, or until the N-th step."""
    steps = CountedDatabase.steps = Steps(number)
    launch: Callable[..., int] = local_target.launch_detached

    def counted(*arguments: Any, **options: Any) -> int:
        steps.count()
        process = launch(*arguments, **options)
        steps.count()
        return process

    cast("Any", local_target).launch_detached = counted
    opened(folder, clock, CountedDatabase).worker().run_until_idle()


def prepare(folder: Path, clock: ManualClock) -> None:
    """Version 1 runs, and the environment has just moved to version 2, whose bundle is everywhere."""
    (folder / "python").mkdir(parents=True)
    write_interpreter(folder / "python")
    with open_fleet(folder) as fleet:
        fleet.clock, fleet.signing_key = clock, _KEY
        platform = Platform(fleet=fleet)
        platform.create_model("churn")
        for number in (1, 2):
            platform.register("churn", model_files(float(number), 1.0, 1.0))
            platform.bundles.request(ADMIN, f"churn/{number}")
        platform.promote("churn", 1, revision=0)
        platform.settle(rounds=1)
        real = RealPlatform(fleet=fleet)
        strategy = strategy_from_json(CANARY)
        draft = DeploymentDraft(model="churn", environment="production", regions=REGIONS, strategy=strategy)
        real.deployments.apply(ADMIN, draft)
        real.worker().run_until_idle()
        real.promote("churn", 2, revision=1)


def answering(folder: Path) -> set[str]:
    """The regions in which an endpoint of the routing table answers."""
    found: set[str] = set()
    for endpoint in (read_table(folder / "routes.json") or {})["acme:churn"].endpoints:
        try:
            with urllib.request.urlopen(f"{endpoint.url}/readyz", timeout=2):
                found.add(endpoint.region)
        except OSError:
            continue
    return found


def processes(folder: Path) -> int:
    """How many endpoints run."""
    server = str(folder / "python" / "server.py")
    return sum(server in (process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))


def main() -> None:
    """Kill it at ever later steps, and say how often it died, and what is there when it has got through."""
    folder, clock = Path(sys.argv[1]), ManualClock()
    prepare(folder, clock)
    deaths = 0
    while in_a_process(partial(go_on, folder, clock, 1 + 2 * deaths)):
        deaths += 1
        # The lease of the one that died is over.
        clock.advance(BACK_OFF)
        assert answering(folder) == set(REGIONS), deaths
    platform = opened(folder, clock)
    status = platform.deployments.get(ADMIN, "churn")
    found = {
        "deaths": deaths,
        "revision": [status.revision_state, status.live_revision],
        "regions": [[each.region, each.state, each.version, each.traffic_percent] for each in status.regions],
        "steps": [[each.action, each.state] for each in status.steps],
        "processes": processes(folder),
        "answering": sorted(answering(folder)),
    }
    platform.deployments.delete(ADMIN, "churn")
    platform.worker().run_until_idle()
    found["left"] = processes(folder)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
