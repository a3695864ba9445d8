"""The routes of streams: push rows, and see how far regions are behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ValidationError

from fairlead.core.errors import InvalidInput
from fairlead.featurestore.arrow_bodies import ARROW_STREAM, read_arrow_body, read_body
from fairlead.featurestore.pushed_rows import Columns, columns_of_arrow, columns_of_json
from fairlead.featurestore.pushes import PushTo
from fairlead.featurestore.schemas_streams import LogLagAnswer, LogLagList, PushAnswer, PushRequest, PushSourceAnswer
from fairlead.registry.access import MayRead, MayWrite

if TYPE_CHECKING:
    from fairlead.featurestore.log_lag import LogLags
    from fairlead.featurestore.pushes import FeaturePushes

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["rows"],
                    "additionalProperties": False,
                    "properties": {
                        "rows": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                        "event_ids": {"type": "array", "items": {"type": "string"}},
                    },
                }
            },
            ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def read_pushed(request: Request, body: Annotated[bytes, Depends(read_body)]) -> tuple[Columns, list[str] | None]:
    """The columns that a request's body holds, and its event ids where they come beside the rows.

    In a thread: megabytes of JSON would hold up every other request.

    Raises:
        InvalidInput: if it is neither an Arrow IPC stream nor such JSON.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() == ARROW_STREAM:
        return columns_of_arrow(read_arrow_body(body)), None
    try:
        asked = PushRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = "/".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"The rows are not given as they have to be: {place or 'the body'}: {first['msg']}.",
            hint='Send {"rows": [{...}, ...]}.',
        ) from None
    return columns_of_json(asked.rows), asked.event_ids


Sent = Annotated[tuple[Any, Any], Depends(read_pushed)]


def streams_router(pushes: FeaturePushes, lags: LogLags) -> APIRouter:
    """Push sources and logs."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.post("/push/{source}", openapi_extra=_BODY)
    def push_rows(
        caller: MayWrite,
        source: str,
        sent: Sent,
        to: Annotated[PushTo, Query(description="Where the rows go.")] = "online_and_offline",
        region: Annotated[str | None, Query(description="Where the rows are taken; none: where this is.")] = None,
    ) -> PushAnswer:
        """Push rows of a stream, as JSON or Arrow; they are durable when this answers, each event once."""
        columns, ids = cast("tuple[Columns, list[str] | None]", sent)
        return PushAnswer.of(pushes.push(caller, source, columns, to=to, region=region, ids=ids))

    @router.get("/push/{source}")
    def get_push_source(caller: MayRead, source: str) -> PushSourceAnswer:
        """Show what a stream's messages look like, and which views they are rows of."""
        return PushSourceAnswer.of(pushes.source(caller, source))

    @router.get("/views/{view}/logs")
    def list_logs(caller: MayRead, view: str) -> LogLagList:
        """Show the logs of a view's pushed rows, and how far each region is behind them."""
        return LogLagList(items=[LogLagAnswer.of(lag) for lag in lags.of_view(caller, view)])

    return router
