"""What stands before every request: which hosts it may be addressed to, and how long nobody has called."""

from __future__ import annotations

import ipaddress
import json
import time
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fairlead.core.db import dry_run
from fairlead.core.errors import FairleadError, InvalidInput, PermissionDenied
from fairlead.core.problems import MEDIA_TYPE, to_problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRY_RUN_HEADER = b"fairlead-dry-run"


class HostGuard:
    """Refuses requests addressed to, or sent by a page of, a host that is not ours.

    A web page anywhere can make a browser call a port on this machine, by a name that it points here (DNS rebinding)
    or directly (cross-site requests); both show in `Host` and `Origin`. Addresses of this machine and the
    configured names pass.
    """

    def __init__(self, app: ASGIApp, trusted_hosts: Collection[str]) -> None:
        self._app = app
        self._trusted = frozenset(host.lower() for host in trusted_hosts) | {"localhost"}
        # A server is called by few names, over and over.
        self._is_ours = lru_cache(maxsize=256)(self._look_up)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        if scope["type"] == "http":
            headers = {
                name: value.decode("latin-1") for name, value in scope["headers"] if name in {b"host", b"origin"}
            }
            origin = headers.get(b"origin")
            if not self._is_ours("//" + headers.get(b"host", "")) or (origin is not None and not self._is_ours(origin)):
                error = PermissionDenied(
                    "The request is addressed to, or comes from, a host that this server does not serve.",
                    hint="Add the name to FAIRLEAD_TRUSTED_HOSTS.",
                )
                await _refuse(send, error)
                return
        await self._app(scope, receive, send)

    def _look_up(self, address: str) -> bool:
        try:
            host = (urlsplit(address).hostname or "").lower()
            return host in self._trusted or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


class Activity:
    """Counts running requests and remembers when the last one ended."""

    def __init__(self) -> None:
        self._running = 0
        self._last = time.monotonic()

    def begin(self) -> None:
        """A request came."""
        self._running += 1

    def end(self) -> None:
        """A request was answered."""
        self._running -= 1
        self._last = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """How long nobody has called; 0 while a request runs."""
        return 0.0 if self._running else time.monotonic() - self._last


class ActivityMiddleware:
    """Tells `Activity` of every request but health checks, so that watching a server does not keep it up."""

    def __init__(self, app: ASGIApp, activity: Activity) -> None:
        self._app = app
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request while it runs."""
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        self._activity.begin()
        try:
            await self._app(scope, receive, send)
        finally:
            self._activity.end()


class DryRunMiddleware:
    """Answers a request with `Fairlead-Dry-Run: true` as if it had been done, and keeps nothing of it.

    The same code runs to the end, with every check, and its transaction is rolled back. The answer carries the header
    again, so that a caller knows it was heeded. Whoever writes anything but `true` or `false` may mean either, and is
    refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request dry if it asks for that."""
        said = {value for name, value in scope.get("headers", ()) if name == DRY_RUN_HEADER}
        if scope["type"] != "http" or said <= {b"false"}:
            await self._app(scope, receive, send)
            return
        if said != {b"true"}:
            hint = "Send `true`, or leave the header out."
            await _refuse(send, InvalidInput("The header Fairlead-Dry-Run is neither `true` nor `false`.", hint=hint))
            return

        async def mark(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (DRY_RUN_HEADER, b"true")]
            await send(message)

        with dry_run():
            await self._app(scope, receive, mark)


async def _refuse(send: Send, error: FairleadError) -> None:
    body = json.dumps(to_problem(error)).encode()
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
