"""Who races: each brings a version's folder to all destinations, and tells bytes, seconds and CPU seconds."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.sync.race.clouds import Destination
from benchmarks.sync.race.peers import Peers

VERSIONS = ("v1", "v2", "lora", "header")


@dataclass(kw_only=True)
class Run:
    """What bringing one version to its destinations took.

    `sent` and `received` are bytes of TCP payload, and `copy_seconds` the time, by destination. `read_back` is the time
    of reading every byte at the destinations again, which a worker of that region does and which crosses no border.
    """

    sent: dict[str, int] = field(default_factory=dict[str, int])
    received: dict[str, int] = field(default_factory=dict[str, int])
    egress_usd: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    copy_seconds: dict[str, float] = field(default_factory=dict[str, float])
    read_back_seconds: float | None = None
    read_back_cpu_seconds: float | None = None

    def count(self, destination: Destination) -> None:
        """Note what passed the destination's proxy since it began to count."""
        self.sent[destination.name] = destination.proxy.sent_bytes
        self.received[destination.name] = destination.proxy.received_bytes
        self.egress_usd += destination.egress_usd(destination.proxy.sent_bytes)


class Contestant(Protocol):
    """Somebody who can bring versions to clouds."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        ...

    @property
    def destinations(self) -> Sequence[str]:
        """The clouds it can reach, by name."""
        ...

    @property
    def versions(self) -> Sequence[str]:
        """The versions it takes part in."""
        ...

    def push(self, models: Path, version: str, buckets: dict[str, str], clouds: Sequence[Destination]) -> Run:
        """Bring `models/version` to a bucket of each cloud; versions before it are there already."""
        ...


class Ours:
    """Fairlead: registered at home once, copied as it is stored there, deltas and all."""

    name = "Fairlead"
    destinations = ("S3", "GCS", "Azure")
    versions = VERSIONS

    def __init__(self, work: Path) -> None:
        self._home = work / "home"
        self._base: str | None = None
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)

    def push(self, models: Path, version: str, buckets: dict[str, str], clouds: Sequence[Destination]) -> Run:
        job = {
            "home": str(self._home),
            "source": str(models / version),
            "base": self._base,
            "base_source": str(models / VERSIONS[0]),
            "destinations": [[c.name, f"{c.scheme}://{buckets[c.name]}", c.options] for c in clouds],
        }
        run = Run()
        command = [sys.executable, "-m", "benchmarks.sync.race.ours", json.dumps(job)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            _answer(process)
            for cloud in clouds:
                cloud.proxy.restart_count()
            _go_on(process)
            for cloud in clouds:
                _answer(process)
                run.count(cloud)
                _go_on(process)
                _answer(process)
                _go_on(process)
            result = _answer(process)
        laps: dict[str, tuple[float, float]] = result["laps"]
        steps = ["register", *(f"copy to {cloud.name}" for cloud in clouds)]
        run.seconds = sum(laps[step][0] for step in steps)
        run.cpu_seconds = sum(laps[step][1] for step in steps)
        run.copy_seconds = {cloud.name: laps[f"copy to {cloud.name}"][0] for cloud in clouds}
        run.read_back_seconds, run.read_back_cpu_seconds = laps["read back"]
        self._base = self._base or result["digest"]
        return run


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "our process ended early"
    return json.loads(line)


def _go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


class Copier:
    """A program that copies a folder as it is: rclone, `aws s3 sync` or s5cmd."""

    versions = VERSIONS

    def __init__(self, name: str, peers: Peers) -> None:
        self.name = name
        self.destinations = ("S3", "GCS", "Azure") if name == "rclone" else ("S3",)
        self._peers = peers

    def push(self, models: Path, version: str, buckets: dict[str, str], clouds: Sequence[Destination]) -> Run:
        run = Run()
        for cloud in clouds:
            self.copy(models / version, cloud, buckets[cloud.name], version, run)
        return run

    def copy(self, source: Path, cloud: Destination, bucket: str, version: str, run: Run) -> None:
        """Run the program for one cloud, and add to the run what it took."""
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        cloud.proxy.restart_count()
        began, cpu = time.perf_counter(), _children_cpu_seconds()
        subprocess.run(
            self._command(source, cloud, bucket, version), check=True, capture_output=True, env=os.environ | keys
        )
        run.copy_seconds[cloud.name] = time.perf_counter() - began
        run.seconds += run.copy_seconds[cloud.name]
        run.cpu_seconds += _children_cpu_seconds() - cpu
        run.count(cloud)

    def _command(self, source: Path, cloud: Destination, bucket: str, version: str) -> list[str]:
        if self.name == "rclone":
            program, target = self._peers.program("rclone"), f"{cloud.rclone}{bucket}/{version}"
            return [str(program), "copy", "--config", os.devnull, "--s3-no-check-bucket", str(source), target]
        endpoint, target = ["--endpoint-url", cloud.options["endpoint_url"]], f"s3://{bucket}/{version}/"
        if self.name == "s5cmd":
            return [str(self._peers.program("s5cmd")), *endpoint, "sync", f"{source}/", target]
        return [str(self._peers.program("aws")), *endpoint, "s3", "sync", "--only-show-errors", str(source), target]


class Encoder:
    """A file that was squeezed by one of `encoders.py`, alone or against the first version, copied by rclone."""

    destinations = ("S3", "GCS", "Azure")

    def __init__(self, name: str, method: str, precision: str, *, peers: Peers, work: Path, has_base: bool) -> None:
        self.name = name
        self.versions = VERSIONS[1:] if has_base else VERSIONS
        self._method, self._precision, self._has_base = method, precision, has_base
        self._peers, self._work = peers, work
        self._rclone = Copier("rclone", peers)

    def push(self, models: Path, version: str, buckets: dict[str, str], clouds: Sequence[Destination]) -> Run:
        folder = self._work / "encoded"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copyfile(models / version / "config.json", folder / "config.json")
        base = models / VERSIONS[0] / "model.safetensors" if self._has_base or version != VERSIONS[0] else None
        took = encode(
            self._peers,
            self._method,
            self._precision,
            source=models / version / "model.safetensors",
            output=folder / "model.safetensors.squeezed",
            base=base,
        )
        run = Run(seconds=took["seconds"], cpu_seconds=took["cpu_seconds"])
        for cloud in clouds:
            self._rclone.copy(folder, cloud, buckets[cloud.name], version, run)
        return run


def encode(
    peers: Peers, method: str, precision: str, *, source: Path, output: Path, base: Path | None
) -> dict[str, float]:
    """Squeeze one file in the peers' environment; its bytes, seconds and CPU seconds."""
    script = Path(__file__).with_name("encoders.py")
    arguments = [method, precision, str(source), str(output), *([] if base is None else [str(base)])]
    command = [str(peers.python), "-W", "ignore", str(script), *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
