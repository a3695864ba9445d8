"""The calls of federated reads and feature agents, on an agent that serves and tickets that are good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fairlead.app.feature_agent import loopback_identity
from fairlead.core.ids import new_row_id
from fairlead.featurestore.federation_plan import EntityColumn, FederatedRequest
from fairlead.featurestore.ticket_joins import ROW_NUMBER
from fairlead.featurestore.tickets import token_hash
from tests.featurestore.feature_fleet import entity_rows
from tests.featurestore.test_api import ipc

if TYPE_CHECKING:
    from fairlead.app.service import Service
    from tests.record_world import World

REGION, ADDRESS = "aws:us-east-1", "127.0.0.1:8490"
COLUMNS = [{"name": name, "bytes": 8} for name in ("patient_id", "event_timestamp")]


def federation_calls(service: Service, world: World) -> dict[str, dict[str, Any]]:
    """What each route is called with, as members of a `Call`."""
    agents = service.federation.agents
    identity = loopback_identity()
    certificate = identity.anchor.decode()
    agents.register(world.owner, region=REGION, address=ADDRESS, certificate=certificate)
    agents.hear(
        world.owner,
        region=REGION,
        address=ADDRESS,
        certificate_sha256=identity.certificate_sha256,
        leaves=False,
    )
    arrow: Any = pa
    numbered = entity_rows([(1, 5)]).append_column(ROW_NUMBER, arrow.array([0], arrow.int64()))
    return {
        "POST /features/agents": {
            "path": "/features/agents",
            "body": {"region": REGION, "address": "127.0.0.1:8491", "certificate": certificate},
        },
        "DELETE /features/agents": {"path": f"/features/agents?region={REGION}&address={ADDRESS}"},
        "POST /features/agents/sign": {
            "path": "/features/agents/sign",
            "body": {"region": REGION, "address": ADDRESS, "certificate_sha256": identity.certificate_sha256},
        },
        "POST /features/agents/crossings": {
            "path": "/features/agents/crossings",
            "body": {
                "ticket": ticket_of(service, world, REGION),
                "call": new_row_id(),
                "rows": 1,
                "bytes_in": 24,
                "bytes_out": 12,
            },
        },
        "POST /features/plan": {
            "path": "/features/plan",
            "body": {"features": ["cells:radius"], "rows": 1, "columns": COLUMNS},
        },
        "POST /features/federated/join": {
            "path": "/features/federated/join",
            "content": ipc(numbered),
            "headers": {"x-fairlead-ticket": ticket_of(service, world, None)},
        },
    }


def ticket_of(service: Service, world: World, region: str | None) -> str:
    """A ticket for the agent of a region, or (None) for the service."""
    wanted = FederatedRequest(
        service=None,
        features=("cells:radius",),
        snapshot=None,
        live_until=None,
        region=region,
        residency="unrestricted",
        rows=1,
        columns=tuple(EntityColumn(name=str(each["name"]), bytes=8) for each in COLUMNS),
        on_unavailable="error",
    )
    plan = service.federation.reads.plan(world.owner, wanted, token_sha256=token_hash(world.owner_secret))
    ticket = plan.hops[0].ticket
    assert ticket is not None
    return ticket
