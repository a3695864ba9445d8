"""What the routes of signed addresses take and answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead.registry.wire import AnswerModel, RequestModel, Time
from fairlead.sync.storage_access import KEYS_AT_ONCE
from fairlead.sync.store.presigning import Verb


class ReadAddressesRequest(RequestModel):
    """Where the artifact shall be read."""

    location: Annotated[str, Field(min_length=1, max_length=255)]


class UploadAddressesRequest(RequestModel):
    """Which objects, and what shall be done with them. `write` creates; nothing is ever overwritten."""

    verb: Verb
    keys: Annotated[list[str], Field(min_length=1, max_length=KEYS_AT_ONCE)]


class AddressAnswer(AnswerModel):
    """A request that anybody may send, with these headers, until `expires_at`."""

    key: str
    verb: Verb
    method: str
    url: str
    headers: dict[str, str]
    expires_at: Time


class AddressesAnswer(AnswerModel):
    """Signed requests; none for a rehearsal."""

    addresses: list[AddressAnswer]


class ObjectAnswer(AnswerModel):
    """An object's key and its size in bytes."""

    key: str
    size: int


class ObjectsAnswer(AnswerModel):
    """Objects in the order of their keys."""

    objects: list[ObjectAnswer]
