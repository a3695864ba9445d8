"""Webhooks as MLflow's client makes and sees them. They are ours, with MLflow's events, payloads and headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fairlead.core.errors import InvalidInput, WebhookNotFound
from fairlead.registry.identity import Caller
from fairlead.registry.mlflow.records import Wire, to_millis
from fairlead.registry.mlflow.webhook_messages import EVENTS, example_payload, to_mlflow_body
from fairlead.registry.paging import PageRequest
from fairlead.registry.tables_webhooks import WebhookRow
from fairlead.registry.webhook_tests import WebhookTests
from fairlead.registry.webhooks import ACTIVE, Webhook, WebhookChange, WebhookDraft, Webhooks

MLFLOW = "mlflow"
PAGE_SIZE = 100
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_STATES = ("ACTIVE", "DISABLED")


class MlflowWebhooks:
    """Makes, shows, changes and tests webhooks in MLflow's form; others are not seen here."""

    def __init__(self, webhooks: Webhooks, tests: WebhookTests) -> None:
        self._webhooks = webhooks
        self._tests = tests

    def create(
        self,
        caller: Caller,
        *,
        name: str,
        url: str,
        events: Sequence[dict[str, Any]],
        description: str | None,
        secret: str | None,
        status: str | None,
    ) -> Wire:
        """Make a webhook; without a secret its messages are not signed.

        Raises:
            InvalidInput: if a part is not valid, or the operator does not let requests go there.
        """
        draft = WebhookDraft(
            name=None,
            title=_parse_name(name),
            url=url,
            format=MLFLOW,
            events=_parse_events(events),
            description=description or "",
            secret=secret or None,
            is_signed=bool(secret),
            is_active=_parse_status(status) is not False,
        )
        return _render(self._webhooks.create(caller, draft)[0])

    def get(self, caller: Caller, webhook_id: str) -> Wire:
        """One webhook.

        Raises:
            WebhookNotFound: if there is none of that id.
        """
        return _render(self._find(caller, webhook_id))

    def list(self, caller: Caller, *, max_results: int | None, page_token: str | None) -> tuple[list[Wire], str | None]:
        """A page of webhooks."""
        page = PageRequest(size=max_results or PAGE_SIZE, token=page_token or None)
        found = self._webhooks.list(caller, page, format_name=MLFLOW)
        return [_render(each) for each in found.items], found.next_page_token

    def update(
        self,
        caller: Caller,
        webhook_id: str,
        *,
        name: str | None,
        url: str | None,
        events: Sequence[dict[str, Any]],
        description: str | None,
        secret: str | None,
        status: str | None,
    ) -> Wire:
        """Change a webhook; what is not given stays.

        Raises:
            WebhookNotFound: if there is none of that id.
            InvalidInput: as for `create`.
        """
        found = self._find(caller, webhook_id)
        change = WebhookChange(
            title=_parse_name(name) if name else None,
            url=url or None,
            events=_parse_events(events) if events else None,
            description=description,
            secret=secret or None,
            is_active=_parse_status(status),
        )
        return _render(self._webhooks.update(caller, found.name, change))

    def delete(self, caller: Caller, webhook_id: str) -> None:
        """Remove a webhook.

        Raises:
            WebhookNotFound: if there is none of that id.
        """
        self._webhooks.delete(caller, self._find(caller, webhook_id).name)

    async def test(self, caller: Caller, webhook_id: str, event: dict[str, Any] | None) -> Wire:
        """Send an example of an event, the first that the webhook asks for if none is given.

        Raises:
            WebhookNotFound: if there is none of that id.
            InvalidInput: if there is no such event.
        """
        wanted = _parse_events([event])[0] if event else None

        def example(row: WebhookRow) -> dict[str, Any]:
            _require_mlflow(row.format, webhook_id)
            name = wanted or row.events[0]
            return to_mlflow_body(name, example_payload(name), row.updated_at)

        answer = await self._tests.send(caller, webhook_id, example=example)
        shown: Wire = {"success": answer.is_taken}
        if answer.status is not None:
            return {**shown, "response_status": answer.status, "response_body": answer.body}
        return {**shown, "error_message": f"Failed to test webhook: {answer.error}"}

    def _find(self, caller: Caller, webhook_id: str) -> Webhook:
        found = self._webhooks.get(caller, webhook_id)
        _require_mlflow(found.format, webhook_id)
        return found


def _require_mlflow(form: str, webhook_id: str) -> None:
    if form != MLFLOW:
        raise WebhookNotFound(f"Webhook with ID {webhook_id[:80]} not found.")


def _parse_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"Webhook name {name[:80]!r} is invalid.",
            hint="It holds at most 63 letters, digits, dots, underscores and hyphens, at both ends a letter or digit.",
        )
    return name


def _parse_status(status: str | None) -> bool | None:
    if status is None or status == "":
        return None
    if status not in _STATES:
        raise InvalidInput(f"Webhook status {status[:40]!r} is invalid.", hint="Use ACTIVE or DISABLED.")
    return status == ACTIVE


def _parse_events(events: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    names = tuple(f"{str(each.get('entity')).lower()}.{str(each.get('action')).lower()}" for each in events)
    unknown = [name for name in names if name not in EVENTS]
    if unknown or not names:
        wrong = f"Invalid webhook event {unknown[0][:80]!r}" if unknown else "Webhook events cannot be empty"
        raise InvalidInput(f"{wrong}.", hint=f"Choose from: {', '.join(EVENTS)}.")
    return tuple(dict.fromkeys(names))


def _render(webhook: Webhook) -> Wire:
    shown: Wire = {
        "webhook_id": webhook.id,
        "name": webhook.title,
        "url": webhook.url,
        "events": [
            {"entity": entity.upper(), "action": action.upper()}
            for entity, _, action in (event.partition(".") for event in webhook.events)
        ],
        "status": webhook.state,
        "creation_timestamp": to_millis(webhook.created_at),
        "last_updated_timestamp": to_millis(webhook.updated_at),
    }
    return {**shown, "description": webhook.description} if webhook.description else shown
