"""The HTTP application: every package's routes behind one front door, and the process that serves it."""

from __future__ import annotations

import gc
import signal
import socket
from typing import TYPE_CHECKING, Annotated, cast

import uvicorn
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.applications import Starlette

from fairlead import __version__
from fairlead.app.express import Express
from fairlead.app.guard import ActivityMiddleware, DryRunMiddleware, HostGuard
from fairlead.app.problem_handlers import install_problem_handlers
from fairlead.registry.access import install_access, undeclared_routes
from fairlead.registry.denials import Denials
from fairlead.registry.mlflow.api_artifacts import STREAMED_PREFIXES
from fairlead.registry.mlflow.dialect import MlflowDialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from fairlead.app.service import Service

API_PREFIX = "/api/v1"


class Health(BaseModel):
    """Whether the server lives, and which one it is."""

    status: Annotated[str, Field(description="`ok`, or `degraded` where the database does not answer.")]
    instance: Annotated[str, Field(description="Which start of which server this is.")]
    version: str


def create_app(service: Service, *, instance: str) -> FastAPI:
    """The application, with every route's permission declared; refuses to be made with one that has none."""
    app = FastAPI(
        title="Fairlead",
        version=__version__,
        description="Models and features, versioned once and true in every cloud they may go to.\n\n"
        "Any request may carry `Fairlead-Dry-Run: true`: it is checked and answered as if it were done, and nothing of "
        "it is kept. The answer then carries the same header.",
    )
    app.add_middleware(Express, fastapi=app, shortcuts=service.shortcuts(API_PREFIX))
    install_access(app, service.tokens.authenticate, Denials(service.database, service.clock).record)
    install_problem_handlers(app, max_body_bytes=service.settings.max_body_bytes, streamed=STREAMED_PREFIXES)
    for router in service.routers():
        app.include_router(router, prefix=API_PREFIX)
    for router in service.mlflow_routers():
        app.include_router(router)

    @app.get("/healthz", tags=["health"])
    def health() -> Health:
        """Whether the server and its database answer."""
        return Health(status="ok" if service.is_healthy() else "degraded", instance=instance, version=__version__)

    undeclared = undeclared_routes(app)
    if undeclared:
        msg = f"routes without a permission: {', '.join(undeclared)}"
        raise RuntimeError(msg)
    app.add_middleware(DryRunMiddleware)
    app.add_middleware(ActivityMiddleware, activity=service.activity)
    app.add_middleware(HostGuard, trusted_hosts=service.settings.trusted_hosts)
    app.add_middleware(MlflowDialect)
    app.state.end_streams = service.streams.close
    return app


def listen(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. A shared one leaves room for other processes on its port.

    Raises:
        OSError: if the address is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, because asyncio sets TCP_NODELAY only on sockets that say they are TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.listen(2048)
    return listener


THREADS = 12
"""Of routes that go FastAPI's way. With those of `express` they are no more than the connections that a database's pool
keeps: each more would open a connection for one request and close it again."""


class Server(uvicorn.Server):
    """uvicorn, telling when it answers; SIGTERM and SIGINT end it after running requests."""

    def __init__(self, app: Starlette, *, tls: tuple[str, str] | None = None) -> None:
        """`tls` are the files of a certificate and of its key."""
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=10,
                ssl_certfile=None if tls is None else tls[0],
                ssl_keyfile=None if tls is None else tls[1],
            )
        )
        self._on_ready: Callable[[], None] = lambda: None
        self._end_streams = cast("Callable[[], None]", getattr(app.state, "end_streams", lambda: None))

    def run_on(self, listener: socket.socket, *, on_ready: Callable[[], None]) -> None:
        """Serve until told to stop; `on_ready` is called once requests are answered.

        Returns after SIGTERM and SIGINT too. By itself uvicorn raises the signal once more when it has shut down, which
        would end the process before whoever called could finish its work and close its database.
        """
        self._on_ready = on_ready
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.run(sockets=[listener])
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        current_default_thread_limiter().total_tokens = THREADS
        await super().startup(sockets)
        if self.started:
            # What was made until now stays, so no collection of garbage need look through it again.
            gc.collect()
            gc.freeze()
            gc.enable()
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, which would go on for ever, and wait for the other requests."""
        self._end_streams()
        await super().shutdown(sockets)
