"""Tiny endpoints for the gateway's tests: they answer as a bundle does, and can be told to fail."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeEndpoint:
    """One HTTP server on loopback.

    `status` is what `predict` answers, with `headers` and `padding` more bytes; `delay` comes before it, in seconds.
    The next `drops` requests are read, and then their connection is closed without an answer.
    """

    def __init__(self, region: str, port: int = 0) -> None:
        self.region = region
        self.status = 200
        self.delay = 0.0
        self.drops = 0
        self.headers: dict[str, str] = {}
        self.padding = 0
        self.requests: list[tuple[str, Any, dict[str, str]]] = []
        self._connections: list[socket.socket] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                endpoint._connections.append(self.connection)

            def do_GET(self) -> None:
                self._answer(200, {"ready": True}, endpoint.headers)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                endpoint.requests.append((self.path, json.loads(body or b"null"), dict(self.headers)))
                time.sleep(endpoint.delay)
                if endpoint.drops > 0:
                    endpoint.drops -= 1
                    self.close_connection = True
                    return
                answer = {"region": endpoint.region, "predictions": [0.5], "padding": "x" * endpoint.padding}
                self._answer(endpoint.status, answer, endpoint.headers)

            def _answer(self, status: int, value: Any, headers: dict[str, str]) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                for name, text in headers.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's signature)
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        # As when a process dies: what was connected is so no more.
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()


@contextmanager
def endpoints(*regions: str) -> Generator[list[FakeEndpoint]]:
    """One endpoint a region while the block runs; ones that were stopped inside it stay stopped."""
    running = [FakeEndpoint(region) for region in regions]
    try:
        yield running
    finally:
        for endpoint in running:
            endpoint.stop()
