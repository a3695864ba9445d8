"""`fairlead server`: the registry's REST API, with or without a worker inside."""

from __future__ import annotations

import logging
import socket
import sys

from fairlead.app.http import Server, create_app, listen
from fairlead.app.replicas import Replicas, require_postgresql
from fairlead.app.service import Service
from fairlead.app.settings import ServerSettings
from fairlead.core.clock import SystemClock
from fairlead.core.errors import Conflict
from fairlead.core.ids import new_row_id
from fairlead.sync.store.memory import keep_freed_memory


def serve(*, host: str, port: int, has_worker: bool, processes: int = 1) -> None:
    """Serve until SIGTERM or SIGINT, with several processes where PostgreSQL keeps the record.

    Raises:
        Conflict: if the port is taken.
        InvalidInput: if several processes are to share a SQLite database.
        DatabaseRevisionMismatch: if the database wants `fairlead db upgrade`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    keep_freed_memory()
    settings = ServerSettings.read()
    if processes > 1:
        require_postgresql(settings)
    try:
        listener = listen(host, port)
        if processes > 1:
            # That nobody else has the port is known now, so it may be shared.
            taken = listener.getsockname()[1]
            listener.close()
            listener = listen(host, taken, is_shared=True)
    except OSError as error:
        raise Conflict(
            f"Nothing can listen on {host}:{port}: {error.strerror}.", hint="Choose another with --port."
        ) from error
    # The others start while this one does.
    with Replicas(processes - 1, host=host, port=listener.getsockname()[1]) as replicas:
        _serve(listener, settings, replicas, has_worker=has_worker)


def _serve(listener: socket.socket, settings: ServerSettings, replicas: Replicas, *, has_worker: bool) -> None:
    service = Service.build(settings, SystemClock(), is_embedded=False)
    try:
        secret = service.issue_first_token()
        if secret is not None:
            sys.stdout.write(f"The owner's token, shown this once: {secret}\n")
        app = create_app(service, instance=new_row_id())
        service.start(has_worker=has_worker)
        address, bound_port = listener.getsockname()[:2]
        url = f"http://{f'[{address}]' if ':' in address else address}:{bound_port}"

        def tell() -> None:
            sys.stdout.write(f"Fairlead answers at {url}; its documentation is at {url}/docs\n")
            sys.stdout.flush()

        replicas.wait()
        Server(app).run_on(listener, on_ready=tell)
    finally:
        service.close()
