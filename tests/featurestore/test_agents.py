"""Who joins in a region: registered by an admin, heard of, and trusted with no more than that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.app.feature_agent import loopback_identity
from fairlead.catalog import load_catalog
from fairlead.core.errors import (
    FeatureAgentNotFound,
    InvalidInput,
    PermissionDenied,
    ResidencyViolation,
    TicketInvalid,
    UnknownRegion,
)
from fairlead.core.ids import new_row_id
from fairlead.featurestore.agents import AWAY_AFTER, Crossing, FeatureAgents
from fairlead.featurestore.federation import FederatedReads
from fairlead.featurestore.federation_assembly import Federation, assemble_federation
from fairlead.featurestore.federation_plan import EntityColumn, FederatedRequest
from fairlead.featurestore.sources import Sources
from fairlead.featurestore.tickets import open_ticket, seal_ticket
from fairlead.registry.paging import PageRequest
from fairlead.registry.tables import WorkspaceRow
from tests.featurestore.feature_fleet import FeatureFleet, open_feature_fleet
from tests.fleet import ADMIN, REGIONS

KEY = b"\x01" * 32
US, EU = REGIONS["virginia"], REGIONS["eemshaven"]
ADDRESS = "127.0.0.1:8490"
AGENT = replace(ADMIN, principal="agent-us", scopes=frozenset({"write"}))
IDENTITY = loopback_identity()
PEM = IDENTITY.anchor.decode()
WANTED = FederatedRequest(
    service=None,
    features=("cells:radius",),
    snapshot=None,
    live_until=None,
    region=US,
    residency="unrestricted",
    rows=1000,
    columns=(EntityColumn(name="patient_id", bytes=8000), EntityColumn(name="event_timestamp", bytes=8000)),
    on_unavailable="error",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    fleet: FeatureFleet
    federation: Federation

    @property
    def agents(self) -> FeatureAgents:
        return self.federation.agents

    def hear(self, *, leaves: bool = False) -> str:
        sha256 = IDENTITY.certificate_sha256
        heard = self.agents.hear(AGENT, region=US, address=ADDRESS, certificate_sha256=sha256, leaves=leaves)
        return heard.state

    def states(self) -> list[str]:
        return [agent.state for agent in self.agents.list(ADMIN, PageRequest()).items]


@pytest.fixture
def stage(database_url: str, tmp_path: Path) -> Iterator[Stage]:
    with open_feature_fleet(tmp_path, database_url) as fleet:
        fleet.cells([(1, 0, 1.0)])
        fleet.genes([(1, 1, "a")])
        fleet.apply(fleet.definitions())
        fleet.snapshot()
        federation = assemble_federation(
            database=fleet.fleet.database,
            clock=fleet.fleet.clock,
            catalog=load_catalog(),
            artifacts=fleet.fleet.artifacts,
            open_store=fleet.fleet.open_store,
            folder=tmp_path / "features",
            sources=Sources(roots=(fleet.sources,)),
            signing_keys=[KEY],
            is_local=False,
        )
        yield Stage(fleet=fleet, federation=federation)


def test_an_agent_serves_as_long_as_it_says_so_and_its_crossings_are_paid_once(stage: Stage) -> None:
    agents, clock = stage.agents, stage.fleet.fleet.clock
    with pytest.raises(FeatureAgentNotFound):
        stage.hear()
    agents.register(ADMIN, region=US, address=ADDRESS, certificate=PEM, principal="agent-us")
    assert stage.states() == ["REGISTERED"]
    assert stage.hear() == "SERVING"
    clock.advance(AWAY_AFTER + timedelta(seconds=1))
    assert stage.states() == ["AWAY"]
    assert stage.hear() == "SERVING"

    plan = stage.federation.reads.plan(ADMIN, replace(WANTED, region=EU), token_sha256="0" * 64)
    assert [(hop.region, hop.joiner) for hop in plan.hops] == [(EU, "service")]
    plan = stage.federation.reads.plan(ADMIN, WANTED, token_sha256="0" * 64)
    (hop,) = plan.hops
    assert hop.agent is not None
    assert (hop.joiner, hop.agent.address, hop.bytes_out) == ("agent", ADDRESS, 24000)
    assert hop.ticket is not None
    ticket = open_ticket(hop.ticket, agents.public_keys, now=clock.now())
    assert ticket.views[0].parts[0].digest is not None

    crossing = Crossing(call=new_row_id(), rows=1000, bytes_in=24000, bytes_out=12000, error=None)
    elsewhere = seal_ticket(replace(ticket, reader_region=EU), KEY)
    for _ in range(2):
        agents.report(AGENT, elsewhere, crossing)
    assert [row.moved_bytes for row in stage.fleet.fleet.ledger("federate")] == [24000, 12000]
    with pytest.raises(PermissionDenied, match="runs no feature agent"):
        agents.report(replace(AGENT, principal="eve"), elsewhere, crossing)
    with pytest.raises(TicketInvalid):
        agents.report(AGENT, seal_ticket(ticket, b"\x02" * 32), crossing)

    assert stage.hear(leaves=True) == "LEFT"
    agents.remove(ADMIN, region=US, address=ADDRESS)
    assert stage.states() == []


def test_an_agent_is_known_by_its_certificate_and_by_who_runs_it(stage: Stage) -> None:
    agents = stage.agents
    for address, certificate, error in [
        ("nowhere", PEM, InvalidInput),
        ("127.0.0.1:0", PEM, InvalidInput),
        (ADDRESS, "no certificate", InvalidInput),
    ]:
        with pytest.raises(error):
            agents.register(ADMIN, region=US, address=address, certificate=certificate)
    with pytest.raises(UnknownRegion):
        agents.register(ADMIN, region="aws:atlantis-1", address=ADDRESS, certificate=PEM)
    agents.register(ADMIN, region=US, address=ADDRESS, certificate=PEM, principal="agent-us")
    with pytest.raises(FeatureAgentNotFound):
        agents.hear(AGENT, region=US, address=ADDRESS, certificate_sha256="0" * 64, leaves=False)
    with pytest.raises(PermissionDenied, match="'eve' runs no feature agent"):
        agents.hear(
            replace(AGENT, principal="eve"),
            region=US,
            address=ADDRESS,
            certificate_sha256=IDENTITY.certificate_sha256,
            leaves=False,
        )
    stage.hear()
    # Another certificate is another agent: it has to be heard of anew.
    other = loopback_identity()
    agents.register(ADMIN, region=US, address=ADDRESS, certificate=other.anchor.decode(), principal="agent-us")
    assert stage.states() == ["REGISTERED"]


def test_a_ticket_of_thousands_of_features_still_fits_into_a_header(stage: Stage) -> None:
    names = tuple(f"feature_of_customer_behaviour_{number:05}" for number in range(3000))
    hop = stage.federation.reads.plan(ADMIN, WANTED, token_sha256="0" * 64).hops[0]
    ticket = open_ticket(str(hop.ticket), stage.agents.public_keys, now=stage.fleet.fleet.clock.now())
    view = replace(ticket.views[0], features=names, parts=(replace(ticket.views[0].parts[0], features=names),))
    wide = seal_ticket(replace(ticket, views=(view,)), KEY)
    assert len(wide) < 32 * 1024
    assert open_ticket(wide, stage.agents.public_keys, now=stage.fleet.fleet.clock.now()).views == (view,)


def test_what_is_restricted_comes_to_the_service_only_where_it_is_inside(stage: Stage) -> None:
    reads, wanted = stage.federation.reads, replace(WANTED, region=EU, residency="eu")
    features = replace(WANTED, region=EU, features=("genes:marker",))
    for asked, rule in ((wanted, "entity-rows"), (features, "results")):
        with pytest.raises(ResidencyViolation, match="not known to be inside") as refused:
            reads.plan(ADMIN, asked, token_sha256="0" * 64)
        assert refused.value.attributes["rule"] == rule
    database, clock = stage.fleet.fleet.database, stage.fleet.fleet.clock
    for region, jurisdiction, is_inside in [
        (US, None, False),
        (EU, None, True),
        (None, "EU", True),
        (None, "US", False),
    ]:
        with database.write() as session:
            session.get_one(WorkspaceRow, ADMIN.workspace_id).jurisdiction = jurisdiction
        placed = FederatedReads(
            database,
            clock,
            catalog=load_catalog(),
            agents=stage.agents,
            signing_key=KEY,
            is_local=False,
            region=region,
        )
        for asked in (wanted, features):
            if is_inside:
                assert placed.plan(ADMIN, asked, token_sha256="0" * 64).hops[0].joiner == "service"
            else:
                with pytest.raises(ResidencyViolation):
                    placed.plan(ADMIN, asked, token_sha256="0" * 64)
