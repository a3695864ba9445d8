"""Bounds what an endpoint reads of a request: BentoML takes a body of any size into memory.

This file is copied into bundles as it is.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

BODY_MAX_BYTES = 32 * 2**20
"""As much as the gateway lets through."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def bounded(app: App) -> App:
    """An ASGI application that is given no larger bodies; who sends one is answered 413."""

    async def read(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            await app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"")
        if said.isdigit() and int(said) > BODY_MAX_BYTES:
            await _refuse(send)
            return
        body, message = bytearray(), {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > BODY_MAX_BYTES:
                await _refuse(send)
                return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        await app(scope, again, send)

    return read


async def _refuse(send: Send) -> None:
    problem = {
        "type": "urn:fairlead:error:body-too-large",
        "status": 413,
        "detail": f"The request is larger than {BODY_MAX_BYTES} bytes.",
        "hint": "Send fewer rows at once.",
    }
    # What was not read of the body would be taken for the next request.
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(problem).encode()})
