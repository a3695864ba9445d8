"""The straight way to routes that are asked all the time.

FastAPI finds a route by trying one after the other, and runs each dependency on its own, on another thread each: most
of what a small answer costs. Routes of MLflow's dialect, whose paths are fixed and which ask for no more than its
fields, a caller, a key to repeat the call by and the request, are found here by their path, and permission and answer
are one errand of one thread. What runs is what the route declares: its own permission, its own function and the
application's own error handlers.

Before that, a *shortcut* may know the answer to a read at once, or decline.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException

from fairlead.core.errors import FairleadError
from fairlead.registry.access import Requires, routes_of
from fairlead.registry.mlflow.fields import read_fields
from fairlead.registry.shortcuts import Shortcut
from fairlead.registry.wire import read_idempotency_key

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant
    from fastapi.routing import RouteContext
    from starlette.types import ASGIApp, Receive, Scope, Send

THREADS = 8
"""Enough to wait for the database while others run: more of them take turns at the interpreter, and cost more each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Direct:
    """A route that needs nothing but what is here; names are of the parameters of its function."""

    route: RouteContext
    answer: Callable[..., Response]
    requires: Requires
    caller: str
    fields: str
    key: str | None
    request: str | None


class Express:
    """Answers what it knows the straight way to, and passes on all else."""

    def __init__(self, app: ASGIApp, *, fastapi: FastAPI, shortcuts: Mapping[str, Shortcut]) -> None:
        self._app = app
        self._fastapi = fastapi
        self._shortcuts = shortcuts
        self._direct: dict[str, _Direct] | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="fairlead-api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = f"{scope['method']} {scope['path']}"
        shortcut = self._shortcuts.get(asked)
        if shortcut is not None and await _take(shortcut, scope, send):
            return
        if self._direct is None:
            self._direct = _find_direct(self._fastapi)
        direct = self._direct.get(asked)
        if direct is None:
            await self._app(scope, receive, send)
        else:
            await self._run(direct, scope, receive, send)

    async def _run(self, direct: _Direct, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = direct.route
        request = Request(scope, receive)
        given: dict[str, Any] = {} if direct.request is None else {direct.request: request}
        try:
            given[direct.fields] = await read_fields(request)
            if direct.key is not None:
                given[direct.key] = await read_idempotency_key(request, request.headers.get("idempotency-key"))
            context, loop = contextvars.copy_context(), asyncio.get_running_loop()
            response = await loop.run_in_executor(
                self._threads, lambda: context.run(_permit_and_answer, direct, request, given)
            )
        except (FairleadError, HTTPException) as error:
            kind = FairleadError if isinstance(error, FairleadError) else HTTPException
            handler = cast("Callable[..., Awaitable[Response]]", self._fastapi.exception_handlers[kind])
            response = await handler(request, error)
        await response(scope, receive, send)


def _permit_and_answer(direct: _Direct, request: Request, given: dict[str, Any]) -> Response:
    secret = _secret_of(request.scope)
    credentials = None if secret is None else HTTPAuthorizationCredentials(scheme="Bearer", credentials=secret)
    given[direct.caller] = direct.requires(request, credentials)
    return direct.answer(**given)


async def _take(shortcut: Shortcut, scope: Scope, send: Send) -> bool:
    secret = _secret_of(scope)
    if secret is None:
        return False
    try:
        query = dict(parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict"))
    except ValueError:
        return False
    body = await shortcut(secret, query)
    if body is None:
        return False
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    return True


def _secret_of(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, secret = value.decode("latin-1").partition(" ")
            return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None
    return None


def _find_direct(app: FastAPI) -> dict[str, _Direct]:
    """The routes that can be answered directly, by method and path."""
    found: dict[str, _Direct] = {}
    for path, route in routes_of(app):
        direct = _to_direct(route, getattr(route, "dependant", None))
        if direct is not None:
            for method in route.methods or ():
                found.setdefault(f"{method} {path}", direct)
    return found


def _to_direct(route: RouteContext, dependant: Dependant | None) -> _Direct | None:
    if dependant is None or dependant.call is None or inspect.iscoroutinefunction(dependant.call):
        return None
    asks_more = (dependant.path_params, dependant.query_params, dependant.header_params, dependant.body_params)
    if any(asks_more) or dependant.cookie_params or dependant.response_param_name:
        return None
    requires: Requires | None = None
    caller = fields = key = None
    for each in dependant.dependencies:
        if isinstance(each.call, Requires):
            requires, caller = each.call, each.name
        elif each.call is read_fields:
            fields = each.name
        elif each.call is read_idempotency_key:
            key = each.name
        else:
            return None
    # Whoever asks for MLflow's fields answers with a whole response.
    if requires is None or caller is None or fields is None:
        return None
    return _Direct(
        route=route,
        answer=dependant.call,
        requires=requires,
        caller=caller,
        fields=fields,
        key=key,
        request=dependant.request_param_name,
    )
