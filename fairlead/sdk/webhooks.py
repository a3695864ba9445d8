"""Webhooks: where events are sent to as they happen, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from fairlead.core.ids import parse_name
from fairlead.sdk.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook(Record):
    """A webhook; `secret` is set in the answer that made it, and never again."""

    id: str
    name: str
    url: str
    format: str
    events: tuple[str, ...]
    models: str
    environments: str
    state: str
    position: int
    revision: int
    secret: str | None = field(default=None, repr=False)
    description: str = ""
    jurisdiction: str | None = None
    credentials_env: str | None = None
    is_signed: bool = True
    previous_secret_until: datetime | None = None
    state_reason: str | None = None
    attempts: int = 0
    failing_since: datetime | None = None
    created_by: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDelivery(Record):
    """What became of one event at a webhook: PENDING, DELIVERED or DEAD."""

    id: str
    sequence: int
    action: str
    subject: str
    state: str
    attempts: int
    status: int | None = None
    error: str | None = None
    duration_ms: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTest(Record):
    """What the receiver of a test message answered."""

    is_taken: bool
    status: int | None = None
    error: str | None = None
    duration_ms: int = 0
    body: str = ""


class Webhooks:
    """Where events are sent to."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str,
        url: str,
        *,
        events: Sequence[str] = (),
        models: str = "*",
        environments: str = "*",
        format: str = "fairlead",  # noqa: A002  (the field's word)
        description: str = "",
        jurisdiction: str | None = None,
        credentials_env: str | None = None,
        after: int | None = None,
    ) -> Webhook:
        """Send events there from now on, or from after a sequence. Keep the answer's secret: it is told this once.

        Raises:
            AlreadyExists: if the name is taken.
            InvalidInput: if the operator does not let requests go there, or a part is not valid.
        """
        body: dict[str, JsonValue] = {
            "name": name,
            "url": url,
            "events": list(events),
            "models": models,
            "environments": environments,
            "format": format,
            "description": description,
            "jurisdiction": jurisdiction,
            "credentials_env": credentials_env,
            "after": after,
        }
        return Webhook.from_json(self._transport.post("/api/v1/webhooks", body))

    def list(self) -> Iterator[Webhook]:
        """All webhooks by name."""
        return map(Webhook.from_json, self._transport.items("/api/v1/webhooks"))

    def get(self, name: str) -> Webhook:
        """One webhook.

        Raises:
            WebhookNotFound: if there is none of that name.
        """
        return Webhook.from_json(self._transport.get(_path(name)))

    def update(
        self,
        name: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        models: str | None = None,
        environments: str | None = None,
        description: str | None = None,
        is_active: bool | None = None,
        from_now: bool = False,
        revision: int | None = None,
    ) -> Webhook:
        """Change a webhook; `is_active=True` starts one that was disabled again, `from_now` skips what it missed.

        Raises:
            WebhookNotFound: if there is none of that name.
            StaleRevision: if a revision is given and it is not at it.
        """
        body: dict[str, JsonValue] = {
            "url": url,
            "events": None if events is None else list(events),
            "models": models,
            "environments": environments,
            "description": description,
            "is_active": is_active,
            "from_now": from_now,
        }
        return Webhook.from_json(self._transport.request("PATCH", _path(name), body=body, if_match=revision))

    def delete(self, name: str) -> None:
        """Remove a webhook and what is known of its deliveries."""
        self._transport.request("DELETE", _path(name))

    def rotate_secret(self, name: str, *, overlap_seconds: int = 86_400) -> Webhook:
        """Make a new secret, told this once; the old one signs beside it for a while."""
        body: dict[str, JsonValue] = {"overlap_seconds": overlap_seconds}
        answer = self._transport.post(f"{_path(name)}/rotate-secret", body, is_repeatable=False)
        return Webhook.from_json(answer)

    def test(self, name: str) -> WebhookTest:
        """Send an event `webhook.test` now, once, and say what the receiver answered."""
        return WebhookTest.from_json(self._transport.post(f"{_path(name)}/test", is_repeatable=False))

    def deliveries(self, name: str, *, state: str | None = None) -> Iterator[WebhookDelivery]:
        """What became of events, newest first."""
        return map(WebhookDelivery.from_json, self._transport.items(f"{_path(name)}/deliveries", state=state))

    def redeliver(self, name: str, deliveries: Sequence[str] | None = None) -> int:
        """Send these deliveries again, or all dead letters; how many. They go beside the order of events."""
        body: dict[str, JsonValue] = {"deliveries": None if deliveries is None else [*deliveries]}
        return cast("int", self._transport.post(f"{_path(name)}/redeliver", body)["count"])


def _path(name: str) -> str:
    return f"/api/v1/webhooks/{quote(parse_name(name, what='webhook'), safe='')}"
