"""Stop what a home started: its server, and the detached processes that outlive it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from typing import TYPE_CHECKING

from fairlead.core.errors import Conflict
from fairlead.core.ids import RegionId
from fairlead.sdk.embedded import is_owned
from fairlead.serving.gateway_process import GatewayProcess
from fairlead.serving.local_target import LocalTarget
from fairlead.serving.targets import EndpointKey

if TYPE_CHECKING:
    from fairlead.sdk.embedded import Home

_TERM_SECONDS = 15.0


def stop_server(home: Home) -> bool:
    """Stop the embedded server of a home, if it runs; what it was doing is finished or given back first.

    Raises:
        Conflict: if the home is owned by something that does not leave.
    """
    if not is_owned(home):
        return False
    # The lock is held, so the address file is that of a living server, and its pid has not passed to another process.
    pid = _pid(home)
    if pid is None:
        # It may have been leaving by itself.
        if not is_owned(home):
            return True
        raise _stays(home)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if _is_released(home, seconds=_TERM_SECONDS):
            return True
    raise _stays(home)


def stop_everything(home: Home) -> None:
    """Stop the server, every endpoint of the local deploy target, and the gateway."""
    stop_server(home)
    serving = home.path / "serving"
    target = LocalTarget(serving / "deployments", lambda _spec, _folder: None)
    for state in sorted((serving / "deployments").glob("*/*/*/state.json")):
        workspace, deployment, region = state.parent.parts[-3:]
        target.stop(EndpointKey(workspace, deployment, RegionId(region)))
    GatewayProcess(serving, serving / "routes.json").stop()


def _pid(home: Home) -> int | None:
    deadline = time.monotonic() + _TERM_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return int(json.loads(home.address.read_text())["pid"])
        if not is_owned(home):
            return None
        # It is starting, and says where it is in a moment.
        time.sleep(0.1)
    return None


def _is_released(home: Home, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not is_owned(home):
            return True
        time.sleep(0.05)
    return False


def _stays(home: Home) -> Conflict:
    return Conflict(f"The server of {home.path} does not leave.", hint=f"Its log is {home.log}.")
