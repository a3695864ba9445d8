"""What federated reads hold to when agents, tickets, tokens, certificates and streams are not what they should be."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pyarrow as pa
import pyarrow.flight as pf
import pytest

from fairlead.app.feature_agent import loopback_identity
from fairlead.core.errors import (
    AgentBusy,
    AgentNotTrusted,
    AgentUnavailable,
    AnswerCorrupt,
    AnswerTooLarge,
    BodyTooLarge,
    FairleadError,
    JoinTimedOut,
    ResidencyViolation,
    TicketInvalid,
    Unauthenticated,
)
from fairlead.featurestore.agent_flight import AgentLimits
from fairlead.featurestore.federation_plan import EntityColumn, FederatedRequest
from fairlead.featurestore.ticket_joins import ROW_NUMBER
from fairlead.featurestore.tickets import open_ticket, seal_ticket, token_hash
from fairlead.registry.identity import bootstrap
from fairlead.sdk.artifacts import wait_until
from fairlead.sdk.client import Fairlead
from fairlead.sdk.flight import exchange
from fairlead.sdk.settings import ClientSettings
from fairlead.sdk.transport import Transport
from tests.featurestore.federation_world import EU, US, WEST, FederationWorld, entity_rows

arrow: Any = pa
flight: Any = pf

ROWS = [(1, 1), (424242, 4), (2, 4)]
SECRETS = ["424242", "late", "churned-for-sure"]


def plan_of(world: FederationWorld, features: tuple[str, ...] = ("cells:radius",)) -> dict[str, Any]:
    return world.reader(WEST).federation.plan(entity_rows(ROWS), features=features)


def call(world: FederationWorld, hop: dict[str, Any], *, ticket: str | None = None, token: str | None = None) -> Any:
    """What an agent answers to entity rows with a ticket and a token."""
    rows = entity_rows(ROWS)
    numbered = rows.append_column(ROW_NUMBER, arrow.array(range(len(ROWS)), arrow.int64()))
    return exchange(
        hop["agent"], ticket or hop["ticket"], numbered, authorization=f"Bearer {token or world.server.token}"
    )


def test_a_forged_expired_or_borrowed_ticket_opens_nothing(federation: FederationWorld) -> None:
    world = federation
    (hop,) = plan_of(world)["hops"]
    keys = world.server.service.federation.agents.public_keys
    ticket = open_ticket(hop["ticket"], keys, now=datetime.now(UTC))
    signing_key = world.server.service.signing_keys[0]
    before = len(world.agents[US].crossed)

    forged = seal_ticket(ticket, b"\x07" * 32)
    changed = hop["ticket"][:40] + ("A" if hop["ticket"][40] != "A" else "B") + hop["ticket"][41:]
    expired = seal_ticket(replace(ticket, expires_at=datetime.now(UTC) - timedelta(seconds=1)), signing_key)
    elsewhere = seal_ticket(replace(ticket, region=EU), signing_key)
    for bad in (forged, changed, expired, elsewhere, "no ticket"):
        with pytest.raises(TicketInvalid):
            call(world, hop, ticket=bad)
    # A good ticket with another token of the same person, and one that the registry does not know any more.
    other = world.client.tokens.create(name="other", principal="owner", scopes=["admin"])
    with pytest.raises(TicketInvalid):
        call(world, hop, token=other.secret)
    # A token that was asked about stands for a minute; this one was not.
    other = world.client.tokens.create(name="revoked", principal="owner", scopes=["admin"])
    reader = world.reader(WEST, token=other.secret)
    (revoked_hop,) = cast("list[Any]", reader.federation.plan(entity_rows(ROWS), features=["cells:radius"])["hops"])
    world.client.tokens.revoke(other.id)
    with pytest.raises(Unauthenticated, match="revoked"):
        call(world, revoked_hop, token=other.secret)
    assert len(world.agents[US].crossed) == before


def test_another_workspace_has_no_way_in(federation: FederationWorld) -> None:
    world, service = federation, federation.server.service
    issued = bootstrap(service.database, service.clock, principal="eve", workspace_id="other")
    (hop,) = plan_of(world)["hops"]
    keys = service.federation.agents.public_keys
    ticket = open_ticket(hop["ticket"], keys, now=datetime.now(UTC))
    # Even signed: an agent serves the workspace that runs it.
    theirs = replace(ticket, workspace_id="other", token_sha256=token_hash(issued.secret))
    with pytest.raises(TicketInvalid):
        call(world, hop, ticket=seal_ticket(theirs, service.signing_keys[0]), token=issued.secret)
    eve = service.tokens.authenticate(issued.secret)
    wanted = FederatedRequest(
        service="screening",
        features=(),
        snapshot=None,
        live_until=None,
        region=WEST,
        residency="unrestricted",
        rows=1,
        columns=(EntityColumn(name="patient_id", bytes=8),),
        on_unavailable="error",
    )
    with pytest.raises(FairleadError, match="no feature service"):
        service.federation.reads.plan(eve, wanted, token_sha256=token_hash(issued.secret))


def test_an_agent_judges_residency_and_rows_for_itself(federation: FederationWorld) -> None:
    world = federation
    (hop,) = plan_of(world)["hops"]
    keys, signing_key = world.server.service.federation.agents.public_keys, world.server.service.signing_keys[0]
    ticket = open_ticket(hop["ticket"], keys, now=datetime.now(UTC))
    crossed = len(world.agents[US].crossed)
    with pytest.raises(ResidencyViolation) as rows:
        call(world, hop, ticket=seal_ticket(replace(ticket, residency="eu"), signing_key))
    assert rows.value.attributes["rule"] == "entity-rows"
    part = replace(ticket.views[0].parts[0], residency="eu")
    view = replace(ticket.views[0], parts=(part,))
    with pytest.raises(ResidencyViolation) as results:
        call(world, hop, ticket=seal_ticket(replace(ticket, views=(view,)), signing_key))
    assert results.value.attributes["rule"] == "results"
    with pytest.raises(BodyTooLarge):
        call(world, hop, ticket=seal_ticket(replace(ticket, rows=1), signing_key))
    # Labels, or anything else that no view needs, are not taken.
    numbered = entity_rows(ROWS, label=[1, 2, 3]).append_column(ROW_NUMBER, arrow.array([0, 1, 2], arrow.int64()))
    with pytest.raises(FairleadError, match="1 columns of the entity rows are no keys"):
        exchange(hop["agent"], hop["ticket"], numbered, authorization=f"Bearer {world.server.token}")
    assert len(world.agents[US].crossed) == crossed


def test_who_has_not_the_agents_certificate_is_sent_nothing(federation: FederationWorld) -> None:
    world = federation
    (hop,) = plan_of(world)["hops"]
    hop["agent"]["certificate"] = loopback_identity().anchor.decode()
    before = len(world.agents[US].crossed)
    with pytest.raises(AgentNotTrusted, match="has not its certificate"):
        call(world, hop)
    # No policy goes on without: that is no outage.
    plan = world.reader(WEST).federation.plan(entity_rows(ROWS), features=["cells:radius"], on_unavailable="missing")
    hops: Any = plan["hops"]
    hops[0]["agent"]["certificate"] = loopback_identity().anchor.decode()
    with pytest.raises(AgentNotTrusted):
        world.reader(WEST).federation.read(entity_rows(ROWS), plan=plan)
    assert len(world.agents[US].crossed) == before


class _Liar(flight.FlightServerBase):
    """An agent's address and certificate, and answers that are none."""

    def __init__(self, identity: Any, answer: Any) -> None:
        super().__init__("grpc+tls://127.0.0.1:0", tls_certificates=[(identity.certificate, identity.key)])
        self._answer = answer

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        del context, descriptor
        reader.read_all()
        table, breaks_off = self._answer
        writer.begin(table.schema)
        writer.write_table(table)
        if breaks_off:
            raise flight.FlightUnavailableError("gone")


