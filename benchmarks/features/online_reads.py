"""Online reads of 100 entities: Fairlead against Feast, in process and over HTTP, on SQLite, from the same rows.

    python benchmarks/features/online_reads.py [--entities 100000] [--seconds 5]

In process: `feast.FeatureStore.get_online_features(...).to_dict()` against `client.features.local_reader(...)
.read(...).to_dict()`. Over HTTP: `feast serve` against `fairlead features serve`, one process each as they start by
themselves, each asked the same bodies at `/get-online-features` by clients that keep their connections. Each contestant
is asked one after the other; nothing else runs meanwhile but the clients and an idle registry. Before anything is
measured, all four answers are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REGION = "aws:us-east-1"
BATCH = 100
BODIES = 64
SEED = 7
FEATURES = {
    **{f"amount_{n}": "Float64" for n in range(5)},
    **{f"count_{n}": "Int64" for n in range(3)},
    **{f"label_{n}": "String" for n in range(2)},
}
DEFINITIONS = f"""
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
activity = FeatureView(
    name="activity",
    entities=[user],
    ttl=timedelta(days=3650),
    schema=[{", ".join(f'Field(name="{name}", dtype={kind})' for name, kind in FEATURES.items())}],
    source=FileSource(name="activity_source", path="activity.parquet", timestamp_field="event_timestamp"),
)
recommend = FeatureService(name="recommend", features=[activity[{list(FEATURES)!r}]])
"""
STORE = """
project: race
registry: registry.db
provider: local
online_store: {type: sqlite, path: online.db}
entity_key_serialization_version: 3
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What clients saw together."""

    name: str
    clients: int
    reads: int
    seconds: float
    cpu_seconds: float
    latencies_ms: Sequence[float]

    @property
    def cpu_ms(self) -> float:
        """CPU of whoever answered for one batch: what stays comparable on a machine that others use too."""
        return self.cpu_seconds * 1000 / max(1, self.reads)

    @property
    def rate(self) -> float:
        """Batches a second."""
        return self.reads / self.seconds

    def quantile(self, share: float) -> float:
        """The latency that this share of the reads stayed below, in milliseconds."""
        return sorted(self.latencies_ms)[min(len(self.latencies_ms) - 1, int(share * len(self.latencies_ms)))]


def write_rows(folder: Path, entities: int) -> None:
    """One row for each user."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow: Any = pa
    parquet: Any = pq
    numbers = np.random.default_rng(SEED)
    now = int(time.time()) * 1_000_000
    columns: dict[str, Any] = {
        "user_id": np.arange(entities),
        "event_timestamp": arrow.array([now - 1_000_000 * (n % 86400) for n in range(entities)], arrow.int64()).cast(
            arrow.timestamp("us", tz="UTC")
        ),
    }
    for name, kind in FEATURES.items():
        if kind == "Float64":
            columns[name] = numbers.normal(size=entities)
        elif kind == "Int64":
            columns[name] = numbers.integers(0, 1_000_000, size=entities)
        else:
            columns[name] = [f"value {n % 1000}" for n in range(entities)]
    parquet.write_table(arrow.table(columns), folder / "activity.parquet")


@contextlib.contextmanager
def running(command: Sequence[str], environment: dict[str, str], *, port: int) -> Generator[int]:
    """A server process that answers at `/health` while the block runs."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1800):
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def cpu_of(process: int) -> float:
    """CPU seconds that a process and its children have used."""
    used = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if process in {int(path.parent.name), int(fields[1])}:
                used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def measure(
    name: str, clients: int, seconds: float, make: Callable[[], Callable[[int], None]], *, server: int | None = None
) -> Measured:
    """Let clients read, each on its own thread, after a second of warming up; `server` is who answers them."""
    latencies: list[list[float]] = [[] for _ in range(clients)]
    begin = time.perf_counter() + 1.0
    end = begin + seconds

    def run(index: int) -> None:
        read, turn = make(), index * 1000
        while (at := time.perf_counter()) < end:
            read(turn)
            if at >= begin:
                latencies[index].append((time.perf_counter() - at) * 1000)
            turn += 1

    def used() -> float:
        return time.process_time() if server is None else cpu_of(server)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, begin - time.perf_counter()))
    before = used()
    for thread in threads:
        thread.join()
    flat = [each for own in latencies for each in own]
    return Measured(
        name=name,
        clients=clients,
        reads=len(flat),
        seconds=time.perf_counter() - begin,
        cpu_seconds=used() - before,
        latencies_ms=flat,
    )


def over_http(port: int, bodies: Sequence[bytes], token: str) -> Callable[[], Callable[[int], None]]:
    """Makes clients that keep a connection each; an answer is read whole."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}

    def make() -> Callable[[int], None]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

        def read(turn: int) -> None:
            connection.request("POST", "/get-online-features", bodies[turn % len(bodies)], headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"port {port} answered {answer.status}")

        return read

    return make


