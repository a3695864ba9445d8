"""The wire models of tokens, the audit log and the ledger."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fairlead.registry.identity import GROUPS_MAX, OVERLAP_MAX
from fairlead.registry.permissions import PATTERNS_MAX, Scope
from fairlead.registry.schemas import Name
from fairlead.registry.wire import Amount, AnswerModel, RequestModel, Time

LIFETIME_MAX_SECONDS = 10 * 366 * 86_400


class TokenIn(RequestModel):
    """A token to issue."""

    name: Name
    principal: Annotated[Name, Field(description="Who it stands for.")]
    scopes: Annotated[
        list[Scope],
        Field(min_length=1, max_length=7, description="The most it is good for; `admin` implies all but `server`."),
    ]
    groups: Annotated[
        list[Name], Field(default_factory=list[Name], max_length=GROUPS_MAX, description="Groups of the principal.")
    ]
    by_roles: Annotated[bool, Field(description="Good for what the roles of its principal and groups give.")] = False
    models: Annotated[list[Name] | None, Field(min_length=1, max_length=PATTERNS_MAX, description="None: all.")] = None
    environments: Annotated[
        list[Name] | None, Field(min_length=1, max_length=PATTERNS_MAX, description="None: all.")
    ] = None
    expires_in_seconds: Annotated[int | None, Field(ge=1, le=LIFETIME_MAX_SECONDS)] = None


class TokenRotationIn(RequestModel):
    """How long the old token goes on beside the new one."""

    overlap_seconds: Annotated[int, Field(ge=0, le=int(OVERLAP_MAX.total_seconds()))] = 86_400


class TokenOut(AnswerModel):
    """A token, without its secret."""

    id: str
    name: str
    principal: str
    scopes: list[Scope]
    groups: list[str]
    by_roles: bool
    models: list[str] | None
    environments: list[str] | None
    created_by: str
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None


class IssuedTokenOut(TokenOut):
    """A new token; its secret is shown this once."""

    secret: str


class GrantOut(AnswerModel):
    """Scopes for the models, and in the environments, that match each of the patterns; none: for all."""

    scopes: list[Scope]
    models: list[str]
    environments: list[str]


class CallerOut(AnswerModel):
    """Who calls, as the server knows them: what they hold everywhere (`scopes`), and for some models (`grants`)."""

    workspace_id: str
    principal: str
    groups: list[str]
    scopes: list[Scope]
    grants: list[GrantOut]
    roles: Annotated[
        list[str], Field(description="Roles that are bound to the principal or a group, as `ROLE MODELS ENVIRONMENTS`.")
    ]
    token_id: str | None
    expires_at: Time | None


class AuditEventOut(AnswerModel):
    """What happened, by whom; `sequence` and hashes are null until it is sealed, within a second or so."""

    id: str
    residency: str
    actor: str
    action: str
    subject: str
    facts: dict[str, Any]
    happened_at: Time
    sequence: int | None
    previous_hash: str | None
    event_hash: str | None


class VerificationOut(AnswerModel):
    """What reading the whole chain found. Keep `anchor` elsewhere: with it, cutting off the tail shows too."""

    is_intact: bool
    sealed: int
    unsealed: int
    anchor: Annotated[str | None, Field(description="The chain's head, as SEQUENCE:HASH.")]
    problem: Annotated[str | None, Field(description="edited, broken, missing or cut.")]
    sequence: Annotated[int | None, Field(description="Where the problem is.")]


class LedgerEntryOut(AnswerModel):
    """What one move or deployment cost; dollars and grams are decimal text."""

    id: str
    residency: str
    cause: str
    kind: str
    subject: str
    source_region: str | None
    region: str
    planned_bytes: int
    moved_bytes: int
    planned_usd: Amount
    actual_usd: Amount
    gco2: Amount
    gco2_method: str
    price_source: str
    labels: dict[str, Any]
    recorded_at: Time


class LedgerSumOut(AnswerModel):
    """Exact sums over the entries that share a key; it is empty for those without such a label."""

    key: str
    entries: int
    planned_bytes: int
    moved_bytes: int
    planned_usd: Amount
    actual_usd: Amount
    gco2: Amount
