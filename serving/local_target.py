"""The local deploy target: one `bentoml serve` process on loopback for each deployment and region.

    {folder}/{workspace}/{deployment}/{region}/
        state.json            the process that serves, and those that must end
        lock                  held while something is changed
        {digest}/             the bundle, checked against its digest before every start
        home/  serve.log      of the processes

Processes have sessions of their own, so they live on when the server that started them dies, and a new server finds
them again by their state file. The bundle comes from a replica in the endpoint's own region.
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
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from fairlead.catalog import UNRESTRICTED
from fairlead.core.errors import IntegrityError, InvalidInput, InvalidManifest, Unavailable
from fairlead.core.ids import Digest, digest_hex
from fairlead.serving.processes import (
    ProcessRecord,
    descendants,
    find_processes,
    free_port,
    launch_detached,
    listens,
    log_tail,
    read_json,
    terminate,
    write_atomically,
)
from fairlead.serving.targets import EndpointSpec, NoLongerWanted, RunningEndpoint
from fairlead.sync.store.manifest import build_manifest

START_SECONDS = 90.0
_WORKER_POLLS = 2
_ARRIVAL_SECONDS = 0.5
_STATE_FORMAT = 1
_log = logging.getLogger(__name__)

Download = Callable[[EndpointSpec, Path], None]
"""Write the files of `spec.bundle_digest` below a folder, from a replica in `spec.region`, every byte verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """A process with what it serves. `children` are known so that none is left when the parent is killed."""

    spec: EndpointSpec
    port: int
    process: ProcessRecord
    children: tuple[ProcessRecord, ...] = ()

    @property
    def running(self) -> RunningEndpoint:
        return RunningEndpoint(spec=self.spec, url=f"http://127.0.0.1:{self.port}", process_id=self.process.pid)

    @property
    def records(self) -> tuple[ProcessRecord, ...]:
        return (self.process, *self.children)

    def to_json(self) -> dict[str, Any]:
        return {
            "spec": asdict(self.spec),
            "port": self.port,
            "process": self.process.to_json(),
            "children": [child.to_json() for child in self.children],
        }

    @staticmethod
    def from_json(value: Any) -> _Served:
        return _Served(
            spec=EndpointSpec(**value["spec"]),
            port=int(value["port"]),
            process=ProcessRecord.from_json(value["process"]),
            children=tuple(ProcessRecord.from_json(child) for child in value["children"]),
        )


class LocalTarget:
    """Runs endpoints as processes of this machine. Implements `DeployTarget`."""

    def __init__(self, folder: Path, download: Download, *, python: str = sys.executable) -> None:
        self._folder = folder
        self._download = download
        self._python = python

    def ensure(
        self,
        spec: EndpointSpec,
        switch: Callable[[RunningEndpoint], None],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> RunningEndpoint:
        """See `DeployTarget.ensure`.

        Raises:
            NoLongerWanted: once `is_wanted` says no.
            Unavailable: if the process does not get ready; its detail ends with the process's log.
            ReplicaUnavailable, IntegrityError: if the region's replica of the bundle cannot be read.
        """
        home = self._home(spec.workspace_id, spec.deployment, spec.region)
        with _locked(home):
            current, leftover = _read_state(home)
            if current is None or current.spec != spec or not current.process.is_alive or not _is_ready(current.port):
                served = self._start(home, spec, current, leftover, is_wanted)
                leftover = [*leftover, *([] if current is None else [current])]
                current = served
            switch(current.running)
            _write_state(home, current, leftover)
            _drain(leftover)
            _write_state(home, _with_children(current), [])
            _remove_bundles(home, keep={spec.bundle_digest, *(old.spec.bundle_digest for old in leftover[-1:])})
            return current.running

    @property
    def is_used(self) -> bool:
        """Whether any deployment runs here, or is being started or stopped."""
        return any(self._folder.glob("*/*"))

    def observe(self, workspace_id: str, deployment: str, region: str) -> RunningEndpoint | None:
        """See `DeployTarget.observe`."""
        current, _ = _read_state(self._home(workspace_id, deployment, region))
        return current.running if current is not None and current.process.is_alive else None

    def stop(self, workspace_id: str, deployment: str, region: str) -> None:
        """See `DeployTarget.stop`; the region's folder goes too."""
        home = self._home(workspace_id, deployment, region)
        if not home.exists():
            return
        with _locked(home):
            current, others = _read_state(home)
            _drain([*others, *([] if current is None else [current])])
            _write_state(home, None, [])
        shutil.rmtree(home, ignore_errors=True)
        with contextlib.suppress(OSError):
            home.parent.rmdir()

    def _home(self, workspace_id: str, deployment: str, region: str) -> Path:
        # A colon would split the path wherever a list of paths is written in one string.
        return self._folder / workspace_id / deployment / region.replace(":", "-")

    def _start(
        self,
        home: Path,
        spec: EndpointSpec,
        current: _Served | None,
        others: list[_Served],
        is_wanted: Callable[[], bool],
    ) -> _Served:
        bundle = self._fetch(home, spec)
        _end_strays(home, [*others, *([] if current is None else [current])])
        log, tail = home / "serve.log", ""
        # Another process may take the free port first.
        for _ in range(2):
            port = free_port()
            written = log.stat().st_size if log.exists() else 0
            pid = launch_detached(
                [self._python, "-m", "bentoml", "serve", bundle, "--host", "127.0.0.1", "--port", str(port)],
                folder=home,
                environment=_environment(home, spec),
                log=log,
            )
            record = ProcessRecord.of(pid)
            if record is not None:
                served = _Served(spec=spec, port=port, process=record)
                # Written before anything else can go wrong, so that the process is never forgotten.
                _write_state(home, current, [*others, served])
                is_ready = False
                try:
                    if is_ready := _wait_until_ready(served, is_wanted):
                        return _with_children(served)
                finally:
                    if not is_ready:
                        terminate(_with_children(served).records)
            tail = log_tail(log, start=written)
            if "address already in use" not in tail.lower() and not _is_ready(port):
                break
        # An error goes into the record, which may lie outside the jurisdiction of what a log quotes.
        ending = f"Its log ends:\n{tail}" if spec.residency == UNRESTRICTED else "Its log stays in the region."
        raise Unavailable(
            f"The endpoint of {spec.deployment!r} in {spec.region} did not start. {ending}",
            hint="Mend what the log names; the deployment is tried again by itself.",
        )

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


def _environment(home: Path, spec: EndpointSpec) -> dict[str, str]:
    # The endpoint runs code of an artifact: it gets none of our settings and secrets.
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "FAIRLEAD_ALLOW_PICKLE")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        "BENTOML_HOME": str(home / "home"),
        "BENTOML_DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
        "FAIRLEAD_REGION": spec.region,
        "FAIRLEAD_DEPLOYMENT": spec.deployment,
        "FAIRLEAD_BUNDLE_DIGEST": spec.bundle_digest,
    }
    if spec.online_store is not None:
        environment["FAIRLEAD_ONLINE_STORE"] = spec.online_store
    (home / "home").mkdir(parents=True, exist_ok=True)
    return environment


