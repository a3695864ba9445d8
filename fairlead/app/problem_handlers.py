"""Every error as `application/problem+json`: ours, the framework's, and the ones that nobody expected.

An answer names what went wrong and the next step. It never holds SQL, a path of the server, or the text of an
exception that nobody expected: that goes to the log, under the incident's id which the answer carries.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairlead.core.errors import (
    BodyTooLarge,
    FairleadError,
    InvalidInput,
    JsonValue,
    MethodNotAllowed,
    NotFound,
    RangeNotSatisfiable,
    Unauthenticated,
)
from fairlead.core.ids import new_row_id
from fairlead.core.problems import MEDIA_TYPE, to_problem

JSON_MAX_BYTES = 8 * 2**20
"""The largest body that is read, unless it declares a binary type: JSON becomes objects many times its size."""

_BINARY_TYPES = frozenset({"application/octet-stream", "application/vnd.apache.arrow.stream"})
_ERRORS_SHOWN = 20
_METHODS = frozenset({"get", "put", "post", "delete", "patch"})
_log = logging.getLogger(__name__)

_PROBLEM_SCHEMA: dict[str, JsonValue] = {
    "title": "Problem",
    "description": "What went wrong, to what, and what to do next (RFC 9457). Some types carry further members.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {
            "type": "string",
            "description": "Stable: scripts match on it.",
            "examples": ["urn:fairlead:error:not-found"],
        },
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "hint": {"type": "string", "description": "The next step."},
        "errors": {
            "type": "array",
            "description": "What is wrong with the request, part by part.",
            "items": {
                "type": "object",
                "required": ["in", "pointer", "detail"],
                "properties": {
                    "in": {"type": "string", "enum": ["body", "query", "path", "header"]},
                    "pointer": {"type": "string", "examples": ["#/labels/owner"]},
                    "detail": {"type": "string"},
                },
            },
        },
    },
    "additionalProperties": True,
}


def install_problem_handlers(
    app: FastAPI, *, max_body_bytes: int = 64 * 2**20, streamed: tuple[str, ...] = (), guide: str = "/docs lists"
) -> None:
    """Make an app answer every error as a problem document, say so in its OpenAPI, and refuse oversized bodies.

    `guide` begins the hint of who asks for what there is not: what lists, or is, what there is.
    `max_body_bytes` holds for bodies of a binary type; all others may have at most 8 MiB. What is PUT below the paths
    `streamed` goes to disk piece by piece, and its routes say how much that may be.
    """
    handlers: dict[type[Exception], Callable[..., Awaitable[Response]]] = {
        FairleadError: _answer_error,
        RequestValidationError: _answer_invalid_request,
        HTTPException: functools.partial(_answer_http_exception, guide=guide),
        Exception: _answer_unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(BodyLimit, max_body_bytes=max_body_bytes, streamed=streamed)
    _document_problems(app)


class BodyLimit:
    """Refuses a body that is too large: at once where it says so, else when too much of it came."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, streamed: tuple[str, ...] = ()) -> None:
        self._app = app
        self._streamed = streamed
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body counted."""
        is_streamed = bool(self._streamed) and scope.get("method") == "PUT" and scope["path"].startswith(self._streamed)
        if scope["type"] != "http" or is_streamed:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        limit = self._max_body_bytes if kind in _BINARY_TYPES else min(JSON_MAX_BYTES, self._max_body_bytes)
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
            await _to_response(_too_large(limit))(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise HTTPException(status_code=413, detail=str(limit))
            return message

        await self._app(scope, counted, send)


async def _answer_error(_request: Request, error: FairleadError) -> Response:
    return _to_response(error)


async def _answer_invalid_request(_request: Request, error: RequestValidationError) -> Response:
    found = cast("Sequence[Mapping[str, Any]]", error.errors())
    if found and found[0].get("type") == "json_invalid":
        return _to_response(InvalidInput("The body is not JSON.", hint="Check its quotes, commas and braces."))
    errors: list[JsonValue] = [_to_pointer(each) for each in found[:_ERRORS_SHOWN]]
    first = cast("dict[str, str]", errors[0]) if errors else {"pointer": "", "detail": ""}
    return _to_response(
        InvalidInput(
            f"The request is not valid: {first['pointer']}: {first['detail']}.",
            hint="The members of `errors` say what is wrong where; /docs shows what is expected.",
            errors=errors,
        )
    )


async def _answer_http_exception(request: Request, error: HTTPException, *, guide: str) -> Response:
    path = request.url.path[:200]
    found: FairleadError
    if error.status_code == 404:
        found = NotFound(f"There is nothing at {path}.", hint=f"{guide} what is.")
    elif error.status_code == 405:
        found = MethodNotAllowed(f"{path} does not answer {request.method[:20]}.", hint=f"{guide} what it answers.")
    elif error.status_code == 413:
        found = _too_large(int(error.detail) if error.detail.isdigit() else JSON_MAX_BYTES)
    else:
        found = InvalidInput("The body cannot be read.", hint="Send it as /docs describes.")
        if error.status_code >= 500:
            found = FairleadError("The server could not answer.", hint="Try again.")
    response = _to_response(found)
    response.headers.update(error.headers or {})
    return response


async def _answer_unexpected(request: Request, error: Exception) -> Response:
    incident = new_row_id()
    _log.error("incident %s: %s %s", incident, request.method, request.url.path, exc_info=error)
    return _to_response(
        FairleadError(
            f"The server met an error that it did not expect: incident {incident}.",
            hint="Nothing was half-done. Give the incident's id to whoever runs the server.",
            incident=incident,
        )
    )


def _to_response(error: FairleadError) -> Response:
    response = Response(
        json.dumps(to_problem(error), allow_nan=False).encode(), status_code=error.status, media_type=MEDIA_TYPE
    )
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RangeNotSatisfiable) and "size" in error.attributes:
        response.headers["Content-Range"] = f"bytes */{error.attributes['size']}"
    return response


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than {limit} bytes.", hint="Send less; files travel as uploads.", max_bytes=limit
    )


def _to_pointer(error: Mapping[str, Any]) -> dict[str, JsonValue]:
    place, *path = cast("Sequence[str | int]", error.get("loc") or ("body",))
    steps = "".join("/" + str(step)[:100].replace("~", "~0").replace("/", "~1") for step in path)
    return {"in": str(place), "pointer": f"#{steps}", "detail": str(error.get("msg", "is not valid"))}


def _document_problems(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = _PROBLEM_SCHEMA
            content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
            for path in cast("dict[str, dict[str, Any]]", document.get("paths", {})).values():
                for method in _METHODS & path.keys():
                    answers = path[method]["responses"]
                    # What FastAPI documents for an invalid request is not what is answered.
                    answers.pop("422", None)
                    answers["4XX"] = {"description": "The request cannot be answered so.", "content": content}
                    answers["5XX"] = {"description": "The server cannot answer now.", "content": content}
            for unused in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(unused, None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi
