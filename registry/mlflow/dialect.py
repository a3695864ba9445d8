"""What makes a route speak MLflow: Basic credentials are taken as tokens, and errors have MLflow's shape and codes.

It stands before everything, so that a refusal by the front door, the router or a use case reads the same to a client.
A client tries again for minutes on 408, 429 and 5xx, so nothing that a caller did wrong answers with one of those.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.problems import MEDIA_TYPE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

API_PREFIXES = ("/api/2.0/", "/api/3.0/", "/ajax-api/2.0/", "/ajax-api/3.0/")
UNSUPPORTED_MULTIPART = "Multipart upload is not supported for the current artifact repository"

_BY_CODE = {
    "already-exists": ("RESOURCE_ALREADY_EXISTS", 400),
    "alias-not-found": ("INVALID_PARAMETER_VALUE", 400),
    "not-found": ("ENDPOINT_NOT_FOUND", 404),
    "method-not-allowed": ("ENDPOINT_NOT_FOUND", 405),
    "unauthenticated": ("UNAUTHENTICATED", 401),
    "stale-revision": ("RESOURCE_CONFLICT", 409),
    "integrity": ("DATA_LOSS", 500),
    "storage-full": ("RESOURCE_LIMIT_EXCEEDED", 507),
}
_BY_STATUS = {
    400: ("INVALID_PARAMETER_VALUE", 400),
    403: ("PERMISSION_DENIED", 403),
    404: ("RESOURCE_DOES_NOT_EXIST", 404),
    409: ("RESOURCE_CONFLICT", 409),
    412: ("RESOURCE_CONFLICT", 409),
    413: ("INVALID_PARAMETER_VALUE", 413),
    416: ("INVALID_PARAMETER_VALUE", 416),
    422: ("INVALID_PARAMETER_VALUE", 400),
    428: ("RESOURCE_CONFLICT", 409),
    502: ("DATA_LOSS", 500),
    503: ("TEMPORARILY_UNAVAILABLE", 503),
}


class MlflowDialect:
    """Lets MLflow's paths be asked with Basic credentials and answered in MLflow's error shape; others pass through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, translated if its path is MLflow's."""
        if scope["type"] != "http" or not scope["path"].startswith(API_PREFIXES):
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        await self._app({**scope, "headers": _with_bearer(scope["headers"])}, receive, answer)


class _Answer:
    """Passes messages on, but keeps a problem document until it is whole and sends MLflow's form of it instead."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_problem(message):
            self._start = message
        elif self._start is None or message["type"] != "http.response.body":
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_translated(self._start)

    async def _send_translated(self, start: Message) -> None:
        status, body = to_mlflow_error(json.loads(self._body))
        kept = [item for item in start["headers"] if item[0].lower() not in {b"content-type", b"content-length"}]
        length = str(len(body)).encode()
        headers = [*kept, (b"content-type", b"application/json"), (b"content-length", length)]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def to_mlflow_error(problem: dict[str, Any]) -> tuple[int, bytes]:
    """The status and body with which MLflow would say the same as a problem document."""
    code = str(problem.get("type", "")).rpartition(":")[2]
    name, status = _BY_CODE.get(code) or _BY_STATUS.get(int(problem["status"]), ("INTERNAL_ERROR", 500))
    parts = [str(problem.get("detail") or problem.get("title") or "")]
    errors = cast("list[dict[str, Any]]", problem.get("errors") or [])
    parts += [f"{error.get('pointer')}: {error.get('detail')}." for error in errors]
    if problem.get("hint"):
        parts.append(str(problem["hint"]))
    return status, json.dumps({"error_code": name, "message": " ".join(parts)}).encode()


def _is_problem(start: Message) -> bool:
    kinds = [value for name, value in start.get("headers", ()) if name.lower() == b"content-type"]
    return kinds[:1] == [MEDIA_TYPE.encode()]


def _with_bearer(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers, with Basic credentials replaced by their password as a bearer token."""
    return [
        (name, _to_bearer(value)) if name == b"authorization" and value[:6].lower() == b"basic " else (name, value)
        for name, value in headers
    ]


def _to_bearer(value: bytes) -> bytes:
    try:
        _, colon, password = base64.b64decode(value[6:].strip(), validate=True).partition(b":")
    except binascii.Error:
        return value
    return b"Bearer " + password if colon else value
