"""Webhooks: where a workspace's events are sent to as they happen, in what form, and what became of each.

A webhook begins with what happens after it was made. Its secret is answered once and kept encrypted; while it is being
replaced both are used. `registry/webhook_delivery.py` sends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, cast

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from fairlead.catalog import parse_residency
from fairlead.core.db import Database
from fairlead.core.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    JsonValue,
    StaleRevision,
    WebhookDeliveryNotFound,
    WebhookNotFound,
)
from fairlead.core.ids import new_row_id, parse_name
from fairlead.core.outbound import OutboundRules
from fairlead.core.ports import Clock
from fairlead.registry import audit
from fairlead.registry.events import head_of, parse_event_filter
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.limits import DESCRIPTION_MAX_LENGTH, parse_row_id, parse_text
from fairlead.registry.paging import Page, PageRequest
from fairlead.registry.secret_box import SecretBox
from fairlead.registry.tables import WorkspaceRow
from fairlead.registry.tables_webhooks import WebhookDeliveryRow, WebhookRow
from fairlead.registry.webhook_messages import Format, new_secret

ACTIVE, DISABLED = "ACTIVE", "DISABLED"
PENDING, DELIVERED, DEAD = "PENDING", "DELIVERED", "DEAD"
CREDENTIALS_PREFIX = "FAIRLEAD_WEBHOOK_"
WEBHOOKS_MAX = 100
SECRET_MAX_LENGTH = 1_000
_OVERLAP_MAX = timedelta(days=30)
_VARIABLE = re.compile(r"FAIRLEAD_WEBHOOK_[A-Z0-9_]{1,100}")

WebhookState = Literal["ACTIVE", "DISABLED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook; never its secret. `position` is the sequence up to which it was told; see `WebhookRow`."""

    id: str
    name: str
    title: str
    description: str
    url: str
    format: str
    events: tuple[str, ...]
    models: str
    environments: str
    jurisdiction: str | None
    credentials_env: str | None
    is_signed: bool
    previous_secret_until: datetime | None
    state: WebhookState
    state_reason: str | None
    position: int
    attempts: int
    failing_since: datetime | None
    revision: int
    created_by: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDraft:
    """A webhook to make. `events` are patterns of actions (none: all that the format has words for).

    `name` None: its id. `secret` None: a new one. `after` is the sequence that it begins after, None: now.
    """

    name: str | None
    url: str
    format: str = "fairlead"
    events: tuple[str, ...] = ()
    models: str = "*"
    environments: str = "*"
    title: str = ""
    description: str = ""
    jurisdiction: str | None = None
    credentials_env: str | None = None
    secret: str | None = None
    is_signed: bool = True
    is_active: bool = True
    after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookChange:
    """What to change of a webhook; None leaves it as it is.

    To make one active ends its back-off, and `from_now` skips what it was not told of; `secret` is its new one.
    """

    url: str | None = None
    events: tuple[str, ...] | None = None
    models: str | None = None
    environments: str | None = None
    title: str | None = None
    description: str | None = None
    is_active: bool | None = None
    from_now: bool = False
    secret: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of one event at one webhook."""

    id: str
    sequence: int
    action: str
    subject: str
    state: str
    attempts: int
    status: int | None
    error: str | None
    duration_ms: int | None
    created_at: datetime
    updated_at: datetime


class Webhooks:
    """Makes, shows, changes and removes webhooks."""

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

    def create(
        self, caller: Caller, draft: WebhookDraft, *, key: IdempotencyKey | None = None
    ) -> tuple[Webhook, str | None]:
        """Make a webhook; its secret is in this answer alone, if it is signed.

        Raises:
            AlreadyExists: if the name is taken.
            Conflict: if there are as many as there may be, or the call is a repetition and the secret was told.
            InvalidInput: if a part is not valid, or the operator does not let requests go there.
            PermissionDenied: if it names credentials, and the operator does not list its host by name.
        """
        secret = (draft.secret or new_secret()) if draft.is_signed else None
        row = self._row(caller, draft, secret)
        is_new: list[bool] = []

        def create(session: Session) -> Webhook:
            # Two of one name, or one too many, wait for each other here.
            session.get(WorkspaceRow, caller.workspace_id, with_for_update={"key_share": True})
            _check_room(session, row)
            row.position = head_of(session, caller.workspace_id) if draft.after is None else draft.after
            session.add(row)
            session.flush()
            self._audit(session, caller, row, "create")
            is_new.append(True)
            return to_webhook(row)

        with self._database.write() as session:
            made = run_once(session, caller, self._clock, key, result_type=Webhook, action=lambda: create(session))
        if not is_new and made.is_signed:
            raise Conflict(
                f"This call made the webhook {made.name!r} before; its secret was shown then.",
                hint=f"If it was lost, run: fairlead webhook rotate-secret {made.name}",
            )
        return made, secret

    def list(self, caller: Caller, page: PageRequest, *, format_name: str | None = None) -> Page[Webhook]:
        """Webhooks by name."""
        query = select(WebhookRow).where(WebhookRow.workspace_id == caller.workspace_id)
        if format_name is not None:
            query = query.where(WebhookRow.format == format_name)
        with self._database.read() as session:
            listing = ("webhooks", caller.workspace_id, format_name)
            return page.fetch(session, query, [WebhookRow.name], listing=listing).map(to_webhook)

    def get(self, caller: Caller, name: str) -> Webhook:
        """One webhook.

        Raises:
            WebhookNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            return to_webhook(find_webhook(session, caller.workspace_id, name))

    def update(
        self, caller: Caller, name: str, change: WebhookChange, *, expected_revision: int | None = None
    ) -> Webhook:
        """Change a webhook.

        Raises:
            WebhookNotFound: if there is none of that name.
            StaleRevision: if it is not at the expected revision.
            InvalidInput, PermissionDenied: as for `create`.
        """
        with self._database.write() as session:
            row = find_webhook(session, caller.workspace_id, name, lock=True)
            if expected_revision not in {None, row.revision}:
                raise StaleRevision(
                    f"The webhook {name!r} is at revision {row.revision}, not {expected_revision}.",
                    hint=f"See: fairlead webhook show {name}",
                )
            self._apply(session, row, change)
            row.revision += 1
            row.updated_at = self._clock.now()
            session.flush()
            self._audit(session, caller, row, "update")
            return to_webhook(row)

    def rotate_secret(self, caller: Caller, name: str, *, overlap: timedelta) -> tuple[Webhook, str]:
        """Make a new secret. The old one goes on signing beside it for a while, at most 30 days.

        Raises:
            WebhookNotFound: if there is none of that name.
            InvalidInput: if the overlap is out of range.
        """
        if not timedelta(0) <= overlap <= _OVERLAP_MAX:
            raise InvalidInput("Secrets overlap for at most 30 days.", hint="Give a shorter time.")
        secret, now = new_secret(), self._clock.now()
        with self._database.write() as session:
            row = find_webhook(session, caller.workspace_id, name, lock=True)
            row.previous_secret, row.previous_secret_until = row.secret, now + overlap
            row.secret = self._box.seal(secret.encode(), of=row.id)
            row.revision += 1
            row.updated_at = now
            session.flush()
            self._audit(session, caller, row, "rotate-secret")
            return to_webhook(row), secret

    def delete(self, caller: Caller, name: str) -> None:
        """Remove a webhook, and what is known of its deliveries.

        Raises:
            WebhookNotFound: if there is none of that name.
        """
        with self._database.write() as session:
            row = find_webhook(session, caller.workspace_id, name, lock=True)
            session.execute(
                delete(WebhookDeliveryRow).where(
                    WebhookDeliveryRow.workspace_id == row.workspace_id, WebhookDeliveryRow.webhook_id == row.id
                )
            )
            session.delete(row)
            self._audit(session, caller, row, "delete")

    def deliveries(self, caller: Caller, name: str, page: PageRequest, *, state: str | None = None) -> Page[Delivery]:
        """What became of events at a webhook, newest first.

        Raises:
            WebhookNotFound: if there is none of that name.
        """
        with self._database.read() as session:
            row = find_webhook(session, caller.workspace_id, name)
            query = select(WebhookDeliveryRow).where(
                WebhookDeliveryRow.workspace_id == row.workspace_id, WebhookDeliveryRow.webhook_id == row.id
            )
            if state is not None:
                query = query.where(WebhookDeliveryRow.state == state)
            listing = ("webhook-deliveries", row.id, state)
            keys = [WebhookDeliveryRow.sequence]
            return page.fetch(session, query, keys, listing=listing, descending=True).map(_to_delivery)

    def redeliver(self, caller: Caller, name: str, deliveries: Sequence[str] | None = None) -> int:
        """Send events again, all dead letters or those that are named; how many. It goes beside the order of events.

        Raises:
            WebhookNotFound, WebhookDeliveryNotFound: if there is no such thing.
        """
        now = self._clock.now()
        with self._database.write() as session:
            row = find_webhook(session, caller.workspace_id, name, lock=True)
            query = select(WebhookDeliveryRow).where(
                WebhookDeliveryRow.workspace_id == row.workspace_id, WebhookDeliveryRow.webhook_id == row.id
            )
            if deliveries is None:
                found = session.scalars(query.where(WebhookDeliveryRow.state == DEAD)).all()
            else:
                ids = {parse_row_id(each, WebhookDeliveryNotFound, what="delivery") for each in deliveries}
                found = session.scalars(query.where(WebhookDeliveryRow.id.in_(ids))).all()
                missing = ids - {each.id for each in found}
                if missing:
                    raise WebhookDeliveryNotFound(
                        f"The webhook {name!r} has no delivery {min(missing)}.",
                        hint=f"See: fairlead webhook deliveries {name}",
                    )
            resent = [each for each in found if each.sequence <= row.position]
            for each in resent:
                each.state, each.resend_at, each.attempts, each.updated_at = PENDING, now, 0, now
            if resent:
                facts: dict[str, JsonValue] = {"deliveries": len(resent)}
                self._audit(session, caller, row, "redeliver", facts)
            return len(resent)

    def _row(self, caller: Caller, draft: WebhookDraft, secret: str | None) -> WebhookRow:
        row_id, now = str(new_row_id()), self._clock.now()
        if draft.format not in self._formats:
            known = ", ".join(self._formats)
            raise InvalidInput(f"{draft.format[:40]!r} is no form of messages.", hint=f"Choose from: {known}.")
        if draft.credentials_env is not None and not _VARIABLE.fullmatch(draft.credentials_env):
            raise InvalidInput(
                f"{draft.credentials_env[:80]!r} may not hold what is sent to a webhook.",
                hint=f"Give the worker a variable whose name begins with {CREDENTIALS_PREFIX}.",
            )
        where = None
        if draft.jurisdiction is not None:
            where = parse_residency(draft.jurisdiction).upper()
        self._rules.check(draft.url)
        if draft.credentials_env is not None:
            self._rules.require_listed(draft.url)
        wanted = parse_event_filter(actions=draft.events, models=draft.models, environments=draft.environments)
        return WebhookRow(
            workspace_id=caller.workspace_id,
            id=row_id,
            name=row_id if draft.name is None else parse_name(draft.name, what="webhook"),
            title=parse_text(draft.title, what="title", max_length=500),
            description=parse_text(draft.description, what="description", max_length=DESCRIPTION_MAX_LENGTH),
            url=draft.url,
            format=draft.format,
            events=list(wanted.actions or self._formats[draft.format].actions),
            models=wanted.models,
            environments=wanted.environments,
            jurisdiction=where,
            credentials_env=draft.credentials_env,
            secret=None if secret is None else self._seal(secret, row_id),
            state=ACTIVE if draft.is_active else DISABLED,
            attempts=0,
            not_before=now,
            lease_token=0,
            revision=1,
            created_by=caller.principal,
            created_at=now,
            updated_at=now,
        )

    def _apply(self, session: Session, row: WebhookRow, change: WebhookChange) -> None:
        if change.url is not None:
            self._rules.check(change.url)
            if row.credentials_env is not None:
                self._rules.require_listed(change.url)
            row.url = change.url
        wanted = parse_event_filter(
            actions=row.events if change.events is None else change.events,
            models=row.models if change.models is None else change.models,
            environments=row.environments if change.environments is None else change.environments,
        )
        row.events = list(wanted.actions or self._formats[row.format].actions)
        row.models, row.environments = wanted.models, wanted.environments
        if change.title is not None:
            row.title = parse_text(change.title, what="title", max_length=500)
        if change.description is not None:
            row.description = parse_text(change.description, what="description", max_length=DESCRIPTION_MAX_LENGTH)
        if change.secret is not None:
            row.secret = self._seal(change.secret, row.id)
            row.previous_secret = row.previous_secret_until = None
        if change.is_active is not None:
            row.state, row.state_reason = (ACTIVE if change.is_active else DISABLED), None
            row.attempts, row.failing_since, row.not_before = 0, None, self._clock.now()
        if change.from_now:
            row.position, row.attempts = head_of(session, row.workspace_id), 0

    def _seal(self, secret: str, row_id: str) -> bytes:
        text = parse_text(secret, what="secret", max_length=SECRET_MAX_LENGTH)
        return self._box.seal(text.encode(), of=row_id)

    def _audit(
        self,
        session: Session,
        caller: Caller,
        row: WebhookRow,
        action: str,
        facts: Mapping[str, JsonValue] | None = None,
    ) -> None:
        about: dict[str, JsonValue] = {
            "url": row.url,
            "format": row.format,
            "state": row.state,
            "events": [*row.events],
        }
        subject = row.name
        audit.record(session, caller, self._clock, action=f"webhook.{action}", subject=subject, facts=facts or about)


