"""A receiver of webhooks on loopback that answers as it is told, and keeps what it was sent."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Reply = Callable[[http.server.BaseHTTPRequestHandler], None]


def status(code: int, **headers: str) -> Reply:
    """Answer with a status and nothing else."""

    def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return reply


@dataclass(slots=True, kw_only=True)
class Receiver:
    """Takes everything with 204 unless `replies` holds something for the next requests, or `usual` for all."""

    port: int = 0
    received: list[Received] = field(default_factory=list[Received])
    replies: list[Reply] = field(default_factory=list[Reply])
    usual: Reply = field(default_factory=lambda: status(204))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def types(self) -> list[str]:
        """What it was told, in the order that it came."""
        return [each.json["type"] for each in self.received]


@contextlib.contextmanager
def webhook_receiver() -> Generator[Receiver]:
    """A receiver that listens while the block runs."""
    receiver = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received(path=self.path, headers=headers, body=body))
            (receiver.replies.pop(0) if receiver.replies else receiver.usual)(self)

        def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (silence)
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (a client that left)
            pass

    with Quiet(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        receiver.port = server.server_port
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield receiver
        server.shutdown()
