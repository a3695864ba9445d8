"""The local deploy target: one `bentoml serve` process on loopback for each deployment and region.

    {folder}/{workspace}/{deployment}/{region}/
        state.json            the process that serves, the former one, and those that must end
        lock                  held while something is changed
        {digest}/             the bundle, checked against its digest before every start
        home/  serve.log      of the processes

While traffic moves, two processes run side by side, and requests are divided between their addresses. One process
serves however many replicas are asked for. Processes have sessions of their own, so they live on when the server that
started them dies, and a new server finds them again by their state file. The bundle comes from a replica in the
endpoint's own region.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from fairlead.catalog import UNRESTRICTED
from fairlead.core.errors import EndpointUnavailable, IntegrityError, InvalidInput, InvalidManifest
from fairlead.core.ids import Digest, digest_hex
from fairlead.serving.kinds.local import LocalSettings
from fairlead.serving.local_state import PlaceState, Served, read_state, write_state
from fairlead.serving.processes import (
    ProcessRecord,
    descendants,
    find_processes,
    free_port,
    launch_detached,
    listens,
    log_tail,
    terminate,
)
from fairlead.serving.targets import (
    Delivery,
    EndpointKey,
    EndpointSpec,
    NoLongerWanted,
    RunningEndpoint,
    StillStarting,
    TargetParts,
    identity_of,
)
from fairlead.sync.store.manifest import build_manifest

START_SECONDS = 90.0
SLICE_SECONDS = 10.0
"""How long one call waits for a process to get ready, before it lets others have their turn."""

IDENTITY_HEADER = "x-fairlead-endpoint"
_ASK_AGAIN_SECONDS = 2.0
_WORKER_POLLS = 2
_ARRIVAL_SECONDS = 0.5
_log = logging.getLogger(__name__)

Download = Callable[[EndpointSpec, Path], None]
"""Write the files of `spec.bundle_digest` below a folder, from a replica in `spec.region`, every byte verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Readiness:
    """What a process answered when it was last asked whether it is ready; `at` is of the monotonic clock."""

    process: ProcessRecord
    is_ready: bool
    at: float


