"""The gateway: one address for all deployments, which sends each request to the best healthy endpoint.

It runs as a process of its own, knows only the routing table, and runs no code of an artifact:

    python -m fairlead.serving.gateway --state routes.json --port 8770

    POST /{deployment}/predict        also predict_rows and info; the body goes on as it is
    GET  /{deployment}                the endpoints and how they are
    GET  /-/measurements              what each revision was given, failed at and took, since the gateway began
    GET  /healthz

A request is repeated at the next endpoint when a connection fails, an endpoint does not answer in time, answers more
than can be taken, or answers 500, 502, 503 or 504: predictions change nothing, so a repeat does no harm.
`x-fairlead-prefer: REGION` and `x-fairlead-area: AREA` say what to try first. Where traffic is divided, between
regions by a placement's shares or between two revisions, chance decides for each request; requests with the same
`x-fairlead-key` are always decided alike. Answers carry `x-fairlead-region`, `x-fairlead-bundle` and
`x-fairlead-attempts`.

An endpoint says in every answer who it is. One that says it is another (its port was given to somebody else) gets no
more requests, and what it answered is thrown away.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import socket
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, cast

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from fairlead.core.errors import (
    DeploymentNotFound,
    EndpointUnavailable,
    FairleadError,
    InvalidInput,
    JsonValue,
    PermissionDenied,
)
from fairlead.core.problems import MEDIA_TYPE, to_problem
from fairlead.serving.measurements import Counts, measurements_to_json
from fairlead.serving.routing import Endpoint, Route, read_table

PROBE_SECONDS = 0.5
BODY_MAX_BYTES = 32 * 2**20
ANSWER_MAX_BYTES = 32 * 2**20
_ATTEMPT_SECONDS = 10.0
_CONNECT_SECONDS = 1.0
_PROBE_TIMEOUT_SECONDS = 1.0
_METHODS = frozenset({"predict", "predict_rows", "info"})
_REPEATED = frozenset({500, 502, 503, 504})
_UNHEALTHY = frozenset({502, 503, 504})
_SENT_HEADERS = ("content-type", "accept", "traceparent", "tracestate")
_RETURNED_HEADERS = ("content-type", "x-bentoml-request-id")
_REVISIONS_MAX = 64
_IDENTITY_HEADER = "x-fairlead-endpoint"
_KEY_HEADER = "x-fairlead-key"
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(slots=True, kw_only=True)
class _Health:
    """What is known of one endpoint. New ones count as healthy: the deploy side checked them before it listed them."""

    is_healthy: bool = True
    failures: int = 0
    error: str | None = None

    def succeed(self) -> None:
        self.is_healthy, self.failures, self.error = True, 0, None

    def fail(self, error: str, *, is_certain: bool) -> None:
        self.failures += 1
        self.error = error
        # One slow probe is no proof; a refused connection is.
        if is_certain or self.failures > 1:
            self.is_healthy = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What an endpoint answered, as a whole."""

    status: int
    headers: httpx2.Headers
    content: bytes


class _TooLarge(Exception):
    """An answer is larger than `ANSWER_MAX_BYTES`."""


class _SomebodyElse(Exception):
    """An answer came from another endpoint than the one that was asked."""