@pytest.mark.parametrize(
    ("numbers", "breaks_off", "expected"),
    [
        ([0, 1], "", AgentUnavailable),  # a stream that ends early
        ([0, 1], "breaks off", AgentUnavailable),  # an agent that dies in the middle
        ([0, 1, 1], "", AgentUnavailable),  # a row twice, another never
        ([0, 1, 2, 3], "", AnswerCorrupt),  # rows that nobody sent
    ],
)
def test_what_is_no_whole_answer_is_none(
    federation: FederationWorld, numbers: list[int], breaks_off: str, expected: type[FairleadError]
) -> None:
    world, identity = federation, loopback_identity()
    table = arrow.table({ROW_NUMBER: arrow.array(numbers, arrow.int64()), "cells__radius": [0.5] * len(numbers)})
    liar = _Liar(identity, (table, breaks_off))
    try:
        reader = world.reader(WEST)
        plan: Any = reader.federation.plan(entity_rows(ROWS), features=["cells:radius"])
        plan["hops"][0]["agent"] |= {
            "address": f"127.0.0.1:{liar.port}",
            "certificate": identity.anchor.decode(),
        }
        with pytest.raises(expected):
            reader.federation.read(entity_rows(ROWS), plan=plan)
    finally:
        liar.shutdown()


