"""What a caller may do. One rule: a route that declares no permission is not served.

A route says which scope it needs with `caller: Annotated[Caller, Depends(requires("write"))]`, or one of the
annotations below; there is no other way to learn who calls, so a route that does something for someone cannot forget
it. `undeclared_routes` finds the routes that say nothing; the tests and the server's start refuse any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, cast

from fastapi import Depends, FastAPI, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.routing import BaseRoute

from fairlead.core.errors import PermissionDenied, Unauthenticated
from fairlead.registry.identity import Caller, Scope

OPEN_PATHS = frozenset({"/healthz", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"})
"""What anyone may read: whether the server lives, and how it is spoken to."""

OPEN_ROUTES = frozenset({"POST /api/v1/tokens/exchange"})
"""What anyone may call, since it finds out by itself who calls: by the identity token in the request."""

Authenticate = Callable[[str], Caller]

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
        if self.scope is not None and not caller.may(self.scope):
            raise PermissionDenied(
                f"{caller.principal!r} may not do this: it needs the scope {self.scope!r}.",
                hint=f"Ask an admin for a token: fairlead token create --scope {self.scope}",
                scope=self.scope,
            )
        return caller


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


def install_access(app: FastAPI, authenticate: Authenticate) -> None:
    """Tell an app how to recognise callers; `Tokens.authenticate` is the usual way."""
    app.state.authenticate = authenticate


def undeclared_routes(app: FastAPI) -> list[str]:
    """The routes that say nothing about who may call them, as `METHODS path`; a server with any must not start."""
    undeclared = [
        f"{','.join(sorted(route.methods or ()))} {path}".strip()
        for path, route in _walk(app.routes, "")
        if path not in OPEN_PATHS and not _is_declared(getattr(route, "dependant", None))
    ]
    return [route for route in undeclared if route not in OPEN_ROUTES]


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
