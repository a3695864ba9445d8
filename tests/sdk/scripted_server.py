"""A real HTTP server on loopback that answers from a script and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to answer; `status` 0 hangs up without a word."""

    status: int = 200
    body: Any = field(default_factory=dict[str, Any])
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True, kw_only=True)
class ScriptedServer:
    """Answers in turn; the last answer is given for ever."""

    url: str
    answers: list[Answer]
    asked: list[Asked] = field(default_factory=list[Asked])


@contextlib.contextmanager
def scripted_server(answers: Sequence[Answer]) -> Generator[ScriptedServer]:
    """Serve a script until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            script.asked.append(
                Asked(method=self.command, path=self.path, headers=headers, body=self.rfile.read(length))
            )
            answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            self.close_connection = True
            if answer.status == 0:
                return
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"content-type": answer.content_type, "connection": "close", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815  (http.server's names)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (its base's word)
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script = ScriptedServer(url=f"http://127.0.0.1:{server.server_address[1]}", answers=list(answers))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()