class LocalTarget:
    """Runs endpoints as processes of this machine. Implements `DeployTarget`."""

    def __init__(
        self,
        folder: Path,
        download: Download,
        *,
        python: str = sys.executable,
        start_seconds: float = START_SECONDS,
        slice_seconds: float = SLICE_SECONDS,
    ) -> None:
        self._folder = folder
        self._download = download
        self._python = python
        self._start_seconds = start_seconds
        self._slice_seconds = slice_seconds
        self._asked: dict[EndpointKey, _Readiness] = {}

    def ensure(
        self,
        spec: EndpointSpec,
        switch: Callable[[RunningEndpoint], None],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> RunningEndpoint:
        """See `DeployTarget.ensure`.

        Raises:
            StillStarting: if the process is not ready after some seconds.
            NoLongerWanted: once `is_wanted` says no.
            EndpointUnavailable: if the process does not get ready in time; its detail ends with the process's log.
            ReplicaUnavailable, IntegrityError: if the region's replica of the bundle cannot be read.
        """
        home = self._home(spec.key)
        self._asked.pop(spec.key, None)
        with _locked(home):
            former = None if spec.former is None else self._bring(home, spec.former, is_wanted)
            current = self._bring(home, spec, is_wanted)
            running = _running(current, former)
            switch(running)
            kept = [each.process for each in (current, former) if each is not None]
            leaving = tuple(each for each in read_state(home).all if each.process not in kept)
            write_state(home, PlaceState(current=current, former=former, leaving=leaving))
            _drain(leaving)
            write_state(home, PlaceState(current=current, former=former))
            digests = [each.spec.bundle_digest for each in (current, former) if each is not None]
            _remove_bundles(home, keep={*digests, *(each.spec.bundle_digest for each in leaving[:1])})
            return running

    @property
    def is_used(self) -> bool:
        """Whether any deployment runs here, or is being started or stopped."""
        return any(self._folder.glob("*/*"))

    def observe(self, spec: EndpointSpec) -> RunningEndpoint | None:
        """See `DeployTarget.observe`; a process is asked whether it is ready every two seconds at most."""
        state = read_state(self._home(spec.key))
        current = state.current
        if current is None or not current.process.is_alive:
            return None
        former = state.former if state.former is not None and state.former.process.is_alive else None
        return replace(_running(current, former), is_ready=self._is_ready(spec.key, current))

    def stop(self, key: EndpointKey) -> None:
        """See `DeployTarget.stop`; the region's folder goes too."""
        home = self._home(key)
        if not home.exists():
            return
        with _locked(home):
            _drain(read_state(home).all)
            write_state(home, PlaceState())
        shutil.rmtree(home, ignore_errors=True)
        with contextlib.suppress(OSError):
            home.parent.rmdir()

    def _home(self, key: EndpointKey) -> Path:
        # A colon would split the path wherever a list of paths is written in one string.
        return self._folder / key.workspace_id / key.deployment / key.region.replace(":", "-")

    def _is_ready(self, key: EndpointKey, served: Served) -> bool:
        asked, now = self._asked.get(key), time.monotonic()
        if asked is None or asked.process != served.process or now - asked.at >= _ASK_AGAIN_SECONDS:
            is_ready = _ask(served.port, timeout_seconds=1.0) == (served.identity or "")
            asked = _Readiness(process=served.process, is_ready=is_ready, at=now)
            self._asked[key] = asked
        return asked.is_ready

    def _bring(self, home: Path, spec: EndpointSpec, is_wanted: Callable[[], bool]) -> Served:
        """A process that serves a specification and is ready: one that runs, or is getting ready, or a new one."""
        state = read_state(home)
        for served in (state.current, state.former, *state.leaving):
            is_it = served is not None and served.spec.answers_like(spec) and served.process.is_alive
            if served is not None and is_it and _ask(served.port) == (served.identity or ""):
                return replace(served.with_children(), spec=spec)
        for served in state.starting:
            if served.spec.answers_like(spec):
                return self._await(home, replace(served, spec=spec), is_wanted)
        return self._start(home, spec, is_wanted)

    def _start(self, home: Path, spec: EndpointSpec, is_wanted: Callable[[], bool]) -> Served:
        bundle = self._fetch(home, spec)
        _end_strays(home, read_state(home).all)
        log = home / "serve.log"
        port = free_port()
        log_start = log.stat().st_size if log.exists() else 0
        pid = launch_detached(
            [self._python, "-m", "bentoml", "serve", bundle, "--host", "127.0.0.1", "--port", str(port)],
            folder=home,
            environment=_environment(home, spec),
            log=log,
        )
        record = ProcessRecord.of(pid)
        if record is None:
            raise _failure(spec, log_tail(log, start=log_start))
        served = Served(spec=spec, port=port, process=record, started_at=time.time(), log_start=log_start)
        # Written before anything else can go wrong, so that the process is never forgotten.
        state = read_state(home)
        write_state(home, replace(state, starting=(*state.starting, served)))
        return self._await(home, served, is_wanted)

    def _await(self, home: Path, served: Served, is_wanted: Callable[[], bool]) -> Served:
        """Wait for a while; what is not ready by then is waited for in the next call, until its time is up."""
        outcome = _wait_until_ready(served, is_wanted, self._slice_seconds)
        state = read_state(home)
        others = tuple(each for each in state.starting if each.process != served.process)
        is_late = not 0 <= time.time() - served.started_at < self._start_seconds
        if outcome == "ready":
            ready = replace(served.with_children(), identity=_ask(served.port) or None)
            # Until traffic has moved, it is one of those that may have to end.
            write_state(home, replace(state, starting=(*others, ready)))
            return ready
        if outcome == "waiting" and not is_late:
            raise StillStarting
        terminate(served.with_children().records)
        write_state(home, replace(state, starting=others))
        if outcome == "unwanted":
            raise NoLongerWanted
        tail = log_tail(home / "serve.log", start=served.log_start)
        if "address already in use" in tail.lower():
            # Another process took the port that was free; the next call looks for another one.
            raise StillStarting
        raise _failure(served.spec, tail)

    def _fetch(self, home: Path, spec: EndpointSpec) -> Path:
        bundle = home / digest_hex(spec.bundle_digest)
        if bundle.exists():
            # Python's byte code is no part of the bundle, and what stands there was checked by nobody.
            for cache in list(bundle.rglob("__pycache__")):
                shutil.rmtree(cache)
            with contextlib.suppress(InvalidManifest, InvalidInput):
                if build_manifest(bundle).digest == spec.bundle_digest:
                    return bundle
            _log.warning("the bundle on disk of %s in %s was altered; fetching it again", spec.deployment, spec.region)
            shutil.rmtree(bundle)
        partial = home / f".{digest_hex(spec.bundle_digest)}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        self._download(spec, partial)
        if (found := build_manifest(partial).digest) != spec.bundle_digest:
            raise IntegrityError(f"The bundle {spec.bundle_digest} arrived as {found}.", bundle=spec.bundle_digest)
        partial.rename(bundle)
        return bundle


def _running(current: Served, former: Served | None) -> RunningEndpoint:
    return RunningEndpoint(
        spec=current.spec,
        url=current.url,
        process_id=current.process.pid,
        former_url=None if former is None else former.url,
        identity=current.identity,
        former_identity=None if former is None else former.identity,
    )


def _failure(spec: EndpointSpec, tail: str) -> EndpointUnavailable:
    # An error goes into the record, which may lie outside the jurisdiction of what a log quotes.
    ending = f"Its log ends:\n{tail}" if spec.residency == UNRESTRICTED else "Its log stays in the region."
    return EndpointUnavailable(
        f"The endpoint of {spec.deployment!r} in {spec.region} did not start. {ending}",
        hint="Mend what the log names; the deployment is tried again by itself.",
    )


def _environment(home: Path, spec: EndpointSpec) -> dict[str, str]:
    # The endpoint runs code of an artifact: it gets none of our settings and secrets.
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    # Where traces go; what opens the door there (OTEL_..._HEADERS) is a secret.
    environment |= {
        name: said for name, said in os.environ.items() if name.startswith("OTEL_") and not name.endswith("_HEADERS")
    }
    environment |= dict(spec.workload.variables) | {
        "BENTOML_HOME": str(home / "home"),
        "BENTOML_DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
        "FAIRLEAD_REGION": spec.region,
        "FAIRLEAD_DEPLOYMENT": spec.deployment,
        "FAIRLEAD_BUNDLE_DIGEST": spec.bundle_digest,
        "FAIRLEAD_ENDPOINT": identity_of(spec),
    }
    if spec.online_store is not None:
        environment["FAIRLEAD_ONLINE_STORE"] = spec.online_store
    (home / "home").mkdir(parents=True, exist_ok=True)
    return environment


def _wait_until_ready(served: Served, is_wanted: Callable[[], bool], seconds: float) -> str:
    """`ready`, `waiting` when the time is up, `failed`, or `unwanted`."""
    deadline = time.monotonic() + seconds
    polls: Counter[ProcessRecord] = Counter()
    while served.process.is_alive:
        # The port is open before anyone answers at it, so a question waits.
        if _ask(served.port, timeout_seconds=0.5) is not None:
            # Somebody else may have been given the port, and then answers for another model.
            return "ready" if listens(served.process, served.port) else "failed"
        # BentoML starts a worker that ended with an error again, and would do so for ever. Helpers are seen once.
        living = descendants(served.process)
        polls.update(living)
        if any(count >= _WORKER_POLLS and record not in living for record, count in polls.items()):
            return "failed"
        if not is_wanted():
            return "unwanted"
        if time.monotonic() > deadline:
            return "waiting"
        time.sleep(0.1)
    return "failed"


def _end_strays(home: Path, known: Iterable[Served]) -> None:
    """End what a server started here and was killed before it could write down."""
    processes = {record for served in known for record in served.with_children().records}
    for module in ("bentoml", "_bentoml_impl.worker.service"):
        terminate(each for each in find_processes(module, f"{home}/") if each not in processes)


def _drain(leaving: Iterable[Served]) -> None:
    """End processes that get no new requests, once those that were on their way to them have arrived."""
    leaving = list(leaving)
    if any(old.process.is_alive for old in leaving):
        time.sleep(_ARRIVAL_SECONDS)
    for old in leaving:
        # It finishes what it has begun by itself.
        terminate(old.with_children().records)


def _ask(port: int, *, timeout_seconds: float = 2.0) -> str | None:
    """What the endpoint at a port says of itself ("": nothing), if it is ready; None where it is not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=timeout_seconds) as answer:
            return str(answer.headers.get(IDENTITY_HEADER) or "") if answer.status == 200 else None
    except (OSError, urllib.error.URLError):
        return None


@contextlib.contextmanager
def _locked(home: Path) -> Generator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _remove_bundles(home: Path, *, keep: set[Digest]) -> None:
    kept = {"home", *(digest_hex(digest) for digest in keep)}
    for folder in home.iterdir():
        if folder.is_dir() and folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _open(_: TargetParts) -> LocalTarget:
    raise InvalidInput("There is one target for processes of this machine, named local.", hint="Use --target local.")


DELIVERIES = {"process": Delivery(name="process", settings=LocalSettings, open=_open)}
