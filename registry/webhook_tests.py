"""Test messages: one event that never happened, sent to a webhook now, so that its receiver can be tried out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fairlead.core.db import Database, is_dry_run
from fairlead.core.ids import new_row_id
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.audit import AuditEvent
from fairlead.registry.tables_webhooks import WebhookRow
from fairlead.registry.webhook_delivery import Answer, credentials_of, send
from fairlead.registry.webhook_messages import Format, Message, Telling, render_event, to_body
from fairlead.registry.webhooks import find_webhook

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from fairlead.core.outbound import OutboundRules
    from fairlead.registry.identity import Caller
    from fairlead.registry.secret_box import SecretBox

TEST_ACTION = "webhook.test"


class WebhookTests:
    """Sends test messages."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        rules: OutboundRules,
        box: SecretBox,
        formats: Mapping[str, Format],
    ) -> None:
        self._database = database
        self._clock = clock
        self._rules = rules
        self._box = box
        self._formats = formats

    async def send(
        self, caller: Caller, name: str, *, example: Callable[[WebhookRow], Mapping[str, Any]] | None = None
    ) -> Answer:
        """Send a test message once, whatever the webhook's state; its body is an example's, or an event's.

        In a dry run nothing is sent.

        Raises:
            WebhookNotFound: if there is none of that name.
            KeyUnavailable, PermissionDenied: if it cannot be signed, or its credentials are not here.
        """
        row, message, keys = await asyncio.to_thread(self._prepare, caller, name, example)
        if is_dry_run():
            return Answer(status=None, error="A dry run sends nothing.", duration_ms=0)
        headers = self._formats[row.format].sign(message, self._clock.now(), keys)
        headers.update(credentials_of(row, self._rules))
        answer = await send(row.url, message.body, headers, rules=self._rules)
        await asyncio.to_thread(self._record, caller, row.name, answer)
        return answer

    def _prepare(
        self, caller: Caller, name: str, example: Callable[[WebhookRow], Mapping[str, Any]] | None
    ) -> tuple[WebhookRow, Message, list[bytes]]:
        with self._database.read() as session:
            row = find_webhook(session, caller.workspace_id, name)
            members = example(row) if example is not None else self._event(session, caller, row)
        keys = [self._box.open(row.secret, of=row.id)] if row.secret is not None else []
        return row, Message(id=str(new_row_id()), body=to_body(members)), keys

    def _event(self, session: Session, caller: Caller, row: WebhookRow) -> Mapping[str, Any]:
        event = AuditEvent(
            id=str(new_row_id()),
            residency="unrestricted",
            actor=caller.principal,
            action=TEST_ACTION,
            subject=row.name,
            facts={},
            happened_at=self._clock.now(),
            sequence=None,
            previous_hash=None,
            event_hash=None,
        )
        telling = Telling(workspace_id=caller.workspace_id, event=event, events=tuple(row.events), has_facts=True)
        return (self._formats[row.format].render(session, telling) or render_event(session, telling))[0]

    def _record(self, caller: Caller, name: str, answer: Answer) -> None:
        facts = {"status": answer.status, "is_taken": answer.is_taken}
        with self._database.write() as session:
            audit.record(session, caller, self._clock, action=TEST_ACTION, subject=name, facts=facts)
