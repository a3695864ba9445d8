"""What crosses the wire about federated reads and feature agents."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from fairlead.core.clock import format_time
from fairlead.featurestore.agents import AgentState, FeatureAgent
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.federation_plan import EntityColumn, FederatedPlan, FederatedRequest, Joiner, OnUnavailable
from fairlead.registry.ledger import decimal_text

Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]
Usd = Annotated[Decimal, PlainSerializer(decimal_text, return_type=str)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class EntityColumnRequest(_Body):
    """A column of the entity rows: its name and what it weighs; none of its values."""

    name: Annotated[str, Field(max_length=255)]
    bytes: Annotated[int, Field(ge=0)]


class PlanRequest(_Body):
    """A federated read to plan: a `service` (of a `snapshot`, or its newest), or `features` as `view:feature`."""

    service: str | None = None
    features: Annotated[list[str], Field(max_length=2000)] = Field(default_factory=list[str])
    snapshot: str | None = None
    live: Annotated[bool, Field(description="Read the views' sources in place of snapshots.")] = False
    live_until: Annotated[AwareDatetime | None, Field(description="Up to when; the present if left out.")] = None
    region: Annotated[str | None, Field(description="Where the reader is and the result goes.")] = None
    residency: Annotated[str, Field(description="Residency class of the entity rows.")] = "unrestricted"
    rows: Annotated[int, Field(ge=0)]
    columns: Annotated[list[EntityColumnRequest], Field(max_length=2000)]
    on_unavailable: OnUnavailable = "error"

    def to_request(self, now: datetime) -> FederatedRequest:
        """The request as a value."""
        is_live = self.live or self.live_until is not None
        return FederatedRequest(
            service=self.service,
            features=tuple(self.features),
            snapshot=self.snapshot,
            live_until=(self.live_until or now) if is_live else None,
            region=self.region,
            residency=self.residency.lower(),
            rows=self.rows,
            columns=tuple(EntityColumn(name=column.name, bytes=column.bytes) for column in self.columns),
            on_unavailable=self.on_unavailable,
        )


class OutputAnswer(_Answer):
    """A column of the result: what it is called, its Feast type, and where it comes from."""

    column: str
    alias: str
    feature: str
    type: str
    is_hidden: bool


class MovingAnswer(_Answer):
    """The alternative: a replica in the reader's region. `pays_after` is after how many reads like this one."""

    bytes: int
    usd: Usd
    pays_after: int | None
    refused: str | None


class HopViewAnswer(_Answer):
    """One view of a hop, and the snapshot that is joined (null: its source)."""

    alias: str
    view: str
    residencies: list[str]
    features: list[str]
    bytes_back: int
    snapshot: str | None
    as_of: Time | None
    moving: MovingAnswer | None


class HopAgentAnswer(_Answer):
    """Who joins, and by what it is known."""

    region: str
    address: str
    certificate: str
    certificate_sha256: str


class StandInAnswer(_Answer):
    """What answers in place of a region that does not: an older snapshot, or (without a joiner) no values."""

    joiner: Joiner | None
    agent: HopAgentAnswer | None
    ticket: str | None
    views: list[HopViewAnswer]
    age_seconds: float | None


class HopAnswer(_Answer):
    """Views that are joined in one region. Bytes out are known; bytes back, and so dollars, are estimates."""

    region: str | None
    joiner: Joiner
    agent: HopAgentAnswer | None
    ticket: str | None
    views: list[HopViewAnswer]
    columns: list[str]
    bytes_out: int
    bytes_back: int
    usd_out: Usd
    usd_back: Usd
    price_source: str
    problem: str | None
    stand_in: StandInAnswer | None


class PlanAnswer(_Answer):
    """A federated read as it is going to be. Tickets are good until `expires_at`, with the token that asked."""

    read: str
    service: str
    service_digest: str | None
    snapshot: str | None
    live_until: Time | None
    region: str | None
    residency: str
    on_unavailable: OnUnavailable
    rows: int
    outputs: list[OutputAnswer]
    hops: list[HopAnswer]
    usd: Usd
    expires_at: Time

    @classmethod
    def of(cls, plan: FederatedPlan) -> PlanAnswer:
        """Render a record."""
        return cls.model_validate(plan)


class AgentRequest(_Body):
    """An agent to register; `principal` is who runs it, the caller if left out."""

    region: str
    address: Annotated[str, Field(max_length=255, examples=["agents.example.com:8490"])]
    certificate: Annotated[str, Field(max_length=65536, description="PEM of its certificate, or its authority's.")]
    principal: str | None = None


class AgentSign(_Body):
    """That an agent serves, or leaves."""

    region: str
    address: Annotated[str, Field(max_length=255)]
    certificate_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    leaves: bool = False


class AgentAnswer(_Answer):
    """A feature agent. AWAY: it has not said for a while that it serves."""

    region: str
    address: str
    state: AgentState
    certificate_sha256: str
    principal: str
    registered_by: str
    registered_at: Time
    seen_at: Time | None

    @classmethod
    def of(cls, agent: FeatureAgent) -> AgentAnswer:
        """Render a record."""
        return cls.model_validate(agent)


class AgentPage(BaseModel):
    """Some agents, by region."""

    items: list[AgentAnswer]
    next_page_token: str | None


class AgentSignAnswer(BaseModel):
    """What an agent needs to know: itself as it is registered, and the keys (hexadecimal) that sign tickets."""

    agent: AgentAnswer
    workspace: str
    ticket_keys: list[str]


class CrossingRequest(_Body):
    """What went through an agent for one call of a ticket."""

    ticket: Annotated[str, Field(max_length=262144)]
    call: Annotated[str, Field(max_length=36, description="A UUID: what is told twice counts once.")]
    rows: Annotated[int, Field(ge=0)]
    bytes_in: Annotated[int, Field(ge=0)]
    bytes_out: Annotated[int, Field(ge=0)]
    error: Annotated[str | None, Field(max_length=63)] = None


class ViewVersionAnswer(BaseModel):
    """A version of a view: its content, and what is no part of it."""

    content: dict[str, Any]
    residency: str
    column_residency: dict[str, str]

    @classmethod
    def of(cls, view: ViewDefinition) -> ViewVersionAnswer:
        """Render a record."""
        return cls(content=view.content(), residency=view.residency, column_residency=dict(view.column_residency))
