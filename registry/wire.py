"""What all routes share: times and amounts on the wire, pages, revision fences, idempotency keys."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from fairlead.core.clock import format_time
from fairlead.core.errors import InvalidInput, RevisionRequired
from fairlead.core.ids import VERSION_MAX
from fairlead.registry.idempotency import IdempotencyKey, parse_idempotency_key
from fairlead.registry.ledger import decimal_text
from fairlead.registry.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Page, PageRequest

Item = TypeVar("Item")

Time = Annotated[
    datetime,
    PlainSerializer(format_time, return_type=str),
    Field(json_schema_extra={"format": "date-time", "examples": ["2026-03-01T12:00:00.000000Z"]}),
]
"""RFC 3339 with microseconds and Z."""

Amount = Annotated[Decimal, PlainSerializer(decimal_text, return_type=str), Field(examples=["0.043"])]
"""Dollars or grams, as decimal text."""

VersionNumber = Annotated[int, Field(ge=1, le=VERSION_MAX)]

_ETAG = re.compile(r'"(0|[1-9][0-9]{0,17})"')


class RequestModel(BaseModel):
    """What a caller sends: exactly these members, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class AnswerModel(BaseModel):
    """What a caller is answered; made from the record of the same shape."""

    model_config = ConfigDict(from_attributes=True)


class Listing(BaseModel, Generic[Item]):
    """One page of a list. Pass `next_page_token` as `page_token` to read on; null after the last page."""

    items: list[Item]
    next_page_token: str | None


def listing(answer: type[AnswerModel], page: Page[Any]) -> dict[str, Any]:
    """Render a page of records as the answer's `Listing`."""
    return {
        "items": [answer.model_validate(item) for item in page.items],
        "next_page_token": page.next_page_token,
    }


def read_page(
    page_size: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE,
    page_token: Annotated[str | None, Query(description="From the page before; bound to the same filter.")] = None,
) -> PageRequest:
    """The page that a request asks for."""
    return PageRequest(size=page_size, token=page_token)


WantedPage = Annotated[PageRequest, Depends(read_page)]


def read_if_match(
    if_match: Annotated[
        str | None,
        Header(description='The revision that the move starts from, quoted: `"3"`; `"0"` for one never set.'),
    ] = None,
) -> int | None:
    """The revision in `If-Match`, or None without that header.

    Raises:
        InvalidInput: if it is no quoted whole number.
    """
    if if_match is None:
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise InvalidInput(f"If-Match is {if_match[:40]!r}, which is no revision.", hint='Send it quoted: "3".')
    return int(found[1])


IfMatch = Annotated[int | None, Depends(read_if_match)]


def require_if_match(if_match: IfMatch) -> int:
    """The revision in `If-Match`.

    Raises:
        RevisionRequired: without that header.
    """
    if if_match is None:
        raise RevisionRequired(
            "The request does not say which revision it starts from.",
            hint='Read the present state, and send its ETag as If-Match ("0" for what was never set).',
        )
    return if_match


ExpectedRevision = Annotated[int, Depends(require_if_match)]


def etag(revision: int) -> dict[str, str]:
    """The headers that carry a revision."""
    return {"ETag": f'"{revision}"'}


async def read_idempotency_key(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(description="Any text of your own, 1 to 255 printable ASCII characters. Repeat it to repeat the call."),
    ] = None,
) -> IdempotencyKey | None:
    """The request's `Idempotency-Key`, bound to its method, address and body.

    Raises:
        InvalidInput: if the key is empty, too long or not printable ASCII.
    """
    if idempotency_key is None:
        return None
    asked = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode())
    asked.update(await request.body())
    return parse_idempotency_key(idempotency_key, request_sha256=asked.hexdigest())


MayRepeat = Annotated[IdempotencyKey | None, Depends(read_idempotency_key)]
