"""What a webhook is sent: the body, in the form that its receiver reads, and the headers that sign it.

The usual form follows the Standard Webhooks: the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`,
which is `v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`. While a secret is being replaced there are two
of them, and either convinces. A message keeps its id however often it is sent; a receiver that has seen it may drop
it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

from sqlalchemy.orm import Session

from fairlead.catalog import permits
from fairlead.catalog.residency import Residency
from fairlead.core.clock import format_time
from fairlead.registry.audit import AuditEvent
from fairlead.registry.events import event_environment, event_model

VERSION = version("fairlead")
SECRET_PREFIX = "whsec_"  # noqa: S105  (what every secret begins with)
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message, not signed yet."""

    id: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """An event that a webhook is to be told of; `events` is what it wants, in its format's words.

    `has_facts` says whether the event's facts may be sent to where its receiver is.
    """

    workspace_id: str
    event: AuditEvent
    events: tuple[str, ...]
    has_facts: bool


Render = Callable[[Session, Telling], Sequence[Mapping[str, Any]]]
"""The bodies that tell of an event, in order; none where the format has no words for it."""

Sign = Callable[[Message, datetime, Sequence[bytes]], dict[str, str]]
"""The headers that go with a message sent at a time, signed with each of the secrets; without any: not signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A form of messages. `actions` are patterns of the audit events that it has words for.

    Where it has words of its own for events, what a webhook wants is in those words (`has_own_words`), and all that it
    has words for is looked at.
    """

    actions: tuple[str, ...]
    has_own_words: bool = False
    render: Render
    sign: Sign


def message_id(webhook_id: str, event_id: str, index: int) -> str:
    """The id of the n-th message that tells one webhook of one event: always the same one."""
    return str(uuid.uuid5(uuid.UUID(webhook_id), f"{event_id}/{index}"))


def to_body(members: Mapping[str, Any]) -> bytes:
    """A body as the bytes that are signed and sent."""
    return json.dumps(members, separators=(",", ":")).encode()


def new_secret() -> str:
    """A secret as its receiver is told it: `whsec_` and the base64 of 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def may_hold_facts(event: AuditEvent, jurisdiction: str | None) -> bool:
    """Whether an event's facts may be sent to a receiver that is, as an admin says, in a jurisdiction."""
    return event.residency == "unrestricted" or (
        jurisdiction is not None and permits(Residency(event.residency), jurisdiction)
    )


def render_event(_session: Session, telling: Telling) -> Sequence[Mapping[str, Any]]:
    """An event as it is in the audit log; `facts` is null where they may not leave their jurisdiction."""
    event = telling.event
    body = {
        "type": event.action,
        "timestamp": format_time(event.happened_at),
        "data": {
            "id": event.id,
            "workspace": telling.workspace_id,
            "sequence": event.sequence,
            "residency": event.residency,
            "actor": event.actor,
            "action": event.action,
            "subject": event.subject,
            "model": event_model(event),
            "environment": event_environment(event),
            "facts": dict(event.facts) if telling.has_facts else None,
            "happened_at": format_time(event.happened_at),
            "event_hash": event.event_hash,
        },
    }
    return [body]


def sign_standard(message: Message, now: datetime, keys: Sequence[bytes]) -> dict[str, str]:
    """The headers of the Standard Webhooks."""
    timestamp = str(int(now.timestamp()))
    headers = {
        "content-type": "application/json",
        "user-agent": f"fairlead/{VERSION}",
        "webhook-id": message.id,
        "webhook-timestamp": timestamp,
    }
    if keys:
        headers["webhook-signature"] = " ".join(
            signature(base64.b64decode(key.decode().removeprefix(SECRET_PREFIX)), message, timestamp) for key in keys
        )
    return headers


def signature(key: bytes, message: Message, timestamp: str) -> str:
    """`v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`."""
    signed = f"{message.id}.{timestamp}.".encode() + message.body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


EVENT_FORMAT = Format(actions=("*",), render=render_event, sign=sign_standard)
