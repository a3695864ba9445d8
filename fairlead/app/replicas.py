"""Further processes that serve the same API on the same port: `fairlead server --processes N`.

One Python process serves as many requests as one core can. Each replica is a whole API of its own on the same
PostgreSQL: it keeps nothing between requests that another would have to know, so it makes no difference which of them
answers. The kernel spreads connections among them. The worker and the sealer stay in the first process.

A replica leaves when the process that started it does, however that happens, and is started again when it ends by
itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from typing import IO, Self, cast

from fairlead.app.http import Server, create_app, listen
from fairlead.app.service import Service
from fairlead.app.settings import ServerSettings
from fairlead.core.clock import SystemClock
from fairlead.core.errors import InvalidInput
from fairlead.core.ids import new_row_id
from fairlead.sync.store.memory import keep_freed_memory

AGAIN_SECONDS = 1.0
GRACE_SECONDS = 15.0
_READY = b"ready\n"
_log = logging.getLogger(__name__)


class Replicas:
    """The further processes of one server. A context: they are there while it lasts."""

    def __init__(self, count: int, *, host: str, port: int) -> None:
        self._arguments = [sys.executable, "-P", "-m", "fairlead.app.replicas", host, str(port)]
        self._stopping = threading.Event()
        self._ready = [threading.Event() for _ in range(count)]
        self._keepers = [threading.Thread(target=self._keep, args=(event,), daemon=True) for event in self._ready]

    def __enter__(self) -> Self:
        """Start them."""
        for keeper in self._keepers:
            keeper.start()
        return self

    def wait(self) -> None:
        """Wait until each answers, or did not start at its first try."""
        for event in self._ready:
            event.wait()

    def __exit__(self, *_: object) -> None:
        """End them, and wait until they have answered what they were asked."""
        self._stopping.set()
        for keeper in self._keepers:
            keeper.join()

    def _keep(self, ready: threading.Event) -> None:
        while not self._stopping.is_set():
            pipe = subprocess.PIPE
            with subprocess.Popen(self._arguments, stdin=pipe, stdout=pipe, start_new_session=True) as replica:
                threading.Thread(target=self._end, args=(replica,), daemon=True).start()
                said = cast("IO[bytes]", replica.stdout).readline()
                if said != _READY and not self._stopping.is_set():
                    _log.warning("an API process did not start and is tried again")
                ready.set()
                status = replica.wait()
            if not self._stopping.wait(AGAIN_SECONDS):
                _log.warning("an API process ended with status %d and is started again", status)

    def _end(self, replica: subprocess.Popen[bytes]) -> None:
        """Let go of a replica's input when all is to end, and end it where it does not heed that."""
        while replica.poll() is None and not self._stopping.wait(AGAIN_SECONDS):
            pass
        with contextlib.suppress(BrokenPipeError):
            cast("IO[bytes]", replica.stdin).close()
        try:
            replica.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            replica.kill()


def require_postgresql(settings: ServerSettings) -> None:
    """Refuse several processes on SQLite, whose writers take turns within one process.

    Raises:
        InvalidInput: saying which database they need.
    """
    database = settings.open_database()
    database.close()
    if database.is_sqlite:
        raise InvalidInput(
            "Several processes need a PostgreSQL database; this one is SQLite.",
            hint="Set FAIRLEAD_DATABASE_URL to postgresql+psycopg://USER@HOST/NAME, or leave --processes out.",
        )


def main() -> None:
    """Serve as one replica until standard input ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    keep_freed_memory()
    host, port = sys.argv[1:]
    threading.Thread(target=_leave_with_starter, daemon=True).start()
    service = Service.build(ServerSettings.read(), SystemClock(), is_embedded=False)
    # The first process has the worker; each follows what the others change of the catalog.
    service.catalog.start(has_worker=False)

    def tell() -> None:
        sys.stdout.buffer.write(_READY)
        sys.stdout.flush()

    try:
        server = Server(create_app(service, instance=new_row_id()))
        # Not earlier: the port's new connections come to whoever listens, and would wait until this process is made.
        server.run_on(listen(host, int(port), is_shared=True), on_ready=tell)
    finally:
        service.close()


def _leave_with_starter() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
