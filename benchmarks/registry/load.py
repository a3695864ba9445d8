"""A load generator: clients that each send the next request when the last one was answered, for a bounded time.

    python -m benchmarks.registry.load < PLAN > FIGURES

It is a process of its own, so that its processor time is nobody else's. Plan and figures are JSON. Every connection is
kept alive and sends whole requests that were made beforehand; in them `{client}` is the client's number and `{count}`
how many requests it has sent before, plus one.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: `{client}` and `{count}` stand in its path, headers and body for what differs."""

    method: str
    path: str
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def to_bytes(self, port: int, client: int, count: int) -> bytes:
        """The request on the wire."""

        def fill(text: str) -> str:
            return text.replace("{client}", str(client)).replace("{count}", str(count))

        body = fill(self.body).encode()
        lines = [f"{self.method} {fill(self.path)} HTTP/1.1", f"Host: {HOST}:{port}"]
        lines += [f"{name}: {fill(value)}" for name, value in self.headers]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send, to whom, and for how long. Each client sends the requests in an order of its own."""

    port: int
    requests: tuple[Request, ...]
    clients: int
    seconds: float
    # Where clients change what others read, each keeps to the one request that is its own.
    is_own: bool = False


@dataclass(slots=True, kw_only=True)
class Figures:
    """What came of it: seconds each answer took, and what was answered that is no 2xx."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list[float])
    refused: int = 0
    first_refusal: str = ""

    def add(self, more: Figures) -> None:
        """Count what came of asking once more."""
        self.seconds += more.seconds
        self.latencies += more.latencies
        self.refused += more.refused
        self.first_refusal = self.first_refusal or more.first_refusal


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, plan: Plan, number: int, figures: Figures, until: float) -> None:
        self._plan, self._number, self._figures, self._until = plan, number, figures, until
        self._dice = random.Random(number)
        self._buffer = b""
        self._count = 0
        self._sent = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        place = head.find(b"content-length:")
        if place < 0:
            raise RuntimeError(f"an answer without a length: {head[:300]!r}")
        length = int(head[place + 15 :].split(b"\r", 1)[0])
        if len(self._buffer) < head_end + 4 + length:
            return
        now = time.perf_counter()
        self._figures.latencies.append(now - self._sent)
        if head[9:10] != b"2":
            self._figures.refused += 1
            self._figures.first_refusal = self._figures.first_refusal or self._buffer[:600].decode(errors="replace")
        self._buffer = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionError("the server hung up"))

    def _send(self) -> None:
        requests = self._plan.requests
        one = requests[self._number % len(requests)] if self._plan.is_own else self._dice.choice(requests)
        self._count += 1
        message = one.to_bytes(self._plan.port, self._number, self._count)
        self._sent = time.perf_counter()
        self._transport.write(message)


async def run(plan: Plan) -> Figures:
    """Send the plan's requests until its time is over."""
    loop = asyncio.get_running_loop()
    figures = Figures()
    began = time.perf_counter()
    clients = [
        (await loop.create_connection(lambda n=n: _Client(plan, n, figures, began + plan.seconds), HOST, plan.port))[1]
        for n in range(plan.clients)
    ]
    await asyncio.gather(*(client.ended for client in clients))
    figures.seconds = time.perf_counter() - began
    return figures


def to_text(plan: Plan) -> str:
    """The plan as JSON."""
    return json.dumps(asdict(plan))


def _read(text: str) -> Plan:
    members = json.loads(text)
    requests = tuple(
        Request(
            method=each["method"],
            path=each["path"],
            body=each["body"],
            headers=tuple((name, value) for name, value in each["headers"]),
        )
        for each in members.pop("requests")
    )
    return Plan(requests=requests, **members)


if __name__ == "__main__":
    json.dump(asdict(asyncio.run(run(_read(sys.stdin.read())))), sys.stdout)
