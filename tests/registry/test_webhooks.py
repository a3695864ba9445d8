"""Webhooks: told of every event at least once and in order, signed, by a sender that nobody can turn on others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from fairlead.core.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    KeyUnavailable,
    PermissionDenied,
    StaleRevision,
    WebhookNotFound,
)
from fairlead.core.outbound import OutboundRules
from fairlead.registry import webhook_delivery
from fairlead.registry.audit import AuditLog, Sealer, record
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.paging import PageRequest
from fairlead.registry.secret_box import SecretBox
from fairlead.registry.tables_webhooks import WebhookRow
from fairlead.registry.webhook_assembly import FORMATS
from fairlead.registry.webhook_delivery import ATTEMPTS_MAX, Deliverer, credentials_of
from fairlead.registry.webhook_tests import WebhookTests
from fairlead.registry.webhooks import Delivery, Webhook, WebhookChange, WebhookDraft, Webhooks
from tests.record_world import World
from tests.servers.webhook_receiver import Received, Receiver, status, webhook_receiver

RULES = OutboundRules(setting="FAIRLEAD_WEBHOOK_HOSTS", hosts=("127.0.0.1", "hooks.example.org"))
BOX = SecretBox(lambda: [b"k" * 32])


@pytest.fixture(scope="module")
def shared_receiver() -> Iterator[Receiver]:
    with webhook_receiver() as receiver:
        yield receiver


@dataclass(slots=True, kw_only=True)
class Stage:
    """Webhooks over a record, one process that sends, and a receiver."""

    world: World
    receiver: Receiver
    rules: OutboundRules = RULES
    deliverer: Deliverer = field(init=False)

    def __post_init__(self) -> None:
        self.deliverer = self.another()

    def another(self, **settings: Any) -> Deliverer:
        """One more process that sends."""
        return Deliverer(self.world.database, self.world.clock, rules=self.rules, box=BOX, formats=FORMATS, **settings)

    @property
    def webhooks(self) -> Webhooks:
        return Webhooks(self.world.database, self.world.clock, rules=self.rules, box=BOX, formats=FORMATS)

    def create(self, name: str = "hook", **draft: Any) -> str:
        """A webhook at the receiver; its secret."""
        self.seal()
        wanted: dict[str, Any] = {"name": name, "url": self.receiver.url, "events": ("version.step-*",), **draft}
        made = WebhookDraft(**wanted)
        return self.webhooks.create(self.world.owner, made)[1] or ""

    def note(self, *actions: str, residency: str = "unrestricted", **facts: Any) -> None:
        """Let something happen, and seal it."""
        with self.world.database.write() as session:
            for action in actions:
                record(
                    session,
                    self.world.owner,
                    self.world.clock,
                    action=action,
                    subject="churn/1",
                    residency=residency,
                    facts=facts,
                )
        self.seal()

    def seal(self) -> None:
        Sealer(self.world.database, self.world.clock).seal_once()

    def deliver(self, *, after: timedelta = timedelta(0), by: Deliverer | None = None) -> int:
        """Send what is due."""
        self.world.clock.advance(after)
        return asyncio.run((by or self.deliverer).run_once())

    def show(self, name: str = "hook") -> Webhook:
        return self.webhooks.get(self.world.owner, name)

    def deliveries(self, name: str = "hook", **wanted: Any) -> list[Delivery]:
        """Oldest first."""
        found = self.webhooks.deliveries(self.world.owner, name, PageRequest(), **wanted)
        return list(reversed(found.items))

    def actions(self) -> list[str]:
        self.seal()
        return [event.action for event in AuditLog(self.world.database).list(self.world.owner, PageRequest()).items]


@pytest.fixture
def stage(world: World, shared_receiver: Receiver) -> Stage:
    shared_receiver.received.clear()
    shared_receiver.replies.clear()
    shared_receiver.usual = status(204)
    with world.database.write() as session:
        # Other tests' workspaces share the database.
        for row in session.query(WebhookRow).all():
            row.state = "DISABLED"
    return Stage(world=world, receiver=shared_receiver)


def is_signed(received: Received, secret: str) -> bool:
    """What a receiver does that follows the Standard Webhooks."""
    headers = received.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + received.body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    right = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return right in headers["webhook-signature"].split(" ")


def test_events_are_delivered_signed_and_in_order_from_when_the_webhook_was_made(stage: Stage) -> None:
    stage.note("version.step-before")
    secret = stage.create()
    stage.note("version.step-1", "other.thing", "version.step-2", "version.step-3", environment="production")
    assert stage.deliver() == 3
    assert stage.receiver.types == ["version.step-1", "version.step-2", "version.step-3"]
    first = stage.receiver.received[0]
    assert all(is_signed(each, secret) for each in stage.receiver.received)
    assert not is_signed(first, "whsec_" + base64.b64encode(b"x" * 32).decode())
    assert first.headers["content-type"] == "application/json"
    assert first.headers["webhook-timestamp"] == str(int(stage.world.clock.now().timestamp()))
    assert first.json["data"]["facts"] == {"environment": "production"}
    assert (first.json["data"]["model"], first.json["data"]["environment"]) == ("churn", "production")
    assert len({each.headers["webhook-id"] for each in stage.receiver.received}) == 3
    assert stage.deliver() == 0
    assert [(each.action, each.state, each.status) for each in stage.deliveries()] == [
        ("version.step-1", "DELIVERED", 204),
        ("version.step-2", "DELIVERED", 204),
        ("version.step-3", "DELIVERED", 204),
    ]


def test_a_filter_of_models_and_environments_narrows_what_is_sent(stage: Stage) -> None:
    stage.create(environments="prod*", models="ch*", events=())
    stage.note("model.promote", environment="staging")
    stage.note("model.promote", environment="production")
    stage.note("location.add")
    stage.deliver()
    assert [each.json["data"]["environment"] for each in stage.receiver.received] == ["production"]


def test_what_waits_is_held_back_by_a_receiver_that_is_away_and_comes_in_order_when_it_is_back(stage: Stage) -> None:
    stage.create()
    stage.receiver.usual = status(503)
    stage.note("version.step-1", "version.step-2")
    for _ in range(2 * ATTEMPTS_MAX):
        stage.deliver(after=timedelta(minutes=10))
    assert set(stage.receiver.types) == {"version.step-1"}
    assert stage.show().attempts == 2 * ATTEMPTS_MAX
    assert stage.show().failing_since is not None
    assert [each.state for each in stage.deliveries()] == ["PENDING"]
    stage.receiver.usual = status(200)
    stage.receiver.received.clear()
    assert stage.deliver(after=timedelta(minutes=10)) == 2
    assert stage.receiver.types == ["version.step-1", "version.step-2"]
    assert stage.show().failing_since is None


def test_tries_are_further_and_further_apart_and_wait_as_long_as_the_receiver_says(stage: Stage) -> None:
    stage.create()
    stage.receiver.replies = [status(503), status(503), status(503, retry_after="90")]
    stage.note("version.step-1")
    assert stage.deliver() == 1
    assert stage.deliver(after=timedelta(seconds=0.4)) == 0
    assert stage.deliver(after=timedelta(seconds=0.6)) == 1
    assert stage.deliver(after=timedelta(seconds=0.9)) == 0
    assert stage.deliver(after=timedelta(seconds=1.1)) == 1
    assert stage.deliver(after=timedelta(seconds=89)) == 0
    assert stage.deliver(after=timedelta(seconds=1)) == 1
    assert stage.deliveries()[0].state == "DELIVERED"
    assert len({each.headers["webhook-id"] for each in stage.receiver.received}) == 1


def test_an_event_that_is_refused_is_a_dead_letter_after_eight_tries_and_the_next_one_has_its_turn(
    stage: Stage,
) -> None:
    stage.create()
    stage.receiver.replies = [status(500)] * ATTEMPTS_MAX
    stage.note("version.step-1", "version.step-2")
    for _ in range(ATTEMPTS_MAX):
        stage.deliver(after=timedelta(minutes=10))
    assert stage.receiver.types == ["version.step-1"] * ATTEMPTS_MAX + ["version.step-2"]
    assert [(each.state, each.attempts, each.status) for each in stage.deliveries()] == [
        ("DEAD", 8, 500),
        ("DELIVERED", 1, 204),
    ]
    dead = stage.deliveries(state="DEAD")[0]
    assert stage.webhooks.redeliver(stage.world.owner, "hook") == 1
    assert stage.deliver() == 1
    assert stage.receiver.types[-1] == "version.step-1"
    assert stage.receiver.received[-1].headers["webhook-id"] == stage.receiver.received[0].headers["webhook-id"]
    assert stage.deliveries(state="DEAD") == []
    assert stage.webhooks.redeliver(stage.world.owner, "hook", [dead.id]) == 1
    assert stage.deliver() == 1


def test_a_webhook_that_fails_for_as_long_as_the_operator_bears_is_disabled_and_says_so(stage: Stage) -> None:
    stage.create()
    stage.create("watcher", events=("webhook.disable",), url=stage.receiver.url + "/watch")
    stage.receiver.usual = status(502)
    stage.note("version.step-1")
    sender = stage.another(patience=timedelta(days=5))
    stage.deliver(by=sender)
    stage.deliver(after=timedelta(days=4, hours=23), by=sender)
    assert stage.show().state == "ACTIVE"
    stage.deliver(after=timedelta(hours=2), by=sender)
    found = stage.show()
    assert found.state == "DISABLED"
    assert "502" in (found.state_reason or "")
    assert "webhook.disable" in stage.actions()
    assert stage.deliver(after=timedelta(days=1), by=sender) == 1  # the other webhook is told
    stage.receiver.usual = status(204)
    stage.receiver.received.clear()
    stage.webhooks.update(stage.world.owner, "hook", WebhookChange(is_active=True))
    stage.deliver(after=timedelta(minutes=10), by=sender)
    assert "version.step-1" in stage.receiver.types


def test_a_receiver_that_is_gone_is_sent_nothing_more(stage: Stage) -> None:
    stage.create()
    stage.receiver.usual = status(410)
    stage.note("version.step-1")
    assert stage.deliver() == 1
    assert stage.show().state == "DISABLED"
    assert stage.deliver(after=timedelta(days=1)) == 0


def hang_up(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.connection.close()


def die_midway(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    handler.wfile.flush()
    handler.connection.close()


def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(100):
            handler.wfile.write(b"X-A: b\r\n")
            handler.wfile.flush()
            time.sleep(0.02)


def flood(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(1000):
            handler.wfile.write(b"x" * 100_000)


@pytest.mark.parametrize(
    ("reply", "is_taken"),
    [
        (status(301, location="/elsewhere"), False),
        (status(307, location="http://169.254.169.254/"), False),
        (status(404), False),
        (hang_up, False),
        (die_midway, False),
        (drip, False),
        (flood, True),
        (status(202), True),
    ],
    ids=["301", "307", "404", "hang-up", "half", "drip", "flood", "202"],
)
def test_only_an_answer_of_success_counts_however_the_receiver_behaves(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, reply: Any, *, is_taken: bool
) -> None:
    monkeypatch.setattr(webhook_delivery, "_TIMEOUT_SECONDS", 0.5)
    stage.create()
    stage.receiver.replies = [reply]
    stage.note("version.step-1")
    began = time.monotonic()
    assert stage.deliver() == 1
    assert time.monotonic() - began < 3
    assert [each.path for each in stage.receiver.received] == ["/hook"]  # no redirect was followed
    assert stage.deliveries()[0].state == ("DELIVERED" if is_taken else "PENDING")
    stage.deliver(after=timedelta(minutes=10))
    assert stage.deliveries()[0].state == "DELIVERED"


def test_one_that_is_killed_after_it_sent_and_before_it_recorded_leaves_the_event_to_be_sent_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.create()
    stage.note("version.step-1", "version.step-2")

    def die(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(stage.deliverer, "_record", die)
        with pytest.raises(SystemExit):
            stage.deliver()
    assert stage.receiver.types == ["version.step-1"]
    assert stage.deliveries() == []
    heir = stage.another()
    assert stage.deliver(by=heir) == 0  # as long as the dead one's lease runs
    assert stage.deliver(after=timedelta(minutes=2), by=heir) == 2
    assert stage.receiver.types == ["version.step-1", "version.step-1", "version.step-2"]
    assert len({each.headers["webhook-id"] for each in stage.receiver.received}) == 2


def test_one_whose_lease_was_taken_over_records_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.create()
    stage.note("version.step-1")
    slow = stage.another()
    record_it = slow._record  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  (held up in between)

    def late(*arguments: Any) -> None:
        stage.world.clock.advance(timedelta(minutes=2))
        assert asyncio.run(stage.deliverer.run_once()) == 1
        record_it(*arguments)

    monkeypatch.setattr(slow, "_record", late)
    assert stage.deliver(by=slow) == 1
    assert [(each.state, each.attempts) for each in stage.deliveries()] == [("DELIVERED", 1)]


def test_processes_share_the_work_and_send_nothing_twice(stage: Stage) -> None:
    for number in range(3):
        stage.create(f"hook-{number}")
    stage.note("version.step-1", "version.step-2")
    others = [stage.another() for _ in range(3)]

    async def together() -> int:
        return sum(await asyncio.gather(*(each.run_once() for each in others)))

    assert asyncio.run(together()) == 6
    assert sorted(stage.receiver.types) == ["version.step-1"] * 3 + ["version.step-2"] * 3


def test_facts_of_restricted_events_go_only_to_receivers_where_they_may_be(stage: Stage) -> None:
    stage.create("anywhere")
    stage.create("europe", jurisdiction="EU", url=stage.receiver.url + "/eu")
    stage.note("version.step-1", residency="eu", accuracy="0.9")
    stage.deliver()
    told = {each.path: each.json["data"] for each in stage.receiver.received}
    assert told["/hook"]["facts"] is None
    assert told["/hook"]["subject"] == "churn/1"
    assert told["/hook/eu"]["facts"] == {"accuracy": "0.9"}


def test_a_secret_is_replaced_with_an_overlap_in_which_either_convinces(stage: Stage) -> None:
    old = stage.create()
    _, new = stage.webhooks.rotate_secret(stage.world.owner, "hook", overlap=timedelta(hours=1))
    stage.note("version.step-1")
    stage.deliver()
    assert is_signed(stage.receiver.received[0], old)
    assert is_signed(stage.receiver.received[0], new)
    stage.note("version.step-2")
    stage.deliver(after=timedelta(hours=2))
    assert not is_signed(stage.receiver.received[1], old)
    assert is_signed(stage.receiver.received[1], new)


def test_secrets_are_kept_encrypted_and_bound_to_their_webhook(stage: Stage) -> None:
    secret = stage.create()
    stage.create("other")
    with stage.world.database.read() as session:
        rows = {
            row.name: row for row in session.query(WebhookRow).filter_by(workspace_id=stage.world.owner.workspace_id)
        }
    sealed = rows["hook"].secret
    assert sealed is not None
    assert secret.removeprefix("whsec_").encode() not in sealed
    assert BOX.open(sealed, of=rows["hook"].id) == secret.encode()
    with pytest.raises(KeyUnavailable):
        BOX.open(sealed, of=rows["other"].id)
    # The next key goes before the old one, which opens still.
    rotated = SecretBox(lambda: [b"n" * 32, b"k" * 32])
    assert rotated.open(sealed, of=rows["hook"].id) == secret.encode()
    with pytest.raises(KeyUnavailable):
        BOX.open(rotated.seal(b"x", of="y"), of="y")


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/",
        "http://127.0.0.2/",
        "https://example.org/",
        "https://user:password@127.0.0.1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
    ],
)
def test_only_hosts_that_the_operator_lists_are_sent_anything(stage: Stage, url: str) -> None:
    with pytest.raises(InvalidInput):
        stage.create(url=url)
    stage.create()
    with pytest.raises(InvalidInput):
        stage.webhooks.update(stage.world.owner, "hook", WebhookChange(url=url))


def test_a_host_that_comes_to_stand_for_a_private_address_is_not_connected_to(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(_host: str, port: int, **_: object) -> list[Any]:
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    stage.rules = OutboundRules(setting="FAIRLEAD_WEBHOOK_HOSTS")
    stage.deliverer = stage.another()
    stage.create(url=f"https://hooks.example.org:{stage.receiver.port}/hook")
    stage.note("version.step-1")
    monkeypatch.setattr("socket.getaddrinfo", look_up)
    assert stage.deliver() == 1
    assert stage.receiver.received == []
    assert "stands for an address" in (stage.deliveries()[0].error or "")


def test_names_are_taken_once_and_calls_may_be_repeated_without_telling_the_secret_again(stage: Stage) -> None:
    key = IdempotencyKey(key="one", request_sha256="0" * 64)
    draft = WebhookDraft(name="hook", url=stage.receiver.url)
    made, secret = stage.webhooks.create(stage.world.owner, draft, key=key)
    assert secret is not None
    with pytest.raises(Conflict, match="shown then"):
        stage.webhooks.create(stage.world.owner, draft, key=key)
    with pytest.raises(AlreadyExists):
        stage.webhooks.create(stage.world.owner, draft)
    with pytest.raises(StaleRevision):
        stage.webhooks.update(stage.world.owner, "hook", WebhookChange(models="x"), expected_revision=7)
    changed = stage.webhooks.update(
        stage.world.owner, "hook", WebhookChange(models="x"), expected_revision=made.revision
    )
    assert (changed.models, changed.revision) == ("x", made.revision + 1)
    stage.webhooks.delete(stage.world.owner, "hook")
    with pytest.raises(WebhookNotFound):
        stage.show()
    assert stage.actions()[-3:] == ["webhook.create", "webhook.update", "webhook.delete"]


def test_a_test_message_says_what_the_receiver_answered(stage: Stage) -> None:
    secret = stage.create()
    tests = WebhookTests(stage.world.database, stage.world.clock, rules=RULES, box=BOX, formats=FORMATS)
    answer = asyncio.run(tests.send(stage.world.owner, "hook"))
    assert (answer.is_taken, answer.status) == (True, 204)
    assert stage.receiver.types == ["webhook.test"]
    assert is_signed(stage.receiver.received[0], secret)
    stage.receiver.usual = status(401)
    answer = asyncio.run(tests.send(stage.world.owner, "hook"))
    assert (answer.is_taken, answer.status) == (False, 401)
    assert stage.actions()[-1] == "webhook.test"


def test_a_disabled_webhook_may_skip_what_it_was_not_told(stage: Stage) -> None:
    stage.create()
    stage.webhooks.update(stage.world.owner, "hook", WebhookChange(is_active=False))
    stage.note("version.step-1")
    assert stage.deliver() == 0
    stage.webhooks.update(stage.world.owner, "hook", WebhookChange(is_active=True, from_now=True))
    stage.note("version.step-2")
    stage.deliver()
    assert stage.receiver.types == ["version.step-2"]
    assert json.dumps(stage.receiver.received[0].json)


def test_one_that_cannot_be_sent_to_from_here_waits_and_says_why(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.create(credentials_env="FAIRLEAD_WEBHOOK_OPS")
    stage.note("version.step-1")
    assert stage.deliver() == 0
    assert "FAIRLEAD_WEBHOOK_OPS" in (stage.show().state_reason or "")
    monkeypatch.setenv("FAIRLEAD_WEBHOOK_OPS", "let-me-in")
    assert stage.deliver(after=timedelta(minutes=5)) == 1
    assert stage.receiver.received[0].headers["authorization"] == "Bearer let-me-in"
    assert stage.show().state_reason is None


def test_credentials_go_to_no_host_that_the_operator_does_not_list(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_WEBHOOK_OPS", "let-me-in")
    stage.create(credentials_env="FAIRLEAD_WEBHOOK_OPS")
    stage.note("version.step-1")
    for hosts in (None, ("*",), ("*", "hooks.example.org")):
        stage.rules = OutboundRules(setting="FAIRLEAD_WEBHOOK_HOSTS", hosts=hosts)
        with pytest.raises(PermissionDenied, match="FAIRLEAD_WEBHOOK_HOSTS"):
            stage.create("other", url="https://thief.example.net/", credentials_env="FAIRLEAD_WEBHOOK_OPS")
        with pytest.raises(PermissionDenied, match="FAIRLEAD_WEBHOOK_HOSTS"):
            stage.webhooks.update(stage.world.owner, "hook", WebhookChange(url="https://thief.example.net/"))
    # Nor where it was listed when the webhook was made.
    row = WebhookRow(url="https://thief.example.net/", credentials_env="FAIRLEAD_WEBHOOK_OPS")
    with pytest.raises(PermissionDenied, match="FAIRLEAD_WEBHOOK_HOSTS"):
        credentials_of(row, stage.rules)
