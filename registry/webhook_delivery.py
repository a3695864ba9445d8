"""Sends events to webhooks: at least once, and in the order of their sequence.

Each webhook keeps the sequence up to which it was told, so what waits for it needs no rows of its own. One process at a
time sends to a webhook, under a lease with a fencing token; it sends one event after the other, and records the answer
before it sends the next. Killed between the two, it or another sends that event again, under the same id.

An event that was not taken holds back those after it while it is tried again, with a back-off that doubles to five
minutes. A receiver that is *away* (no connection, no answer in time, 408, 425, 429, 502, 503, 504) is waited for, until
it has been failing for the operator's patience; then the webhook is disabled. One that *refuses* an event (any other
answer but 2xx) is asked eight times; then the event is a dead letter, and the next one's turn comes. 410 disables the
webhook at once. What somebody has sent again goes beside this order.

One thread sends to all webhooks at once; none is held by a receiver that is slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import FairleadError, JsonValue, LeaseLost, PermissionDenied
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.audit import AuditEvent, to_event
from fairlead.registry.events import EventFilter, head_of, read_events
from fairlead.registry.identity import system_caller
from fairlead.registry.tables import AuditEventRow
from fairlead.registry.tables_webhooks import WebhookDeliveryRow, WebhookRow
from fairlead.registry.webhook_messages import Format, Message, Telling, may_hold_facts, message_id, to_body
from fairlead.registry.webhooks import ACTIVE, DEAD, DELIVERED, DISABLED, PENDING
from fairlead.registry.work import LONGEST_RETRY, retry_delay

if TYPE_CHECKING:
    from fairlead.core.outbound import OutboundRules
    from fairlead.registry.secret_box import SecretBox

ATTEMPTS_MAX = 8
"""How often an event that its receiver refuses is sent before it is a dead letter."""

ANSWER_MAX_BYTES = 4 * 2**10
KEPT_FOR = timedelta(days=30)
"""How long what was delivered is remembered; dead letters stay."""

PATIENCE = timedelta(days=5)
_TIMEOUT_SECONDS = 10.0
_LEASE = timedelta(seconds=60)
_POLL_SECONDS = 1.0
_AT_ONCE = 64
_SKIPPED_MAX = 200
_FORGET_EVERY = 64
_RETRY_AFTER_MAX = timedelta(hours=1)
_AWAY = frozenset({408, 425, 429, 502, 503, 504})
_GONE = 410
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a receiver answered. `status` None: nothing; `error` None: it took the event."""

    status: int | None
    error: str | None
    duration_ms: int
    retry_after: timedelta | None = None
    body: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether the event was delivered."""
        return self.error is None

    @property
    def is_away(self) -> bool:
        """Whether it is the receiver that is not there, rather than the event that it does not want."""
        return self.error is not None and (self.status is None or self.status in _AWAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lease:
    workspace_id: str
    webhook_id: str
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One event to send. `delivery_id` is set where it is sent again; headers need the time, and come later."""

    event: AuditEvent
    url: str
    messages: tuple[Message, ...]
    headers: Callable[[Message, datetime], dict[str, str]]
    delivery_id: str | None


async def send(
    url: str, body: bytes, headers: Mapping[str, str], *, rules: OutboundRules, tls: ssl.SSLContext | None = None
) -> Answer:
    """POST one message, within ten seconds in all; no redirect is followed, and little of the answer is read."""
    import httpx2

    from fairlead.core.outbound_http import AsyncPinnedTransport

    began = time.monotonic()

    def answer(error: str | None, status: int | None = None, retry_after: str = "", text: str = "") -> Answer:
        duration = round((time.monotonic() - began) * 1000)
        wait = timedelta(seconds=int(retry_after)) if retry_after.isdecimal() and len(retry_after) < 6 else None
        return Answer(status=status, error=error, duration_ms=duration, retry_after=wait, body=text)

    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            destination = await rules.resolve_async(url)
            transport = AsyncPinnedTransport(destination, verify=True if tls is None else tls)
            async with (
                httpx2.AsyncClient(
                    transport=transport, timeout=_TIMEOUT_SECONDS, follow_redirects=False, trust_env=False
                ) as client,
                client.stream("POST", url, content=body, headers=dict(headers)) as response,
            ):
                text = b""
                async for piece in response.aiter_raw():
                    text += piece
                    if len(text) >= ANSWER_MAX_BYTES:
                        break
                status = response.status_code
                error = None if 200 <= status < 300 else f"The receiver answered {status}."
                shown = text[:ANSWER_MAX_BYTES].decode("utf-8", "replace")
                return answer(error, status, response.headers.get("retry-after", ""), shown)
    except TimeoutError:
        return answer(f"The receiver did not answer within {_TIMEOUT_SECONDS:g} seconds.")
    except FairleadError as error:
        return answer(error.detail)
    except httpx2.HTTPError as error:
        return answer(f"The receiver does not answer ({type(error).__name__}).")


