"""Find the embedded server of a home folder, or start it.

The server itself is `fairlead.app.embedded`; here is only what a client needs: where the files are that tell of it,
whether it answers, and how to start the process. Whoever loses a race to start it uses the winner's.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fairlead.core.errors import (
    ExitCode,
    FairleadError,
    InvalidInput,
    MissingExtra,
    PermissionDenied,
    ServerUnavailable,
    StorageFull,
)
from fairlead.core.loopback import is_loopback

if TYPE_CHECKING:
    from pathlib import Path

START_TIMEOUT_SECONDS = 60.0
HEALTH_TIMEOUT_SECONDS = 5.0
_HEALTH_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The folder that one embedded server owns, and the files in it."""

    path: Path

    @property
    def lock(self) -> Path:
        """Held (flock) by the running server."""
        return self.path / "server.lock"

    @property
    def address(self) -> Path:
        """JSON `{url, pid, instance}`, written when the server answers, removed when it leaves."""
        return self.path / "server.json"

    @property
    def token(self) -> Path:
        """The owner's API token, readable by the owner alone."""
        return self.path / "token"

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.path / "server.log"

    @property
    def cache(self) -> Path:
        """Verified downloads, by digest."""
        return self.path / "cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedServer:
    """A running embedded server as a client sees it."""

    url: str
    token: str
    pid: int


def find_or_start(home: Home) -> EmbeddedServer:
    """The address and token of the home's server, started if it is not running.

    Raises:
        ServerUnavailable: if it does not come up; the detail ends with the last line of its log.
        MissingExtra: if the server's packages are not installed.
        PermissionDenied, StorageFull, InvalidInput: if the home cannot be used.
    """
    server = find(home)
    if server is not None:
        return server
    try:
        home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        process = _start(home)
    except OSError as error:
        raise _home_failure(home, error) from error
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if (server := find(home)) is not None:
            return server
        if process.poll() is not None:
            if process.returncode != ExitCode.CONFLICT:
                break
            # Another server owned the home. It answers soon, or it was about to leave: then it is our turn.
            if not is_owned(home):
                process = _start(home)
        time.sleep(0.05)
    raise _start_failure(home)


def find(home: Home) -> EmbeddedServer | None:
    """The home's server, if one is running and answers."""
    from http.client import HTTPConnection, HTTPException

    try:
        address = json.loads(home.address.read_text(encoding="utf-8"))
        token = home.token.read_text(encoding="utf-8").strip()
        url, instance, pid = str(address["url"]), str(address["instance"]), int(address["pid"])
        # The owner's token goes to nobody but this machine.
        if not is_loopback(url):
            return None
        connection = HTTPConnection(urlsplit(url).netloc, timeout=HEALTH_TIMEOUT_SECONDS)
        with closing(connection):
            connection.request("GET", "/healthz")
            answer = json.loads(connection.getresponse().read(_HEALTH_BYTES))
        # The port may have passed to another program, or to the server of another home.
        if answer["instance"] != instance:
            return None
    except (OSError, ValueError, LookupError, TypeError, HTTPException):
        return None
    return EmbeddedServer(url=url, token=token, pid=pid)


def is_owned(home: Home) -> bool:
    """Whether a living server holds the home's lock."""
    import fcntl

    try:
        with home.lock.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _start(home: Home) -> subprocess.Popen[bytes]:
    with home.log.open("ab") as log:
        home.log.chmod(0o600)
        # A session of its own: it goes on replicating after the command that started it returned. It stands in its
        # home, so that it keeps no other folder busy and imports nothing that lies in the caller's.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fairlead.app.embedded", "--home", str(home.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=home.path,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    # Reaped when it leaves, should this process live longer.
    threading.Thread(target=process.wait, name="embedded-server-exit", daemon=True).start()
    return process


def _home_failure(home: Home, error: OSError) -> FairleadError:
    hint = "Set FAIRLEAD_HOME to a folder of yours."
    if isinstance(error, PermissionError):
        return PermissionDenied(f"The folder {home.path} cannot be written.", hint=hint)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull(f"There is no space left for {home.path}.", hint="Free some, or set FAIRLEAD_HOME.")
    return InvalidInput(f"{home.path} cannot be the home: {error.strerror}.", hint=hint)


def _start_failure(home: Home) -> FairleadError:
    try:
        lines = [line for line in home.log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    last = lines[-1].strip() if lines else "it printed nothing"
    if "ModuleNotFoundError" in last:
        return MissingExtra(
            f"The embedded server needs a package that is not installed ({last.rpartition(' ')[2]}).",
            hint="Run: pip install 'fairlead[all]'. Or set FAIRLEAD_URL to use a server elsewhere.",
        )
    return ServerUnavailable(
        f"The embedded server of {home.path} did not start: {last}", hint=f"Its log is {home.log}."
    )