def ask(port: int, body: bytes, token: str) -> dict[str, list[Any]]:
    """One answer over HTTP, by feature."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(
        "POST", "/get-online-features", body, {"content-type": "application/json", "authorization": f"Bearer {token}"}
    )
    answer = json.loads(connection.getresponse().read())
    return dict(zip(answer["metadata"]["feature_names"], (each["values"] for each in answer["results"]), strict=True))


def free_port() -> int:
    """A port that nobody has now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def race(folder: Path, entities: int, seconds: float) -> list[Measured]:
    """Prepare both, compare their answers, and measure."""
    repository = folder / "repository"
    repository.mkdir()
    write_rows(repository, entities)
    (repository / "definitions.py").write_text(DEFINITIONS)
    (repository / "feature_store.yaml").write_text(STORE)
    home = folder / "home"
    os.environ |= {"FAIRLEAD_HOME": str(home), "FEAST_USAGE": "False"}
    import fairlead

    with fairlead.connect() as client:
        client.features.apply(repository)
        client.features.snapshot("recommend")
        client.features.materialize("recommend", regions=[REGION])
        token = (client.authorization or "").removeprefix("Bearer ")

        from datetime import UTC, datetime, timedelta

        from feast import FeatureStore

        from fairlead.sdk.feast_objects import load_repository

        feast: Any = FeatureStore(repo_path=str(repository))
        feast.apply(list(load_repository(repository).objects))
        feast.materialize(start_date=datetime.now(UTC) - timedelta(days=30), end_date=datetime.now(UTC))
        service = feast.get_feature_service("recommend")

        chance = random.Random(SEED)
        batches = [[chance.randrange(entities) for _ in range(BATCH)] for _ in range(BODIES)]
        bodies = [
            json.dumps({"feature_service": "recommend", "entities": {"user_id": batch}}).encode() for batch in batches
        ]
        rows = [[{"user_id": each} for each in batch] for batch in batches]
        local = client.features.local_reader("recommend", region=REGION)
        ports = free_port(), free_port()
        binaries = Path(sys.executable).parent
        theirs = [str(binaries / "feast"), "-c", str(repository), "serve", "-p", str(ports[0]), "--no-access-log"]
        ours = [str(binaries / "fairlead"), "features", "serve", "--region", REGION, "--port", str(ports[1])]

        def in_feast() -> Callable[[int], None]:
            return lambda turn: feast.get_online_features(features=service, entity_rows=rows[turn % BODIES]).to_dict()

        def in_fairlead() -> Callable[[int], None]:
            def read(turn: int) -> None:
                local.read({"user_id": batches[turn % BODIES]}).to_dict()

            return read

        environment = dict(os.environ)
        with (
            running(theirs, environment, port=ports[0]) as their_server,
            running(ours, environment, port=ports[1]) as our_server,
        ):
            expected = ask(ports[0], bodies[0], token)
            for other in (
                ask(ports[1], bodies[0], token),
                feast.get_online_features(features=service, entity_rows=rows[0]).to_dict(),
                local.read({"user_id": batches[0]}).to_dict(),
            ):
                if other != expected:
                    raise SystemExit("the answers differ")
            found: list[Measured] = []
            for clients in (1, 16):
                found += [
                    measure("Feast SDK", clients, seconds, in_feast),
                    measure("Fairlead SDK, local", clients, seconds, in_fairlead),
                    measure("feast serve", clients, seconds, over_http(ports[0], bodies, token), server=their_server),
                    measure(
                        "fairlead features serve",
                        clients,
                        seconds,
                        over_http(ports[1], bodies, token),
                        server=our_server,
                    ),
                ]
        local.close()
        return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="online-reads-") as folder:
        found = race(Path(folder), options.entities, options.seconds)
    lines = [
        "| contestant | clients | batches/s | times | p50 ms | p99 ms | CPU ms a batch | times less |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for before, each in zip([None, *found], found, strict=False):
        times = less = ""
        if before is not None and "airlead" in each.name:
            times, less = f"{each.rate / before.rate:.1f}", f"{before.cpu_ms / each.cpu_ms:.1f}"
        lines.append(
            f"| {each.name} | {each.clients} | {each.rate:.0f} | {times} | {each.quantile(0.5):.2f} "
            f"| {each.quantile(0.99):.2f} | {each.cpu_ms:.2f} | {less} |"
        )
    sys.stdout.write("\n".join(lines) + f"\nload average: {os.getloadavg()}\n")


if __name__ == "__main__":
    main()