def test_answers_in_any_order_are_put_in_the_rows_order(federation: FederationWorld) -> None:
    world, identity = federation, loopback_identity()
    table = arrow.table({ROW_NUMBER: arrow.array([2, 0, 1], arrow.int64()), "cells__radius": [2.5, 0.5, 1.5]})
    liar = _Liar(identity, (table, False))
    try:
        reader = world.reader(WEST)
        plan: Any = reader.federation.plan(entity_rows(ROWS), features=["cells:radius"])
        plan["hops"][0]["agent"] |= {
            "address": f"127.0.0.1:{liar.port}",
            "certificate": identity.anchor.decode(),
        }
        read = reader.federation.read(entity_rows(ROWS), plan=plan)
        assert read.table.column("radius").to_pylist() == [0.5, 1.5, 2.5]
    finally:
        liar.shutdown()


def test_only_keys_times_and_what_was_asked_for_cross_and_nothing_of_them_is_told(
    federation: FederationWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world = federation
    caplog.set_level(logging.DEBUG)
    crossed = {region: len(agent.crossed) for region, agent in world.agents.items()}
    entities = entity_rows(ROWS, outcome=["churned-for-sure"] * len(ROWS), note=["x"] * len(ROWS))
    reader = world.reader(EU)
    reader.federation.read(entities, service="diagnosis")
    for region, columns in {US: ["cells__radius"], EU: ["genes__marker", "visits__count"]}.items():
        (_, into), (_, back) = world.agents[region].crossed[crossed[region] :]
        assert into.column_names == ["patient_id", "event_timestamp", ROW_NUMBER]
        assert back.column_names == [ROW_NUMBER, *columns]
    # Nothing of the EU's rows went to the US, in either direction.
    assert not [text for _, table in world.agents[US].crossed[-2:] for text in ("marker", "late") if text in str(table)]

    errors: list[str] = []
    text_keys = entities.set_column(0, "patient_id", arrow.array(["424242x", "churned-for-sure", "late"]))
    for rows in (text_keys, entities.set_column(1, "event_timestamp", arrow.array(["424242", "late", "late"]))):
        with pytest.raises(FairleadError) as refused:
            reader.federation.read(rows, service="diagnosis")
        errors.append(f"{refused.value} {refused.value.attributes}")
    told = caplog.text + "".join(errors)
    told += str([event.facts for event in world.client.audit.list() if event.action == "feature.federate"])
    told += str([row.to_json() for row in world.client.ledger.list(kind="federate")])
    assert errors
    assert not [secret for secret in SECRETS if secret in told]


def test_an_agent_does_no_more_at_once_and_no_longer_than_it_may(
    federation: FederationWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = federation
    monkeypatch.setattr("fairlead.featurestore.agent_flight._WAIT_SECONDS", 0.05)
    agent = world.start_agent(WEST, limits=AgentLimits(joins=1, seconds=0.0, rows=2))
    try:
        reader = world.reader(WEST)
        with pytest.raises(JoinTimedOut):
            reader.federation.read(entity_rows(ROWS), features=["visits:count"])
    finally:
        world.forget_agent(WEST)
    agent = world.start_agent(WEST, limits=AgentLimits(joins=1, rows=2))
    try:
        reader = world.reader(WEST)
        with pytest.raises(BodyTooLarge, match="more than the 2 rows"):
            reader.federation.read(entity_rows(ROWS), features=["visits:count"])
        # As if another join went on.
        with agent.server.occupied(), pytest.raises(AgentBusy):
            reader.federation.read(entity_rows(ROWS[:1]), features=["visits:count"])
        assert reader.federation.read(entity_rows(ROWS[:1]), features=["visits:count"]).table.num_rows == 1
    finally:
        world.forget_agent(WEST)


def test_an_agent_that_is_cut_off_goes_on_with_what_it_has(
    federation: FederationWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = federation
    plan = world.reader(WEST).federation.plan(entity_rows(ROWS), features=["cells:radius"])
    first = world.reader(WEST).federation.read(entity_rows(ROWS), plan=plan)
    link = world.agents[US].link
    away = Transport("http://127.0.0.1:9", world.server.token, timeout_seconds=1.0)
    dead = Fairlead(away, ClientSettings(home=world.server.folder / "nobody"))
    world.closing.callback(dead.close)
    monkeypatch.setattr(link, "_client", dead)
    monkeypatch.setattr(link, "_artifacts", dead.artifacts)
    again = world.reader_without_signs(WEST).federation.read(entity_rows(ROWS), plan=plan)
    assert again.table.equals(first.table)
    reader, read = world.reader_without_signs(WEST), str(plan["read"])
    link.tell()
    assert len([row for row in reader.ledger.list(kind="federate") if read in row.subject]) < 4
    # What could not be told was kept, and is told when the registry is back: both reads, each way.
    monkeypatch.undo()
    link.tell()
    assert len([row for row in reader.ledger.list(kind="federate") if read in row.subject]) == 4


def test_an_agent_keeps_no_copy_of_what_its_region_has_no_more(federation: FederationWorld) -> None:
    world = federation
    link = world.agents[US].link
    world.reader(WEST).federation.read(entity_rows(ROWS), features=["cells:radius"])
    cache = world.server.folder / f"agent-{US.replace(':', '-')}" / "cache" / "artifacts"
    kept = {path.name for path in cache.iterdir()}
    gone = cache / ("0" * 64)
    gone.mkdir()
    (cache / f"{gone.name}.flat.parquet").write_bytes(b"somebody's rows")
    link.forget_gone()
    assert {path.name for path in cache.iterdir()} == kept


def flight_client(hop: dict[str, Any]) -> Any:
    agent = hop["agent"]
    return flight.connect(f"grpc+tls://{agent['address']}", tls_root_certs=agent["certificate"].encode())


def as_caller(token: str) -> Any:
    return flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())], timeout=30)


