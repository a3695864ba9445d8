"""Starts the gateway as a process of its own, and finds it again: it outlives the server that started it."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from fairlead.core.errors import Unavailable
from fairlead.serving.measurements import Measurements, measurements_from_json
from fairlead.serving.processes import (
    ProcessRecord,
    free_port,
    launch_detached,
    log_tail,
    read_json,
    terminate,
    write_atomically,
)

_START_SECONDS = 20.0


class GatewayProcess:
    """The gateway of one folder. Its address stays the same when it is started again."""

    def __init__(self, folder: Path, routes: Path, *, port: int = 0, python: str = sys.executable) -> None:
        self._folder = folder
        self._routes = routes
        self._port = port
        self._python = python

    def ensure(self) -> str:
        """The gateway's address; started unless it runs. May be called by several processes at once.

        Raises:
            Unavailable: if it does not start; its detail ends with the process's log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "gateway.lock").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            state = read_json(self._state)
            port = self._port or (0 if state is None else int(state["port"])) or free_port()
            if state is not None:
                record = ProcessRecord.from_json(state["process"])
                if record.is_alive and _answers(int(state["port"])):
                    write_atomically(self._state, state | {"is_ready": True})
                    return _address(int(state["port"]))
                terminate([record])
            # The port may be somebody else's by now.
            for attempt in (port, self._port or free_port()):
                if self._start(attempt):
                    return _address(attempt)
        raise Unavailable(
            f"The gateway did not start. Its log ends:\n{log_tail(self._log)}",
            hint="Free its port or choose another one.",
        )

    @property
    def address(self) -> str | None:
        """Where the gateway answers, or None where it does not. Cheap."""
        state = read_json(self._state)
        if state is None or not state["is_ready"] or not ProcessRecord.from_json(state["process"]).is_alive:
            return None
        return _address(int(state["port"]))

    def measure(self) -> Measurements | None:
        """What the gateway has counted, or None where it cannot be asked."""
        address = self.address
        if address is None:
            return None
        try:
            with urllib.request.urlopen(f"{address}/-/measurements", timeout=2) as answer:  # noqa: S310  (our own address)
                return measurements_from_json(json.load(answer)["items"])
        except (OSError, urllib.error.URLError, ValueError, KeyError):
            return None

    def stop(self) -> None:
        """End the gateway, if it runs."""
        state = read_json(self._state)
        if state is not None:
            terminate([ProcessRecord.from_json(state["process"])])

    @property
    def _state(self) -> Path:
        return self._folder / "gateway.json"

    @property
    def _log(self) -> Path:
        return self._folder / "gateway.log"

    def _start(self, port: int) -> bool:
        command = [self._python, "-m", "fairlead.serving.gateway", "--state", self._routes, "--port", str(port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FAIRLEAD_")}
        pid = launch_detached(command, folder=self._folder, environment=environment, log=self._log)
        record = ProcessRecord.of(pid)
        if record is None:
            return False
        # Noted at once, so that it is found again if we die; its address is given out once it answers.
        state: dict[str, Any] = {"port": port, "process": record.to_json(), "is_ready": False}
        write_atomically(self._state, state)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and record.is_alive:
            if _answers(port):
                write_atomically(self._state, state | {"is_ready": True})
                return True
            time.sleep(0.05)
        terminate([record])
        return False


def _address(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False
