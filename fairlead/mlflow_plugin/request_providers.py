# pyright: reportIncompatibleMethodOverride=false
"""What the plug-in adds to MLflow's requests.

MLflow adds headers and authentication to every request, whichever server it goes to. So the header provider is silent
but for calls that the registry store is just making, and the authentication looks at each request's address.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider
from requests.auth import AuthBase

from fairlead.mlflow_plugin.connections import configured_client, is_same_server

if TYPE_CHECKING:
    from collections.abc import Generator

    from requests import PreparedRequest, Response

    from fairlead.sdk.client import Fairlead

AUTH_NAME = "fairlead"
_UNAUTHENTICATED = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    client: Fairlead
    is_creating: bool
    # One key for all tries: what a lost answer created is found again, not created twice.
    key: str = field(default_factory=lambda: str(uuid.uuid4()))


_call: ContextVar[_Call | None] = ContextVar("fairlead_call", default=None)


@contextmanager
def calling(client: Fairlead, *, is_creating: bool) -> Generator[None]:
    """Mark the requests of the block as one call to a client's server."""
    token = _call.set(_Call(client=client, is_creating=is_creating))
    try:
        yield
    finally:
        _call.reset(token)


class FairleadHeaders(RequestHeaderProvider):
    """Names the plug-in, and lets calls that create something be repeated."""

    def in_context(self) -> bool:
        """Whether the registry store is making a call."""
        return _call.get() is not None

    def request_headers(self) -> dict[str, str]:
        """Headers of that call; none of them says who is calling."""
        call = _call.get()
        headers = {"User-Agent": f"fairlead/{version('fairlead')}"}
        if call is not None and call.is_creating:
            headers["Idempotency-Key"] = call.key
        return headers


class FairleadAuthProvider(RequestAuthProvider):
    """The authentication that `MLFLOW_TRACKING_AUTH=fairlead` asks for, and that the registry store uses."""

    def get_name(self) -> str:
        """The name that MLflow knows it by."""
        return AUTH_NAME

    def get_auth(self) -> AuthBase:
        """What adds the token to a request."""
        return FairleadAuth()


class FairleadAuth(AuthBase):
    """Adds the caller's token to requests to the configured Fairlead server, and to no other."""

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Add the token, and ask once for another one where the server knows it no longer."""
        client = _client_of(r.url or "")
        if client is None or client.authorization is None:
            return r
        known = client

        def renew(response: Response, **kwargs: Any) -> Response:
            is_ours = is_same_server(response.url, known.url)
            if response.status_code != _UNAUTHENTICATED or not is_ours or not known.renew_token():
                return response
            _ = response.content
            response.close()
            again = response.request.copy()
            again.hooks = {"response": []}
            again.headers["Authorization"] = known.authorization or ""
            connection: Any = response.connection
            answer: Response = connection.send(again, **kwargs)
            answer.history.append(response)
            answer.request = again
            return answer

        r.headers["Authorization"] = client.authorization
        r.register_hook("response", renew)
        return r


def _client_of(url: str) -> Fairlead | None:
    call = _call.get()
    if call is not None and is_same_server(call.client.url, url):
        return call.client
    import mlflow

    return configured_client(url, mlflow.get_registry_uri())
