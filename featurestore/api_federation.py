"""The routes of federated reads and of feature agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response, status

from fairlead.featurestore.agents import Crossing
from fairlead.featurestore.arrow_bodies import ARROW_STREAM, read_arrow_body
from fairlead.featurestore.duck import ArrowTable, load_arrow
from fairlead.featurestore.schemas_federation import (
    AgentAnswer,
    AgentPage,
    AgentRequest,
    AgentSign,
    AgentSignAnswer,
    CrossingRequest,
    PlanAnswer,
    PlanRequest,
    ViewVersionAnswer,
)
from fairlead.featurestore.tickets import token_hash
from fairlead.registry.access import MayAdmin, MayRead, MayWrite
from fairlead.registry.wire import WantedPage

if TYPE_CHECKING:
    from fairlead.core.ports import Clock
    from fairlead.featurestore.agents import FeatureAgents
    from fairlead.featurestore.federated_joins import FederatedJoins, ViewVersions
    from fairlead.featurestore.federation import FederatedReads

TICKET_HEADER = "X-Fairlead-Ticket"


def hash_of_token(request: Request) -> str:
    """What a ticket holds of the token that this request was let in with."""
    return token_hash(request.headers.get("authorization", "").partition(" ")[2].strip())


TokenHash = Annotated[str, Depends(hash_of_token)]


def federation_router(reads: FederatedReads, joins: FederatedJoins, versions: ViewVersions, clock: Clock) -> APIRouter:
    """Reads over views of several regions."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.post("/plan")
    def plan_read(caller: MayRead, body: PlanRequest, token: TokenHash) -> PlanAnswer:
        """Plan a read over views of several regions: who joins what where, what crosses each hop, and what it costs.

        It is refused where a residency rule forbids one of its hops; nothing has left then.
        """
        return PlanAnswer.of(reads.plan(caller, body.to_request(clock.now()), token_sha256=token))

    @router.post(
        "/federated/join",
        response_class=Response,
        responses={200: {"content": {ARROW_STREAM: {}}, "description": "Row numbers and features, as Arrow."}},
        openapi_extra={"requestBody": {"content": {ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}}}}},
    )
    def join_ticket(
        caller: MayRead,
        entity_rows: Annotated[ArrowTable, Depends(read_arrow_body)],
        token: TokenHash,
        ticket: Annotated[str, Header(alias=TICKET_HEADER, description="The ticket of a plan's hop to `service`.")],
    ) -> Response:
        """Join the part of a federated read that is joined by this service; an Arrow IPC stream both ways."""
        joined = joins.join(caller, ticket, entity_rows, token_sha256=token)
        arrow = load_arrow()
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(sink, joined.schema) as writer:
            writer.write_table(joined)
        return Response(content=sink.getvalue().to_pybytes(), media_type=ARROW_STREAM)

    @router.get("/view-versions/{digest}")
    def get_view_version(caller: MayRead, digest: str) -> ViewVersionAnswer:
        """Show the version of a view that a digest names."""
        return ViewVersionAnswer.of(versions.get(caller, digest))

    return router


def agents_router(agents: FeatureAgents) -> APIRouter:
    """Feature agents."""
    router = APIRouter(prefix="/features/agents", tags=["feature agents"])

    @router.post("")
    def register_agent(caller: MayAdmin, body: AgentRequest) -> AgentAnswer:
        """Say that a feature agent is at an address, and by what certificate it is known; again: replace that."""
        found = agents.register(
            caller, region=body.region, address=body.address, certificate=body.certificate, principal=body.principal
        )
        return AgentAnswer.of(found)

    @router.get("")
    def list_agents(caller: MayRead, page: WantedPage) -> AgentPage:
        """Feature agents, by region and address."""
        found = agents.list(caller, page).map(AgentAnswer.of)
        return AgentPage(items=list(found.items), next_page_token=found.next_page_token)

    @router.delete("", status_code=status.HTTP_204_NO_CONTENT)
    def remove_agent(
        caller: MayAdmin, region: Annotated[str, Query()], address: Annotated[str, Query(max_length=255)]
    ) -> None:
        """Forget a feature agent."""
        agents.remove(caller, region=region, address=address)

    @router.post("/sign")
    def hear_agent(caller: MayWrite, body: AgentSign) -> AgentSignAnswer:
        """Hear from an agent that it serves, or leaves; answer the keys that sign tickets."""
        found = agents.hear(
            caller,
            region=body.region,
            address=body.address,
            certificate_sha256=body.certificate_sha256,
            leaves=body.leaves,
        )
        return AgentSignAnswer(
            agent=AgentAnswer.of(found),
            workspace=caller.workspace_id,
            ticket_keys=[key.hex() for key in agents.public_keys],
        )

    @router.post("/crossings", status_code=status.HTTP_204_NO_CONTENT)
    def report_crossing(caller: MayWrite, body: CrossingRequest) -> None:
        """Note what went through an agent for one call: in the ledger, each way, and in the audit log."""
        crossing = Crossing(
            call=body.call, rows=body.rows, bytes_in=body.bytes_in, bytes_out=body.bytes_out, error=body.error
        )
        agents.report(caller, body.ticket, crossing)

    return router