def find_webhook(session: Session, workspace_id: str, name: str, *, lock: bool = False) -> WebhookRow:
    """The row of a webhook.

    Raises:
        WebhookNotFound: if there is none of that name.
    """
    query = select(WebhookRow).where(
        WebhookRow.workspace_id == workspace_id, WebhookRow.name == parse_name(name, what="webhook")
    )
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise WebhookNotFound(f"There is no webhook {name[:80]!r}.", hint="List them: fairlead webhook list")
    return row


def to_webhook(row: WebhookRow) -> Webhook:
    """A webhook, as its row says."""
    return Webhook(
        id=row.id,
        name=row.name,
        title=row.title,
        description=row.description,
        url=row.url,
        format=row.format,
        events=tuple(row.events),
        models=row.models,
        environments=row.environments,
        jurisdiction=row.jurisdiction,
        credentials_env=row.credentials_env,
        is_signed=row.secret is not None,
        previous_secret_until=row.previous_secret_until,
        state=cast("WebhookState", row.state),
        state_reason=row.state_reason,
        position=row.position,
        attempts=row.attempts,
        failing_since=row.failing_since,
        revision=row.revision,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _check_room(session: Session, row: WebhookRow) -> None:
    mine = WebhookRow.workspace_id == row.workspace_id
    if session.scalar(select(func.count()).select_from(WebhookRow).where(mine)) == WEBHOOKS_MAX:
        raise Conflict(f"There are {WEBHOOKS_MAX} webhooks already.", hint="Remove one: fairlead webhook delete NAME")
    if session.scalar(select(WebhookRow.id).where(mine, WebhookRow.name == row.name)) is not None:
        raise AlreadyExists(f"There is a webhook {row.name!r} already.", hint=f"See: fairlead webhook show {row.name}")


def _to_delivery(row: WebhookDeliveryRow) -> Delivery:
    return Delivery(
        id=row.id,
        sequence=row.sequence,
        action=row.action,
        subject=row.subject,
        state=row.state,
        attempts=row.attempts,
        status=row.status,
        error=row.error,
        duration_ms=row.duration_ms,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