def test_no_method_of_the_server_tells_a_stranger_anything(federation: FederationWorld) -> None:
    (hop,) = plan_of(federation)["hops"]
    told: list[str] = []
    descriptor = flight.FlightDescriptor.for_command(hop["ticket"].encode())
    calls: list[Callable[[Any, Any], Any]] = [
        lambda client, options: [*client.list_flights(options=options)],
        lambda client, options: [*client.list_actions(options)],
        lambda client, options: [*client.do_action(flight.Action("any", b""), options)],
        lambda client, options: client.get_flight_info(descriptor, options),
        lambda client, options: client.get_schema(descriptor, options),
        lambda client, options: client.do_get(flight.Ticket(b"any"), options).read_all(),
        lambda client, options: client.do_put(descriptor, arrow.schema([]), options)[0].close(),
    ]
    for token, expected in ((None, "unauthenticated"), (federation.server.token, "method-not-allowed")):
        options = flight.FlightCallOptions(timeout=30) if token is None else as_caller(token)
        for each in calls:
            with flight_client(hop) as client, pytest.raises((flight.FlightError, OSError)) as refused:
                each(client, options)
            told.append(str(refused.value))
            assert expected in told[-1]
    assert not [text for text in told if "Traceback" in text or ".py" in text or "/" in text]


def test_a_token_is_judged_before_anything_of_a_call_is_read(federation: FederationWorld) -> None:
    (hop,) = plan_of(federation)["hops"]

    def send_nothing(client: Any, options: Any) -> None:
        # Neither a ticket nor rows.
        _, reader = client.do_exchange(flight.FlightDescriptor.for_command(b""), options)
        reader.read_chunk()

    for options, expected in (
        (flight.FlightCallOptions(timeout=30), "unauthenticated"),
        (as_caller("fl_nobody"), "unauthenticated"),
    ):
        with flight_client(hop) as client, pytest.raises(flight.FlightError, match=expected):
            send_nothing(client, options)


