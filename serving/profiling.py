"""Measures what one replica of a bundle does: its endpoint in a process of its own, under a closed loop of requests.

Each caller sends its next request when it has the answer to the last one, one row of the version's examples in each.
Their number doubles from step to step until answers take longer than they may, or more callers bring no more answers.
The callers run on the same machine, so what is measured is a little less than the replica could do alone.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fairlead.core.errors import InvalidInput, Unavailable
from fairlead.serving.processes import free_port, log_tail
from fairlead.serving.smoke_run import read_examples

CONCURRENCY_MAX = 256
_GROWTH = 1.05
_START_SECONDS = 120.0
_SAMPLE_SECONDS = 0.05
_ROWS_MAX = 100
_ANSWER_MAX_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileLimits:
    """How a profile is taken: until the 95th percentile passes `p95_ms` (None: until saturation), `seconds` a step."""

    p95_ms: float | None = None
    max_concurrency: int = 64
    seconds: float = 3.0

    def __post_init__(self) -> None:
        if self.p95_ms is not None and not 0 < self.p95_ms <= 600_000:
            raise InvalidInput("A limit of the 95th percentile is between 0 and 600000 ms.")
        if not 1 <= self.max_concurrency <= CONCURRENCY_MAX:
            raise InvalidInput(f"A profile is taken with 1 to {CONCURRENCY_MAX} callers.")
        if not 0.2 <= self.seconds <= 60:
            raise InvalidInput("A step of a profile lasts between 0.2 and 60 seconds.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What was measured with one number of callers. CPU time is that of the endpoint's processes."""

    concurrency: int
    requests: int
    errors: int
    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms_per_request: float

    def to_json(self) -> dict[str, Any]:
        """The level as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one replica does. `best` is the level with the most answers that kept the limit, None where none did."""

    levels: tuple[Level, ...]
    best: Level | None
    peak_memory_bytes: int
    start_seconds: float


def profile_bundle(
    bundle: Path,
    scratch: Path,
    limits: ProfileLimits,
    *,
    environment: Mapping[str, str],
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> Measured:
    """Start a bundle, and load it more and more; `report` is told (steps done, steps at most).

    Raises:
        InvalidInput: if the version has no examples to ask it with.
        Unavailable: if the endpoint does not start, or does not answer one example.
    """
    rows = [*itertools.islice(read_examples(bundle / "src" / "model").rows, _ROWS_MAX)]
    if not rows:
        raise InvalidInput(
            "The version has no recorded examples to ask it with.",
            hint="Register it with an input example, or with a file fairlead_examples.json.",
        )
    bodies = [json.dumps({"rows": [row]}).encode() for row in rows]
    steps = math.ceil(math.log2(limits.max_concurrency)) + 1
    with _endpoint(bundle, scratch, environment) as served:
        _ask_once(served, bodies[0])
        levels: list[Level] = []
        for number in range(steps):
            concurrency = min(2**number, limits.max_concurrency)
            levels.append(_measure(served, bodies, concurrency, limits.seconds))
            report(number + 1, steps)
            if is_enough(levels, limits.p95_ms):
                break
        return Measured(
            levels=tuple(levels),
            best=best_of(levels, limits.p95_ms),
            peak_memory_bytes=served.peak_memory_bytes,
            start_seconds=served.start_seconds,
        )


def best_of(levels: Sequence[Level], p95_ms: float | None) -> Level | None:
    """The level with the most answers a second among those without errors that kept the limit."""
    kept = [each for each in levels if not each.errors and (p95_ms is None or each.p95_ms <= p95_ms)]
    return max(kept, key=lambda each: each.requests_per_second, default=None)


def is_enough(levels: Sequence[Level], p95_ms: float | None) -> bool:
    """Whether more callers would show nothing: the limit is passed, requests fail, or answers grow no more."""
    last = levels[-1]
    if last.errors or (p95_ms is not None and last.p95_ms > p95_ms):
        return True
    before = max((each.requests_per_second for each in levels[:-1]), default=0.0)
    return last.requests_per_second < before * _GROWTH


@dataclass(slots=True, kw_only=True)
class _Served:
    port: int
    process: psutil.Process
    start_seconds: float = 0.0
    peak_memory_bytes: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)

    def family(self) -> list[psutil.Process]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.Error:
            return []

    def watch(self) -> None:
        """Note the largest memory that all processes held together, until it is over."""
        while not self.is_over.wait(_SAMPLE_SECONDS):
            held = 0
            for each in self.family():
                with contextlib.suppress(psutil.Error):
                    held += int(each.memory_info().rss)
            self.peak_memory_bytes = max(self.peak_memory_bytes, held)

    def cpu_seconds(self) -> float:
        """The CPU time that the processes have used so far."""
        used = 0.0
        for each in self.family():
            with contextlib.suppress(psutil.Error):
                times = each.cpu_times()
                used += times.user + times.system
        return used


