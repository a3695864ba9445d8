"""The wire models of webhooks and deliveries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fairlead.core.outbound import URL_MAX_LENGTH
from fairlead.registry.events import PATTERNS_MAX
from fairlead.registry.limits import DESCRIPTION_MAX_LENGTH
from fairlead.registry.schemas import Name
from fairlead.registry.wire import AnswerModel, RequestModel, Time

Url = Annotated[str, StringConstraints(min_length=1, max_length=URL_MAX_LENGTH)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Events = Annotated[
    list[Pattern],
    Field(
        max_length=PATTERNS_MAX, description="Patterns of actions; none: all.", examples=[["model.*", "version.ready"]]
    ),
]
Text = Annotated[str, StringConstraints(max_length=DESCRIPTION_MAX_LENGTH)]
SEQUENCE_MAX = 10**18 - 1


class WebhookIn(RequestModel):
    """A webhook to make. It is told of what happens from then on, or after the sequence `after`."""

    name: Name
    url: Url
    format: Annotated[
        Literal["fairlead", "openlineage"], Field(description="Events as they are, or OpenLineage's run events.")
    ] = "fairlead"
    events: Events = Field(default_factory=list[str])
    models: Annotated[Pattern, Field(description="Only events of models that match.")] = "*"
    environments: Annotated[Pattern, Field(description="Only events of environments that match.")] = "*"
    description: Text = ""
    jurisdiction: Annotated[
        str | None, Field(description="Where the receiver is: facts of restricted events go only where they may be.")
    ] = None
    credentials_env: Annotated[
        str | None,
        Field(description="Variable of the workers, FAIRLEAD_WEBHOOK_..., that holds a bearer token to send."),
    ] = None
    after: Annotated[int | None, Field(ge=0, le=SEQUENCE_MAX)] = None


class WebhookPatch(RequestModel):
    """What to change; what is left out stays."""

    url: Url | None = None
    events: Events | None = None
    models: Pattern | None = None
    environments: Pattern | None = None
    description: Text | None = None
    is_active: Annotated[bool | None, Field(description="True also ends a back-off.")] = None
    from_now: Annotated[bool, Field(description="Skip all that it was not told of.")] = False


class WebhookOut(AnswerModel):
    """A webhook, without its secret. `position` is the sequence of the last event that is done with."""

    id: str
    name: str
    title: str
    description: str
    url: str
    format: str
    events: list[str]
    models: str
    environments: str
    jurisdiction: str | None
    credentials_env: str | None
    is_signed: bool
    previous_secret_until: Time | None
    state: Literal["ACTIVE", "DISABLED"]
    state_reason: str | None
    position: int
    attempts: Annotated[int, Field(description="How often the next event was sent in vain.")]
    failing_since: Time | None
    revision: int
    created_by: str
    created_at: Time
    updated_at: Time


class SecretWebhookOut(WebhookOut):
    """A webhook and its new secret, which is shown this once."""

    secret: str


class RotationIn(RequestModel):
    """How long the old secret goes on signing beside the new one."""

    overlap_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] = 86_400


class WebhookTestOut(AnswerModel):
    """What the receiver of a test message answered; `body` is at most its first 4 KiB."""

    is_taken: bool
    status: int | None
    error: str | None
    duration_ms: int
    body: str


class DeliveryOut(AnswerModel):
    """What became of an event: PENDING (tried, or to be sent again), DELIVERED or DEAD."""

    id: str
    sequence: int
    action: str
    subject: str
    state: str
    attempts: int
    status: int | None
    error: str | None
    duration_ms: int | None
    created_at: Time
    updated_at: Time


class RedeliveryIn(RequestModel):
    """Which deliveries to send again; null: all dead letters."""

    deliveries: Annotated[list[str] | None, Field(max_length=500)] = None


class RedeliveryOut(AnswerModel):
    """How many are sent again."""

    count: int
