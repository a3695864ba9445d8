"""A whole server on loopback, on either kind of database, for tests that speak to it as its users do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from fairlead.app.http import Server, create_app, listen
from fairlead.app.service import Service
from fairlead.app.settings import ServerSettings
from fairlead.core.clock import SystemClock
from fairlead.registry.identity import Caller
from fairlead.sdk.client import Fairlead
from fairlead.sdk.settings import ClientSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server, its service, and its owner's token."""

    url: str
    token: str
    service: Service
    folder: Path

    @property
    def owner(self) -> Caller:
        """The owner, as use cases know them."""
        return self.service.tokens.authenticate(self.token)

    def connect(self, token: str | None = None) -> Fairlead:
        """A client of the server: the owner's, unless another token is given."""
        return Fairlead.connect(ClientSettings(url=self.url, home=self.folder / "client", token=token or self.token))


@contextlib.contextmanager
def running_server(
    folder: Path, database_url: str, *, has_worker: bool = False, **settings: Any
) -> Generator[RunningServer]:
    """Serve while the block runs; the sealer runs too, and the worker if wanted."""
    service = Service.build(
        ServerSettings(home=folder / "home", database_url=SecretStr(database_url), **settings),
        SystemClock(),
        is_embedded=True,
    )
    listener = listen("127.0.0.1", 0)
    process = Server(create_app(service, instance="one"))
    thread = threading.Thread(target=process.run, kwargs={"sockets": [listener]})
    thread.start()
    service.start(has_worker=has_worker)
    try:
        yield RunningServer(
            url=f"http://127.0.0.1:{listener.getsockname()[1]}",
            token=service.issue_owner_token(),
            service=service,
            folder=folder,
        )
    finally:
        process.should_exit = True
        thread.join()
        service.close()
