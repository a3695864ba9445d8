"""Three regions with views of their own, each with a feature agent, around one server."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fairlead.app.feature_agent import AgentIdentity, RegistryLink, loopback_identity
from fairlead.core.clock import SystemClock
from fairlead.featurestore.agent_flight import AgentLimits, FeatureAgentServer
from fairlead.featurestore.applied import FeatureObject
from fairlead.featurestore.sources import Sources
from fairlead.featurestore.ticket_joins import TicketJoins
from fairlead.sdk.artifacts import wait_until
from fairlead.sdk.client import Fairlead
from fairlead.sdk.settings import ClientSettings
from fairlead.sync.scratch import Scratch
from tests.featurestore.feature_fleet import patient, service, view_spec
from tests.running_server import RunningServer, running_server

arrow: Any = pa
parquet: Any = pq

US, EU, WEST = "aws:us-east-1", "gcp:europe-west4", "azure:westeurope"
DAY_0 = datetime(2026, 2, 19, 12, tzinfo=UTC)
CELLS = [(1, 0, 1.0), (1, 2, 1.5), (1, 9, 9.0), (2, 0, 2.0), (2, 2, None)]
GENES = [(1, 1, "a"), (1, 8, "late"), (3, 1, "c"), (1, 1, "b")]


def day(number: float) -> datetime:
    return DAY_0 + timedelta(days=number)


@dataclass(slots=True, kw_only=True)
class RunningAgent:
    """An agent in a thread, and every table that came in or went out."""

    server: FeatureAgentServer
    link: RegistryLink
    region: str
    address: str
    identity: AgentIdentity
    thread: threading.Thread
    crossed: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])

    def sign(self) -> None:
        self.link.sign(self.address, self.identity.certificate_sha256)

    def stop(self) -> None:
        """As if its process were killed: the registry hears nothing."""
        self.server.shutdown()
        self.thread.join()


@dataclass(slots=True, kw_only=True)
class FederationWorld:
    """A server with a worker, sources, and agents by region."""

    server: RunningServer
    sources: Path
    closing: contextlib.ExitStack
    agents: dict[str, RunningAgent] = field(default_factory=dict[str, RunningAgent])

    @property
    def client(self) -> Fairlead:
        """The owner's."""
        return self.connect(home="client")

    def reader(self, region: str, token: str | None = None) -> Fairlead:
        """A client that is in a region, of a registry that has just heard of every agent."""
        for agent in self.agents.values():
            if agent.thread.is_alive():
                agent.sign()
        return self.connect(home="client", region=region, token=token)

    def reader_without_signs(self, region: str) -> Fairlead:
        """As `reader`, and the registry hears nothing."""
        return self.connect(home="client", region=region)

    def connect(self, *, home: str, region: str | None = None, token: str | None = None) -> Fairlead:
        settings = ClientSettings(
            url=self.server.url, home=self.server.folder / home, token=token or self.server.token, region=region
        )
        client = Fairlead.connect(settings)
        self.closing.callback(client.close)
        return client

    def apply(self, objects: Sequence[FeatureObject]) -> list[dict[str, Any]]:
        """Apply; the plan's rows."""
        plan = self.server.service.features.definitions.apply(self.server.owner, objects)
        return [{"name": each.name, "change": each.change, "reason": each.reason} for each in plan]

    def write(self, name: str, column: str, kind: Any, rows: Sequence[tuple[int, float, Any]]) -> Path:
        """Write (patient, day, value) as a source."""
        path = self.sources / f"{name}.parquet"
        parquet.write_table(
            arrow.table(
                {
                    "patient_id": arrow.array([row[0] for row in rows], arrow.int64()),
                    "event_timestamp": arrow.array([day(row[1]) for row in rows], arrow.timestamp("us", tz="UTC")),
                    column: arrow.array([row[2] for row in rows], kind),
                }
            ),
            path,
        )
        return path

    def start_agent(self, region: str, *, limits: AgentLimits | None = None) -> RunningAgent:
        """Start the agent of a region and have the registry know it."""
        client = self.connect(home=f"agent-{region.replace(':', '-')}")
        link = RegistryLink(client, region=region)
        identity = loopback_identity()
        crossed: list[tuple[str, Any]] = []
        server = FeatureAgentServer(
            TicketJoins(link, sources=Sources(roots=(self.sources,)), region=region),
            link,
            SystemClock(),
            region=region,
            host="127.0.0.1",
            port=0,
            certificate=identity.certificate,
            key=identity.key,
            scratch=Scratch(self.server.folder / "agents"),
            limits=limits or AgentLimits(),
            observe=lambda way, table: crossed.append((way, table)),
        )
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.port}"
        client.agents.add(region=region, address=address, certificate=identity.anchor.decode())
        agent = RunningAgent(
            server=server,
            link=link,
            region=region,
            address=address,
            identity=identity,
            thread=thread,
            crossed=crossed,
        )
        agent.sign()
        self.agents[region] = agent
        return agent

    def write_replicas(self) -> None:
        """Wait until the unrestricted parts of the newest snapshot are in every region."""
        snapshot = next(iter(self.client.features.snapshots(service="screening")))
        for part in snapshot.artifacts:
            digest = str(part["digest"])
            wait_until(lambda digest=digest: len(self._regions(digest)) == 3, "the snapshot to be everywhere", 60)

    def _regions(self, digest: str) -> set[str]:
        return {each.region for each in self.client.artifacts.get(digest).replicas if each.state == "VERIFIED"}

    def forget_agent(self, region: str) -> None:
        """Stop an agent, and have the registry forget it."""
        agent = self.agents.pop(region)
        agent.stop()
        self.client.agents.remove(region=region, address=agent.address)


