"""What a caller may do. One rule: a route that declares no permission is not served.

A route says which scope it needs with `caller: Annotated[Caller, Depends(requires("write"))]`, or one of the
annotations below; there is no other way to learn who calls, so a route that does something for someone cannot forget
it. `undeclared_routes` finds the routes that say nothing; the tests and the server's start refuse any.

Callers who hold the scope for some models only are let through where `NARROWED_ROUTES` says so, and see and change
what is theirs alone (`visibility`). All other routes are of the whole workspace, and refuse them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, FastAPI, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute

from fairlead.core.errors import PermissionDenied, Unauthenticated
from fairlead.registry.denials import Denial
from fairlead.registry.identity import Caller
from fairlead.registry.permissions import Scope
from fairlead.registry.visibility import Narrowed, begin_access, current_access

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Send
    from starlette.types import Scope as AsgiScope

OPEN_PATHS = frozenset({"/healthz", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"})
"""What anyone may read: whether the server lives, and how it is spoken to."""

OPEN_ROUTES = frozenset({"POST /api/v1/tokens/exchange", "GET /api/v1/login"})
"""What anyone may call: it finds out by itself who calls, or says where one logs in."""

NARROWED_ROUTES = frozenset(
    {
        "/whoami",
        "/workspaces/{workspace}",
        "/models",
        "/models/{name}",
        "/resolve",
        "/promotions",
        "/uploads",
        "/bundles",
        "/deployments",
        "/deployments/{name}",
        "/deployments/{name}/drift",
        "/deployments/{name}/revisions",
        "/deployments/{name}/rollback",
        "/audit",
        "/events",
        "/lineage",
        "/keys/{key_id}",
    }
)
"""Routes that show and change rows of models alone, and are open to whoever may do so for some models.

So is what lies below those in `_NARROWED_PREFIXES`. A wrapped key is of no use without its provider.
"""

_NARROWED_PREFIXES = (
    "/models/{name}/",
    "/promotions/{promotion}",
    "/uploads/{upload_id}",
    "/artifacts/{digest}",
    "/bundles/{bundle_id}",
    "/api/2.0/mlflow/registered-models/",
    "/api/2.0/mlflow/model-versions/",
    "/api/2.0/mlflow-artifacts/",
    "/api/3.0/mlflow/server-",
)
_SHOWN_TO_ALL = frozenset({"/environments", "/environments/{environment}"})

Authenticate = Callable[[str], Caller]

_FORBIDDEN = 403
_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="An API token: `Authorization: Bearer fl_...`.")


class Requires:
    """A dependency that yields the caller, if the caller holds the scope; None is held by whoever has a token."""

    def __init__(self, scope: Scope | None) -> None:
        self.scope: Scope | None = scope

    def __call__(
        self, request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    ) -> Caller:
        """Recognise the caller and check the scope.

        Raises:
            Unauthenticated: if the request carries no valid token.
            PermissionDenied: if the token lacks the scope.
        """
        if credentials is None:
            raise Unauthenticated(
                "The request carries no token.", hint="Send Authorization: Bearer TOKEN; the SDK reads FAIRLEAD_TOKEN."
            )
        authenticate = cast("Authenticate", request.app.state.authenticate)
        caller = authenticate(credentials.credentials)
        access = current_access()
        if access is not None:
            access.caller = caller
        scope = self.scope or "read"
        if (self.scope is None and not caller.grants) or caller.may(scope):
            return caller
        path = getattr(request.scope.get("route"), "path", "")
        # Where no access was begun nothing would be narrowed, so nobody is let through.
        if access is not None and self._is_open_to(caller, request.method, path):
            access.narrowed = Narrowed(caller=caller, scope=scope)
            return caller
        where = " for the whole workspace" if caller.may_somewhere(scope) else ""
        raise PermissionDenied(
            f"{caller.principal!r} may not do this: it needs the scope {scope!r}{where}.",
            hint=f"Ask an admin for a token or a role: fairlead token create --scope {scope}, or fairlead role bind",
            scope=scope,
        )

    def _is_open_to(self, caller: Caller, method: str, path: str) -> bool:
        """Whether a caller who holds the scope for some models may call a route at all."""
        if self.scope is not None and not caller.may_somewhere(self.scope):
            return False
        if method in {"GET", "HEAD"} and path in _SHOWN_TO_ALL:
            return True
        return path in NARROWED_ROUTES or path.startswith(_NARROWED_PREFIXES)


def requires(scope: Scope | None) -> Requires:
    """The permission a route needs, for `Depends`; None where any valid token will do."""
    return Requires(scope)


IsKnown = Annotated[Caller, Depends(requires(None))]
MayRead = Annotated[Caller, Depends(requires("read"))]
MayWrite = Annotated[Caller, Depends(requires("write"))]
MayPromote = Annotated[Caller, Depends(requires("promote"))]
MayApprove = Annotated[Caller, Depends(requires("approve"))]
MayDeploy = Annotated[Caller, Depends(requires("deploy"))]
MayAdmin = Annotated[Caller, Depends(requires("admin"))]
MayRunServer = Annotated[Caller, Depends(requires("server"))]


class AccessMiddleware:
    """Begins each request's access, and tells of those that were refused to somebody who is known."""

    def __init__(self, app: ASGIApp, tell: Callable[[Denial], None] | None) -> None:
        self._app = app
        self._tell = tell

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        access = begin_access()
        refused: list[int] = []

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == _FORBIDDEN:
                refused.append(_FORBIDDEN)
            await send(message)

        await self._app(scope, receive, note)
        if refused and access.caller is not None and self._tell is not None:
            denial = Denial(caller=access.caller, method=scope["method"], path=scope["path"])
            # In a context of its own: a rehearsal that is refused leaves its trace like any other refusal.
            await run_in_threadpool(Context().run, self._tell, denial)


def install_access(app: FastAPI, authenticate: Authenticate, tell: Callable[[Denial], None] | None = None) -> None:
    """Tell an app how to recognise callers (`Tokens.authenticate` is the usual way) and whom to tell of refusals."""
    app.state.authenticate = authenticate
    app.add_middleware(AccessMiddleware, tell=tell)


def undeclared_routes(app: FastAPI) -> list[str]:
    """The routes that say nothing about who may call them, as `METHODS path`; a server with any must not start."""
    undeclared = [
        f"{','.join(sorted(route.methods or ()))} {path}".strip()
        for path, route in routes_of(app)
        if path not in OPEN_PATHS and not _is_declared(getattr(route, "dependant", None))
    ]
    return [route for route in undeclared if route not in OPEN_ROUTES]


def routes_of(app: FastAPI) -> Iterator[tuple[str, RouteContext]]:
    """Every route with its whole path."""
    return _walk(app.routes, "")


def _walk(routes: Sequence[BaseRoute], prefix: str) -> Iterator[tuple[str, RouteContext]]:
    for route in iter_route_contexts(routes):
        path = prefix + (route.path or "")
        mounted = cast("Sequence[BaseRoute] | None", getattr(route.original_route, "routes", None))
        if mounted:
            yield from _walk(mounted, path)
        else:
            yield path, route


def _is_declared(dependant: Dependant | None) -> bool:
    if dependant is None:
        return False
    return isinstance(dependant.call, Requires) or any(_is_declared(each) for each in dependant.dependencies)