class Gateway:
    """Routes requests by a table in a file. Use `app`, and `run` for the health checks."""

    def __init__(self, state: Path, client: httpx2.AsyncClient) -> None:
        self._state = state
        self._client = client
        self._stamp: tuple[int, int, int] | None = None
        self._table: dict[str, Route] = {}
        self._health: dict[tuple[str, str | None], _Health] = {}
        self._counts: dict[tuple[str, str, str], Counts] = {}
        self._refresh()

    async def run(self) -> None:
        """Check every endpoint twice a second, for ever."""
        while True:
            await asyncio.gather(asyncio.sleep(PROBE_SECONDS), self.check())

    async def check(self) -> None:
        """Ask every endpoint of the table once how it is, and forget those that are no longer in it."""
        self._refresh()
        endpoints = {_place(each): each for route in self._table.values() for each in route.endpoints}
        self._health = {place: self._health.get(place) or _Health() for place in endpoints}
        self._counts = {key: counts for key, counts in self._counts.items() if key[0] in self._table}
        await asyncio.gather(*map(self._probe, endpoints.values()))

    async def predict(self, request: Request) -> Response:
        """Answer one request from the first endpoint that can."""
        name, method = request.path_params["deployment"], request.path_params["method"]
        if method not in _METHODS:
            raise InvalidInput(
                f"A deployment has no method {method[:40]!r}.", hint="Use predict, predict_rows or info."
            )
        route = self._route(name)
        prefer, area = request.headers.get("x-fairlead-prefer"), request.headers.get("x-fairlead-area")
        body = await _read_body(request)
        headers = {key: value for key in _SENT_HEADERS if (value := request.headers.get(key)) is not None}
        last: Response | None = None
        attempts = 0
        ordered = route.in_order(prefer=prefer, area=area, draw=partial(_draw, name, request.headers.get(_KEY_HEADER)))
        for endpoint in self._candidates(ordered):
            attempts += 1
            began = time.perf_counter()
            answer = await self._ask(endpoint, method, body, headers)
            self._count(name, endpoint, answer, (time.perf_counter() - began) * 1000)
            if answer is None:
                continue
            last = _render(answer, endpoint, attempts)
            if answer.status not in _REPEATED:
                return last
        if last is not None:
            return last
        regions: list[JsonValue] = [str(endpoint.region) for endpoint in route.endpoints]
        raise EndpointUnavailable(
            f"No endpoint of {name!r} answers; asked {attempts} in {', '.join(map(str, regions)) or 'no region'}.",
            hint=f"See what runs where: fairlead deploy status {name}",
            attempts=attempts,
            regions=regions,
            residency=route.residency,
        )

    async def describe(self, request: Request) -> Response:
        """The endpoints of one deployment, in order, with their health as the gateway sees it."""
        name = request.path_params["deployment"]
        route = self._route(name)
        endpoints: list[JsonValue] = []
        for endpoint in route.in_order():
            health = self._health.get(_place(endpoint)) or _Health()
            endpoints.append(
                {
                    "region": endpoint.region,
                    "bundle_digest": endpoint.bundle_digest,
                    "weight": endpoint.weight,
                    "is_healthy": health.is_healthy,
                    "error": health.error,
                }
            )
        return JSONResponse({"deployment": name, "residency": route.residency, "endpoints": endpoints})

    async def measure(self, _: Request) -> Response:
        """What was counted of every revision in every region."""
        return JSONResponse({"items": measurements_to_json(self._counts)})

    def _count(self, name: str, endpoint: Endpoint, answer: _Answer | None, milliseconds: float) -> None:
        digest = endpoint.bundle_digest
        if answer is not None and endpoint.identity is None:
            # A platform that divides the traffic itself lets each answer say which revision gave it.
            said = answer.headers.get(_IDENTITY_HEADER, "").rpartition("/")[2]
            if said.startswith("sha256:") and len(said) == len(digest) and self._may_count(name, endpoint.region, said):
                digest = said
        counts = self._counts.setdefault((name, endpoint.region, digest), Counts())
        counts.note(is_error=answer is None or answer.status >= 500, milliseconds=milliseconds)

    def _route(self, name: str) -> Route:
        self._refresh()
        route = self._table.get(name)
        if route is None:
            raise DeploymentNotFound(
                f"There is no deployment {name[:80]!r}.",
                hint="List them with: fairlead deploy status",
                deployment=name[:80],
            )
        return route

    def _refresh(self) -> None:
        # One `stat` a request, so that a move is followed at once; an unreadable table leaves the last one in force.
        try:
            found = self._state.stat()
        except OSError:
            return
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp == self._stamp:
            return
        table = read_table(self._state)
        if table is not None:
            self._table, self._stamp = table, stamp

    def _may_count(self, name: str, region: str, digest: str) -> bool:
        """Whether what an endpoint calls itself is counted: one that says something else each time is one."""
        others = sum(key[:2] == (name, region) for key in self._counts)
        return (name, region, digest) in self._counts or others < _REVISIONS_MAX

    def _candidates(self, ordered: list[Endpoint]) -> list[Endpoint]:
        healthy = [endpoint for endpoint in ordered if self._health.setdefault(_place(endpoint), _Health()).is_healthy]
        # With nothing healthy left, what is known may be old: asking costs little.
        return healthy or ordered

    async def _ask(self, endpoint: Endpoint, method: str, body: bytes, headers: dict[str, str]) -> _Answer | None:
        """The endpoint's answer, or None where it gives none that can be passed on; its health is noted."""
        health = self._health.setdefault(_place(endpoint), _Health())
        url = f"{endpoint.url}/{method}"
        try:
            async with asyncio.timeout(_ATTEMPT_SECONDS):
                try:
                    answer = await self._post(url, body, headers)
                except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                    # An endpoint may close a connection that was idle just as a request sets out on it.
                    answer = await self._post(url, body, headers)
            _refuse_another(endpoint, answer.headers)
        except (TimeoutError, httpx2.RequestError, _TooLarge, _SomebodyElse) as error:
            health.fail(type(error).__name__.lstrip("_"), is_certain=True)
            return None
        if answer.status in _UNHEALTHY:
            health.fail(f"HTTP {answer.status}", is_certain=True)
        return answer

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> _Answer:
        async with self._client.stream("POST", url, content=body, headers=headers) as answer:
            pieces: list[bytes] = []
            size = 0
            async for piece in answer.aiter_bytes():
                size += len(piece)
                if size > ANSWER_MAX_BYTES:
                    raise _TooLarge
                pieces.append(piece)
            return _Answer(status=answer.status_code, headers=answer.headers, content=b"".join(pieces))

    async def _probe(self, endpoint: Endpoint) -> None:
        health = self._health.setdefault(_place(endpoint), _Health())
        try:
            async with (
                asyncio.timeout(_PROBE_TIMEOUT_SECONDS),
                # What it says beside its status is not read.
                self._client.stream("GET", f"{endpoint.url}/readyz") as answer,
            ):
                status = answer.status_code
                _refuse_another(endpoint, answer.headers)
        except (TimeoutError, httpx2.RequestError, _SomebodyElse) as error:
            is_certain = isinstance(error, httpx2.ConnectError | _SomebodyElse)
            health.fail(type(error).__name__.lstrip("_"), is_certain=is_certain)
            return
        if status == 200:
            health.succeed()
        else:
            health.fail(f"readyz {status}", is_certain=False)


