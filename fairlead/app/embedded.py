"""The embedded server: one process that owns a home folder, on loopback, with its worker inside.

It holds the home's lock for as long as it lives, so that one process owns the SQLite file. It writes its address when
it answers, and leaves when nobody has called for a while and no work is left. Killed at any moment, the next one goes
on from what was committed.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import json
import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.core.clock import SystemClock
from fairlead.core.errors import ExitCode, FairleadError, HomeInUse
from fairlead.core.ids import new_row_id
from fairlead.sdk.embedded import Home
from fairlead.sync.store.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Generator

    from fairlead.app.service import Service

EMBEDDED_REGIONS = ("aws:us-east-1", "gcp:europe-west4", "azure:westeurope")
"""Three local folders stand for these, so that replication and placement mean something on one machine."""

_IDLE_CHECK_SECONDS = 5.0


def main() -> int:
    """Serve a home until idle, interrupted or told to stop."""
    parser = argparse.ArgumentParser(prog="python -m fairlead.app.embedded", description=main.__doc__)
    parser.add_argument("--home", type=Path, required=True)
    home = Home(path=parser.parse_args().home.absolute())
    gc.disable()  # until the server answers: an eighth of its start would go into looking for garbage
    try:
        with _owned(home):
            _serve(home)
    except FairleadError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return ExitCode.OK


@contextmanager
def _owned(home: Home) -> Generator[None]:
    home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with home.lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeInUse(
                f"Another server owns {home.path}.", hint="Use that one, or another FAIRLEAD_HOME."
            ) from None
        # An address left by a server that was killed is nobody's now.
        home.address.unlink(missing_ok=True)
        try:
            yield
        finally:
            home.address.unlink(missing_ok=True)


def _serve(home: Home) -> None:
    from fairlead.app.http import Server, create_app, listen
    from fairlead.app.service import Service
    from fairlead.app.settings import ServerSettings

    keep_freed_memory()
    settings = ServerSettings.read(home=home.path)
    service = Service.build(settings, SystemClock(), is_embedded=True)
    try:
        service.take_over()
        _ensure_token(home, service)
        service.ensure_embedded_locations(EMBEDDED_REGIONS)
        instance = new_row_id()
        listener = listen("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = Server(create_app(service, instance=instance))
        service.start()
        threading.Thread(target=_leave_when_idle, args=(service,), daemon=True).start()
        server.run_on(listener, on_ready=lambda: _write_address(home, url, instance))
    finally:
        service.close()


def _ensure_token(home: Home, service: Service) -> None:
    if home.token.exists():
        return
    secret = service.issue_owner_token()
    # Complete or absent, and never readable by others, not even for a moment.
    draft = home.token.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(secret)
    draft.replace(home.token)


def _write_address(home: Home, url: str, instance: str) -> None:
    draft = home.address.with_suffix(".new")
    draft.write_text(json.dumps({"url": url, "pid": os.getpid(), "instance": instance}))
    draft.replace(home.address)


def _leave_when_idle(service: Service) -> None:
    limit = service.settings.idle_exit.total_seconds()
    pause = threading.Event()
    while not pause.wait(min(_IDLE_CHECK_SECONDS, limit)):
        if service.activity.idle_seconds > limit and service.is_drained():
            os.kill(os.getpid(), signal.SIGTERM)
            return


if __name__ == "__main__":
    sys.exit(main())
