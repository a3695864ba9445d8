"""Processes that outlive whoever started them: how they are recorded, recognised again and ended.

A process id alone proves nothing, since ids are used again. A record holds the id together with the moment the process
began, and both must match before anything is believed of it or done to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil

_TERM_SECONDS = 10.0
_TAIL_LINES = 20
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/\"':]+/)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """One process: its id, and when it began.

    That is in seconds since the machine started where the system says so (Linux), which no change of the clock moves,
    and since the epoch elsewhere.
    """

    pid: int
    began_at: float

    @staticmethod
    def of(pid: int) -> ProcessRecord | None:
        """The record of a process that runs now; None where there is none or it is a zombie."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return ProcessRecord(pid=pid, began_at=_began_at(process))
        except (psutil.Error, OSError):
            return None

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        now = ProcessRecord.of(self.pid)
        # The system reports hundredths of a second; a stored number may be rounded.
        return now is not None and abs(now.began_at - self.began_at) < 0.05

    def to_json(self) -> dict[str, float]:
        """The record as JSON."""
        return {"pid": self.pid, "began_at": self.began_at}

    @staticmethod
    def from_json(value: Any) -> ProcessRecord:
        """Read what `to_json` gave."""
        return ProcessRecord(pid=int(value["pid"]), began_at=float(value["began_at"]))


def _began_at(process: psutil.Process) -> float:
    try:
        status = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return process.create_time()
    # Field 22, in clock ticks; the second field is a name in brackets that may hold anything.
    return int(status.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def descendants(record: ProcessRecord) -> tuple[ProcessRecord, ...]:
    """Every process below one that runs; none where it does not."""
    if not record.is_alive:
        return ()
    try:
        children = psutil.Process(record.pid).children(recursive=True)
    except psutil.Error:
        return ()
    return tuple(found for child in children if (found := ProcessRecord.of(child.pid)) is not None)


def listens(record: ProcessRecord, port: int) -> bool:
    """Whether a process, or one below it, is the one that is listening on a port of loopback."""
    for each in (record, *descendants(record)):
        with contextlib.suppress(psutil.Error):
            connections = psutil.Process(each.pid).net_connections(kind="tcp")
            if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections):
                return True
    return False


def find_processes(module: str, argument: str) -> tuple[ProcessRecord, ...]:
    """Every process of this user that runs a Python module with an argument that begins so, first come first."""
    found: list[ProcessRecord] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            is_right = command[1:3] == ["-m", module] and any(each.startswith(argument) for each in command[3:])
            if is_right and process.uids().real == os.getuid() and (record := ProcessRecord.of(process.pid)):
                found.append(record)
    return tuple(found)


def launch_detached(command: Sequence[str | Path], *, folder: Path, environment: Mapping[str, str], log: Path) -> int:
    """Start a process that nothing of ours is the parent of, in a session of its own; its output is added to `log`.

    Returns its process id.
    """
    # The shell is gone when this returns, so the system adopts the process: no zombie is left, whoever ends first.
    script = 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!'
    result = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(log), *map(str, command)],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=True,
        text=True,
    )
    return int(result.stdout)


def terminate(records: Iterable[ProcessRecord], *, seconds: float = _TERM_SECONDS) -> None:
    """Ask processes to end, the first one first, and kill what still runs after `seconds`. Ended ones are no error."""
    living = [record for record in records if record.is_alive]
    known = [*living, *(child for record in living for child in descendants(record))]
    for record in living:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while any(record.is_alive for record in known) and time.monotonic() < deadline:
        time.sleep(0.05)
    for record in known:
        if record.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGKILL)


def free_port() -> int:
    """A loopback port that nobody uses now; somebody else may take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_atomically(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, whatever happens; only the owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(value, stream, sort_keys=True, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_atomically` wrote, or None where there is no readable file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def log_tail(log: Path, *, start: int = 0) -> str:
    """The last lines of a log, from the byte `start` on, for an error message: without the folders of this machine."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(start, log.stat().st_size - 16_384))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return "(no log)"
    return without_folders("\n".join(lines[-_TAIL_LINES:])) or "(nothing was written)"


def without_folders(text: str) -> str:
    """A text in which absolute paths keep only the names of their files: where they lie is nobody's business."""
    return _FOLDERS.sub("", text)