def create_app(state: Path) -> Starlette:
    """The gateway as an ASGI application; health checks run while it does."""
    # An attempt has a time of its own as a whole, however slowly bytes drip.
    timeout = httpx2.Timeout(_ATTEMPT_SECONDS, connect=_CONNECT_SECONDS)
    limits = httpx2.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=4.0)
    # Cookies know no ports: what one endpoint sets would be told to all others, whatever residency class they are in.
    cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    client = httpx2.AsyncClient(
        timeout=timeout, limits=limits, cookies=cookies, trust_env=False, follow_redirects=False
    )
    gateway = Gateway(state, client)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        # A table that waited for a while may name ports that are others' by now.
        await gateway.check()
        checks = asyncio.create_task(gateway.run())
        yield
        checks.cancel()
        await client.aclose()

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def guarded_predict(request: Request) -> Response:
        _refuse_foreign(request)
        return await gateway.predict(request)

    async def guarded_measure(request: Request) -> Response:
        _refuse_foreign(request)
        return await gateway.measure(request)

    async def guarded_describe(request: Request) -> Response:
        _refuse_foreign(request)
        return await gateway.describe(request)

    return Starlette(
        routes=[
            HttpRoute("/healthz", healthz),
            HttpRoute("/-/measurements", guarded_measure),
            HttpRoute("/{deployment}/{method}", guarded_predict, methods=["POST"]),
            HttpRoute("/{deployment}", guarded_describe),
        ],
        exception_handlers={FairleadError: _problem},
        lifespan=lifespan,
    )