class Deliverer:
    """Sends what was sealed to the webhooks of every workspace, until it is told to stop."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        rules: OutboundRules,
        box: SecretBox,
        formats: Mapping[str, Format],
        patience: timedelta = PATIENCE,
    ) -> None:
        self._database = database
        self._clock = clock
        self._rules = rules
        self._box = box
        self._formats = formats
        self._patience = patience
        # Up to where nothing was wanted; the record is told of it now and then.
        self._looked_through: dict[str, int] = {}
        self._tls: ssl.SSLContext | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake_up: asyncio.Event | None = None
        self._running: dict[str, asyncio.Task[int]] = {}

    def start(self) -> None:
        """Start the thread; returns at once."""
        self._stopping.clear()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="fairlead-webhooks", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread. What is being sent is sent again by the next one."""
        self._stopping.set()
        self.wake()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def wake(self) -> None:
        """Look at once, because events were sealed."""
        loop, wake_up = self._loop, self._wake_up
        if loop is not None and wake_up is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(wake_up.set)

    @property
    def is_busy(self) -> bool:
        """Whether something is being sent."""
        return bool(self._running)

    async def run_once(self) -> int:
        """Send all that is due now; how many messages were sent. For tests and one-shot commands."""
        leases = await asyncio.to_thread(self._lease_due)
        return sum(await asyncio.gather(*(self._drain(lease) for lease in leases)))

    async def _serve(self) -> None:
        self._loop, self._wake_up = asyncio.get_running_loop(), asyncio.Event()
        try:
            while not self._stopping.is_set():
                self._wake_up.clear()
                try:
                    for lease in await asyncio.to_thread(self._lease_due):
                        task = asyncio.create_task(self._drain(lease))
                        self._running[lease.webhook_id] = task
                        task.add_done_callback(lambda _, key=lease.webhook_id: self._running.pop(key, None))
                except Exception:  # noqa: BLE001  (the loop goes on)
                    _log.exception("could not look for what is to be delivered")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake_up.wait(), _POLL_SECONDS)
            for task in self._running.values():
                task.cancel()
        finally:
            self._loop = self._wake_up = None

    def _lease_due(self) -> list[_Lease]:
        """Take the webhooks that have something to be sent and that nobody sends to."""
        now = self._clock.now()
        with self._database.read() as session:
            free = or_(WebhookRow.lease_expires_at.is_(None), WebhookRow.lease_expires_at <= now)
            rows = session.scalars(select(WebhookRow).where(WebhookRow.state == ACTIVE, free)).all()
            heads = {workspace: head_of(session, workspace) for workspace in {row.workspace_id for row in rows}}
            due = [row for row in rows if self._is_due(session, row, heads[row.workspace_id], now)]
        leases: list[_Lease] = []
        for row in due[: _AT_ONCE - len(self._running)]:
            with self._database.write() as session:
                taken = session.execute(
                    update(WebhookRow)
                    .where(
                        WebhookRow.workspace_id == row.workspace_id,
                        WebhookRow.id == row.id,
                        WebhookRow.lease_token == row.lease_token,
                    )
                    .values(lease_token=row.lease_token + 1, lease_expires_at=now + _LEASE)
                    .returning(WebhookRow.id)
                ).first()
            if taken is not None:
                leases.append(_Lease(workspace_id=row.workspace_id, webhook_id=row.id, token=row.lease_token + 1))
        return leases

    def _is_due(self, session: Session, row: WebhookRow, head: int, now: datetime) -> bool:
        if self._resend(session, row, now) is not None:
            return True
        start = max(row.position, self._looked_through.get(row.id, 0))
        if row.not_before > now or head <= start:
            return False
        page = read_events(session, row.workspace_id, self._wanted(row), after=start, limit=1)
        if not page.events and page.position - row.position < _SKIPPED_MAX:
            self._looked_through[row.id] = page.position
            return False
        return True

    async def _drain(self, lease: _Lease) -> int:
        sent = 0
        try:
            while True:
                job = await asyncio.to_thread(self._next, lease)
                if job is None:
                    return sent
                if self._tls is None:
                    # Reading the certificates takes longer than most deliveries.
                    self._tls = await asyncio.to_thread(ssl.create_default_context)
                answer = Answer(status=None, error=None, duration_ms=0)
                for message in job.messages:
                    headers = job.headers(message, self._clock.now())
                    answer = await send(job.url, message.body, headers, rules=self._rules, tls=self._tls)
                    sent += 1
                    if not answer.is_taken:
                        break
                await asyncio.to_thread(self._record, lease, job, answer)
        except LeaseLost:
            return sent
        except FairleadError as error:
            # It cannot be signed here, or this process lacks its credentials.
            _log.warning("webhook %s: %s", lease.webhook_id, error)
            await asyncio.to_thread(self._hold_back, lease, error)
            return sent
        except Exception:  # noqa: BLE001  (the lease expires, and it is tried again)
            _log.exception("could not deliver to the webhook %s", lease.webhook_id)
            return sent

    def _next(self, lease: _Lease) -> _Job | None:
        """What is to be sent next; where there is nothing, the lease is given back."""
        now = self._clock.now()
        with self._database.write() as session:
            row = _held(session, lease)
            resend = self._resend(session, row, now) if row.state == ACTIVE else None
            if resend is not None:
                event = session.scalars(
                    select(AuditEventRow).where(
                        AuditEventRow.workspace_id == row.workspace_id, AuditEventRow.sequence == resend.sequence
                    )
                ).one()
                job = self._job(session, row, to_event(event), resend.id)
                if job is not None:
                    return job
                session.delete(resend)
            while row.state == ACTIVE and row.not_before <= now:
                page = read_events(session, row.workspace_id, self._wanted(row), after=row.position, limit=1)
                event = page.events[0] if page.events else None
                job = None if event is None else self._job(session, row, event, None)
                if job is not None:
                    return job
                row.position = page.position
                if event is None and page.is_last:
                    break
            row.lease_expires_at = None
            return None

    def _job(self, session: Session, row: WebhookRow, event: AuditEvent, delivery_id: str | None) -> _Job | None:
        form = self._formats[row.format]
        has_facts = may_hold_facts(event, row.jurisdiction)
        bodies = form.render(
            session,
            Telling(workspace_id=row.workspace_id, event=event, events=tuple(row.events), has_facts=has_facts),
        )
        if not bodies:
            return None
        messages = [
            Message(id=message_id(row.id, event.id, index), body=to_body(body)) for index, body in enumerate(bodies)
        ]
        keys = [self._box.open(row.secret, of=row.id)] if row.secret is not None else []
        is_overlapping = row.previous_secret_until is not None and row.previous_secret_until > self._clock.now()
        if row.previous_secret is not None and is_overlapping:
            keys.append(self._box.open(row.previous_secret, of=row.id))
        credentials = credentials_of(row, self._rules)

        def headers(message: Message, now: datetime) -> dict[str, str]:
            return {**form.sign(message, now, keys), **credentials}

        return _Job(event=event, url=row.url, messages=tuple(messages), headers=headers, delivery_id=delivery_id)

    def _wanted(self, row: WebhookRow) -> EventFilter:
        form = self._formats[row.format]
        actions = form.actions if form.has_own_words else tuple(row.events)
        return EventFilter(actions=actions, models=row.models, environments=row.environments)

    def _resend(self, session: Session, row: WebhookRow, now: datetime) -> WebhookDeliveryRow | None:
        return session.scalars(
            select(WebhookDeliveryRow)
            .where(
                WebhookDeliveryRow.workspace_id == row.workspace_id,
                WebhookDeliveryRow.webhook_id == row.id,
                WebhookDeliveryRow.state == PENDING,
                WebhookDeliveryRow.resend_at <= now,
            )
            .order_by(WebhookDeliveryRow.sequence)
            .limit(1)
        ).first()

    def _record(self, lease: _Lease, job: _Job, answer: Answer) -> None:
        """Record what a receiver answered, and what that means for the webhook."""
        now = self._clock.now()
        with self._database.write() as session:
            row = _held(session, lease)
            row.lease_expires_at = now + _LEASE
            delivery = _delivery(session, row, job, now)
            delivery.attempts += 1
            delivery.status, delivery.error = answer.status, answer.error
            delivery.duration_ms, delivery.updated_at = answer.duration_ms, now
            is_in_order = job.delivery_id is None
            wait = min(answer.retry_after or timedelta(0), _RETRY_AFTER_MAX)
            next_try = now + max(wait, retry_delay(delivery.attempts))
            if answer.is_taken:
                delivery.state, delivery.resend_at = DELIVERED, None
                row.failing_since = row.state_reason = None
            elif delivery.attempts >= ATTEMPTS_MAX and not (is_in_order and answer.is_away):
                delivery.state, delivery.resend_at = DEAD, None
                row.failing_since = row.failing_since or now
            else:
                delivery.state, delivery.resend_at = PENDING, None if is_in_order else next_try
                row.failing_since = row.failing_since or now
            if is_in_order and delivery.state == PENDING:
                row.attempts, row.not_before = delivery.attempts, next_try
            elif is_in_order:
                row.attempts, row.position = 0, job.event.sequence or row.position
                if row.position % _FORGET_EVERY == 0:
                    _forget_old(session, row, now)
            self._disable_if_hopeless(session, row, answer, now)

    def _hold_back(self, lease: _Lease, error: FairleadError) -> None:
        """Wait with a webhook that nothing can be sent to from here, and say why."""
        now = self._clock.now()
        with contextlib.suppress(LeaseLost), self._database.write() as session:
            row = _held(session, lease)
            row.state_reason, row.lease_expires_at = error.detail, None
            row.failing_since, row.not_before = row.failing_since or now, now + LONGEST_RETRY

    def _disable_if_hopeless(self, session: Session, row: WebhookRow, answer: Answer, now: datetime) -> None:
        if answer.status == _GONE:
            reason = "The receiver answered 410: it wants nothing more."
        elif row.failing_since is not None and now - row.failing_since >= self._patience:
            reason = f"Nothing was delivered since {row.failing_since:%Y-%m-%d %H:%M} UTC. {answer.error or ''}".strip()
        else:
            return
        row.state, row.state_reason, row.lease_expires_at = DISABLED, reason, None
        row.revision += 1
        row.updated_at = now
        facts: dict[str, JsonValue] = {"url": row.url, "reason": reason, "position": row.position}
        caller = system_caller(row.workspace_id, "webhooks")
        audit.record_at(session, caller, now, action="webhook.disable", subject=row.name, facts=facts)