@contextlib.contextmanager
def _endpoint(bundle: Path, scratch: Path, environment: Mapping[str, str]) -> Generator[_Served]:
    home, log, port = scratch / "home", scratch / "serve.log", free_port()
    home.mkdir(parents=True, exist_ok=True)
    # It runs code of an artifact: it gets none of our settings and secrets.
    ours = {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(home), "HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bentoml", "serve", str(bundle), "--host", "127.0.0.1", "--port", str(port)]
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=scratch,
            env={"PATH": os.defpath, **environment, **ours},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    served = _Served(port=port, process=psutil.Process(process.pid))
    watcher = threading.Thread(target=served.watch, name="fairlead-profile", daemon=True)
    watcher.start()
    try:
        while not _is_ready(port):
            if process.poll() is not None or time.monotonic() - began > _START_SECONDS:
                raise Unavailable(f"The endpoint did not start. Its log ends:\n{log_tail(log)}")
            time.sleep(_SAMPLE_SECONDS)
        served.start_seconds = time.monotonic() - began
        yield served
    finally:
        served.is_over.set()
        for each in reversed(served.family()):
            with contextlib.suppress(psutil.Error):
                each.kill()
        process.wait()
        watcher.join()


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _ask_once(served: _Served, body: bytes) -> None:
    """One request before any is counted: the first one pays for what is loaded late."""
    with contextlib.closing(_Caller(served.port)) as caller:
        if not caller.ask(body):
            raise Unavailable(
                "The endpoint does not answer the version's first example.",
                hint="See what it answers: fairlead bundle test REFERENCE",
            )


def _measure(served: _Served, bodies: Sequence[bytes], concurrency: int, seconds: float) -> Level:
    taken: list[list[float]] = [[] for _ in range(concurrency)]
    failed = [0] * concurrency
    began, used = time.monotonic(), served.cpu_seconds()
    deadline = began + seconds

    def call(number: int) -> None:
        with contextlib.closing(_Caller(served.port)) as caller:
            for body in itertools.islice(itertools.cycle(bodies), number, None):
                start = time.monotonic()
                if start >= deadline:
                    return
                if caller.ask(body):
                    taken[number].append(time.monotonic() - start)
                else:
                    failed[number] += 1

    threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lasted, used = time.monotonic() - began, served.cpu_seconds() - used
    latencies = sorted(itertools.chain.from_iterable(taken))
    count = len(latencies)
    return Level(
        concurrency=concurrency,
        requests=count,
        errors=sum(failed),
        requests_per_second=count / lasted,
        p50_ms=1000 * percentile(latencies, 0.50),
        p95_ms=1000 * percentile(latencies, 0.95),
        p99_ms=1000 * percentile(latencies, 0.99),
        cpu_ms_per_request=1000 * used / max(count, 1),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least value that a share of all values do not exceed; 0 where there are none."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else 0.0


class _Caller:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, body: bytes) -> bool:
        """Whether a request was answered with a prediction."""
        try:
            self._connection.request("POST", "/predict_rows", body, {"content-type": "application/json"})
            response = self._connection.getresponse()
            if len(response.read(_ANSWER_MAX_BYTES)) < _ANSWER_MAX_BYTES:
                return response.status == 200
        except (OSError, http.client.HTTPException):
            pass
        self._connection.close()
        return False

    def close(self) -> None:
        self._connection.close()