def _wait_until_ready(served: _Served, is_wanted: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    polls: Counter[ProcessRecord] = Counter()
    while time.monotonic() < deadline and served.process.is_alive:
        # The port is open before anyone answers at it, so a question waits.
        if _is_ready(served.port, timeout_seconds=0.5):
            # Somebody else may have been given the port, and then answers for another model.
            return listens(served.process, served.port)
        # BentoML starts a worker that ended with an error again, and would do so for ever. Helpers are seen once.
        living = descendants(served.process)
        polls.update(living)
        if any(count >= _WORKER_POLLS and record not in living for record, count in polls.items()):
            return False
        if not is_wanted():
            raise NoLongerWanted
        time.sleep(0.1)
    return False


def _end_strays(home: Path, known: list[_Served]) -> None:
    """End what a server started here and was killed before it could write down."""
    processes = {record for served in known for record in _with_children(served).records}
    for module in ("bentoml", "_bentoml_impl.worker.service"):
        terminate(each for each in find_processes(module, f"{home}/") if each not in processes)


def _drain(leftover: list[_Served]) -> None:
    """End processes that get no new requests, once those that were on their way to them have arrived."""
    if any(old.process.is_alive for old in leftover):
        time.sleep(_ARRIVAL_SECONDS)
    for old in leftover:
        # It finishes what it has begun by itself.
        terminate(_with_children(old).records)


def _is_ready(port: int, *, timeout_seconds: float = 2.0) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=timeout_seconds) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def _with_children(served: _Served) -> _Served:
    found = descendants(served.process)
    if not found:
        return served
    return _Served(spec=served.spec, port=served.port, process=served.process, children=found)


@contextlib.contextmanager
def _locked(home: Path) -> Generator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read_state(home: Path) -> tuple[_Served | None, list[_Served]]:
    state = read_json(home / "state.json")
    if state is None or state.get("format") != _STATE_FORMAT:
        return None, []
    current = state["current"]
    others = cast("list[Any]", state["others"])
    return None if current is None else _Served.from_json(current), [_Served.from_json(other) for other in others]


def _write_state(home: Path, current: _Served | None, others: list[_Served]) -> None:
    write_atomically(
        home / "state.json",
        {
            "format": _STATE_FORMAT,
            "current": None if current is None else current.to_json(),
            "others": [other.to_json() for other in others],
        },
    )


def _remove_bundles(home: Path, *, keep: set[Digest]) -> None:
    kept = {"home", *(digest_hex(digest) for digest in keep)}
    for folder in home.iterdir():
        if folder.is_dir() and folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)