def _place(endpoint: Endpoint) -> tuple[str, str | None]:
    return endpoint.url, endpoint.identity


def _refuse_another(endpoint: Endpoint, headers: httpx2.Headers) -> None:
    if endpoint.identity is not None and headers.get(_IDENTITY_HEADER) != endpoint.identity:
        raise _SomebodyElse


def _draw(deployment: str, key: str | None, purpose: str) -> float:
    """A number from 0 (included) to 1: by chance, or always the same for a key."""
    if key is None:
        return random.random()  # noqa: S311  (divides traffic, guards nothing)
    digest = hashlib.sha256(f"{deployment}\0{purpose}\0{key}".encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, FairleadError)  # noqa: S101  (what the handler is registered for)
    return JSONResponse(to_problem(error), status_code=error.status, media_type=MEDIA_TYPE)


def _refuse_foreign(request: Request) -> None:
    # A page in somebody's browser must not speak to loopback, neither by another origin nor by a name that lies.
    host = request.headers.get("host", "")
    name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
    origin = request.headers.get("origin")
    if name not in _LOOPBACK_NAMES or (origin is not None and origin != f"{request.url.scheme}://{host}"):
        raise PermissionDenied("The gateway answers only to its own address.", hint="Call it at http://127.0.0.1:PORT.")


async def _read_body(request: Request) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > BODY_MAX_BYTES:
                raise InvalidInput(
                    f"The request is larger than {BODY_MAX_BYTES} bytes.", hint="Send fewer rows at once."
                )
            pieces.append(piece)
    except ClientDisconnect:
        raise InvalidInput("The client went away before its request was whole.") from None
    return b"".join(pieces)


def _render(answer: _Answer, endpoint: Endpoint, attempts: int) -> Response:
    headers = {key: value for key in _RETURNED_HEADERS if (value := answer.headers.get(key)) is not None}
    content = answer.content
    if answer.status >= 400 and headers.get("content-type") != MEDIA_TYPE:
        content = _problem_of(answer, endpoint)
        headers["content-type"] = MEDIA_TYPE
    headers |= {
        "x-fairlead-region": endpoint.region,
        "x-fairlead-bundle": endpoint.bundle_digest,
        "x-fairlead-attempts": str(attempts),
    }
    return Response(content, status_code=answer.status, headers=headers)


def _problem_of(answer: _Answer, endpoint: Endpoint) -> bytes:
    """A problem document for an answer that is none: what BentoML itself refuses, or an unforeseen error."""
    try:
        said = json.loads(answer.content)
    except (ValueError, RecursionError):
        said = None
    members = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    cls = InvalidInput if answer.status < 500 else EndpointUnavailable
    error = cls(
        f"The endpoint in {endpoint.region} answered {answer.status}: {members.get('error', 'without a reason')}",
        errors=members.get("detail"),
    )
    return json.dumps(to_problem(error) | {"status": answer.status}).encode()


def main() -> None:
    """Run the gateway until it is told to stop."""
    parser = argparse.ArgumentParser(description="One address for all deployments.")
    parser.add_argument("--state", type=Path, required=True, help="the routing table, a JSON file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    # asyncio sets TCP_NODELAY only where the protocol of a socket is given.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((arguments.host, arguments.port))
    config = uvicorn.Config(create_app(arguments.state), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