def release_leases(database: Database) -> None:
    """Free what a killed process was sending, for one that owns the database alone."""
    with database.write() as session:
        session.execute(
            update(WebhookRow).where(WebhookRow.lease_expires_at.is_not(None)).values(lease_expires_at=None)
        )


def _held(session: Session, lease: _Lease) -> WebhookRow:
    row = session.get(WebhookRow, (lease.workspace_id, lease.webhook_id), with_for_update=True)
    if row is None or row.lease_token != lease.token:
        raise LeaseLost(f"The lease of the webhook {lease.webhook_id} is lost.", hint="Another process sends to it.")
    return row


def _delivery(session: Session, row: WebhookRow, job: _Job, now: datetime) -> WebhookDeliveryRow:
    of_event = and_(
        WebhookDeliveryRow.workspace_id == row.workspace_id,
        WebhookDeliveryRow.webhook_id == row.id,
        WebhookDeliveryRow.sequence == job.event.sequence,
    )
    found = session.scalars(select(WebhookDeliveryRow).where(of_event)).one_or_none()
    if found is None:
        found = WebhookDeliveryRow(
            workspace_id=row.workspace_id,
            webhook_id=row.id,
            sequence=job.event.sequence or 0,
            action=job.event.action,
            subject=job.event.subject,
            state=PENDING,
            attempts=0,
            created_at=now,
            updated_at=now,
        )
        session.add(found)
    return found


def _forget_old(session: Session, row: WebhookRow, now: datetime) -> None:
    session.execute(
        delete(WebhookDeliveryRow).where(
            WebhookDeliveryRow.workspace_id == row.workspace_id,
            WebhookDeliveryRow.webhook_id == row.id,
            WebhookDeliveryRow.state == DELIVERED,
            WebhookDeliveryRow.created_at <= now - KEPT_FOR,
        ),
        execution_options={"synchronize_session": False},
    )


def credentials_of(row: WebhookRow, rules: OutboundRules) -> dict[str, str]:
    """The header that carries what the variable that a webhook names holds in this process.

    Raises:
        PermissionDenied: if it holds nothing, or may not be sent to the webhook's host.
    """
    variable = row.credentials_env
    if variable is None:
        return {}
    rules.require_listed(row.url)
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise PermissionDenied(f"This process has no credentials {variable}.", hint="Set it and start it again.")
    return {"authorization": f"Bearer {secret}"}