def entity_rows(rows: Sequence[tuple[int, float]], **columns: Any) -> Any:
    """(patient, day) as an Arrow table."""
    return arrow.table(
        {
            "patient_id": arrow.array([row[0] for row in rows], arrow.int64()),
            "event_timestamp": arrow.array([day(row[1]) for row in rows], arrow.timestamp("us", tz="UTC")),
            **columns,
        }
    )


def tagged(view: FeatureObject, **tags: str) -> FeatureObject:
    """A view with tags `fairlead.NAME`."""
    spec = json.loads(json.dumps(dict(view.spec)))
    spec["spec"]["tags"] = {f"fairlead.{name}": value for name, value in tags.items()}
    return FeatureObject(kind=view.kind, spec=spec)


def definitions(sources: Path) -> list[FeatureObject]:
    """`cells` at home in the US, `genes` (EU data) in Europe, `visits` without a home; the service `diagnosis`."""
    return [
        patient(),
        tagged(view_spec("cells", [("radius", "FLOAT")], sources / "cells.parquet", ttl="864000s"), home=US),
        tagged(view_spec("genes", [("marker", "STRING")], sources / "genes.parquet"), home=EU, residency="eu"),
        view_spec("visits", [("count", "INT64")], sources / "visits.parquet"),
        service(
            "diagnosis",
            {"cells": [("radius", "FLOAT")], "genes": [("marker", "STRING")], "visits": [("count", "INT64")]},
        ),
        service("screening", {"cells": [("radius", "FLOAT")], "visits": [("count", "INT64")]}),
    ]


@contextlib.contextmanager
def open_federation(folder: Path, url: str | None = None) -> Generator[FederationWorld]:
    """Three regions, agents of two, and a snapshot of each service."""
    database = url or f"sqlite:///{folder / 'fairlead.db'}"
    with running_server(folder, database, has_worker=True) as server, contextlib.ExitStack() as closing:
        server.service.ensure_embedded_locations([US, EU, WEST])
        sources = folder / "sources"
        sources.mkdir()
        world = FederationWorld(server=server, sources=sources, closing=closing)
        world.write("cells", "radius", arrow.float64(), CELLS)
        world.write("genes", "marker", arrow.string(), GENES)
        world.write("visits", "count", arrow.int64(), [(1, 0, 3), (2, 1, 5)])
        world.apply(definitions(sources))
        try:
            for region in (US, EU):
                world.start_agent(region)
            for name in ("diagnosis", "screening"):
                world.client.features.snapshot(name)
            yield world
        finally:
            for agent in world.agents.values():
                agent.stop()


def each_row(table: Any, *columns: str) -> Iterator[tuple[Any, ...]]:
    """The rows of some columns."""
    return zip(*(table.column(name).to_pylist() for name in columns), strict=True)