def test_who_stops_sending_holds_up_nobody_else(federation: FederationWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = federation
    agent = world.start_agent(WEST, limits=AgentLimits(joins=1, calls=2, seconds=600.0))
    stalled: list[Any] = []
    try:
        reader = world.reader(WEST)
        (hop,) = cast("list[Any]", reader.federation.plan(entity_rows(ROWS), features=["visits:count"])["hops"])
        token = str(world.client.tokens.create(name="stalls", principal="eve", scopes=["read"]).secret)
        eve = world.reader(WEST, token=token)
        (hers,) = cast("list[Any]", eve.federation.plan(entity_rows(ROWS), features=["visits:count"])["hops"])
        schema = entity_rows([]).schema.append(arrow.field(ROW_NUMBER, arrow.int64()))
        for _ in range(2):
            client = flight_client(hers)
            command = flight.FlightDescriptor.for_command(hers["ticket"].encode())
            writer, answers = client.do_exchange(command, as_caller(token))
            writer.begin(schema)
            stalled.append((client, writer, answers))
        wait_until(lambda: agent.server.calls_of("eve") == 2, "the calls to be counted", 10)
        with pytest.raises(AgentBusy, match="'eve' has 2 reads under way"):
            call(world, hers, token=token)
        # Everybody else is served, though there is one join's place alone.
        assert call(world, hop)[0].num_rows == len(ROWS)
        # Nor does the agent wait for whoever will never end.
        monkeypatch.setattr("fairlead.featurestore.agent_flight._STOP_SECONDS", 0.1)
        assert not agent.server.shutdown()
    finally:
        for client, _, answers in stalled:
            answers.cancel()
            client.close()
        world.forget_agent(WEST)
    assert not agent.thread.is_alive()


def test_rows_that_unfold_when_they_are_read_are_not_taken(federation: FederationWorld) -> None:
    world = federation
    (hop,) = plan_of(world)["hops"]
    crossed = len(world.agents[US].crossed)
    numbers = arrow.array(range(len(ROWS)), arrow.int64())
    rows = entity_rows(ROWS).append_column(ROW_NUMBER, numbers)
    folded = rows.set_column(0, "patient_id", rows.column("patient_id").dictionary_encode())
    views = rows.set_column(0, "patient_id", arrow.array(["1", "2", "3"], arrow.string_view()))
    for bad in (folded, views, rows.set_column(3 - 1, ROW_NUMBER, arrow.array(["0", "1", "2"]))):
        with pytest.raises(FairleadError, match=r"is not taken here|have no numbers"):
            exchange(hop["agent"], hop["ticket"], bad, authorization=f"Bearer {world.server.token}")
    assert len(world.agents[US].crossed) == crossed
    # The SDK sends what is taken, and counts it so.
    reader = world.reader(WEST)
    entities = entity_rows(ROWS)
    entities = entities.set_column(0, "patient_id", entities.column("patient_id").dictionary_encode())
    read = reader.federation.read(entities, features=["cells:radius"])
    assert read.table.column("radius").to_pylist() == [1.0, None, None]
    assert read.table.schema.field("patient_id").type == entities.schema.field("patient_id").type
    assert read.hops[0].bytes_out == read.hops[0].planned_out == entity_rows(ROWS).nbytes + 8 * len(ROWS)


def test_an_answer_is_no_larger_than_it_may_be(federation: FederationWorld) -> None:
    world = federation
    world.start_agent(WEST, limits=AgentLimits(answer_bytes=1000))
    try:
        reader = world.reader(WEST)
        assert reader.federation.read(entity_rows(ROWS), features=["visits:count"]).table.num_rows == len(ROWS)
        with pytest.raises(AnswerTooLarge, match="more than the 1000 bytes"):
            reader.federation.read(entity_rows(ROWS * 100), features=["visits:count"])
    finally:
        world.forget_agent(WEST)


def test_an_agent_that_does_not_get_as_far_as_a_handshake_is_away(federation: FederationWorld) -> None:
    world = federation
    plan: Any = world.reader(WEST).federation.plan(
        entity_rows(ROWS), features=["cells:radius"], on_unavailable="missing"
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listening.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        plan["hops"][0]["agent"]["address"] = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(AgentUnavailable):
            call(world, plan["hops"][0])
        read = world.reader(WEST).federation.read(entity_rows(ROWS), plan=plan)
        assert read.hops[0].outcome == "missing"


def test_rows_that_were_changed_at_the_agent_are_fetched_anew(federation: FederationWorld) -> None:
    world = federation
    first = world.reader(WEST).federation.read(entity_rows(ROWS), features=["cells:radius"])
    cache = world.server.folder / f"agent-{US.replace(':', '-')}" / "cache" / "artifacts"
    for path in cache.rglob("*.parquet"):
        path.write_bytes(b"somebody else's rows")
    again = world.reader(WEST).federation.read(entity_rows(ROWS), features=["cells:radius"])
    assert again.table.equals(first.table)
