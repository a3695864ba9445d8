"""The wire models of tokens, the audit log and the ledger."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fairlead.registry.identity import Scope
from fairlead.registry.schemas import Name
from fairlead.registry.wire import Amount, AnswerModel, RequestModel, Time

LIFETIME_MAX_SECONDS = 10 * 366 * 86_400


class TokenIn(RequestModel):
    """A token to issue."""

    name: Name
    principal: Annotated[Name, Field(description="Who it stands for.")]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=6, description="`admin` implies all others.")]
    expires_in_seconds: Annotated[int | None, Field(ge=1, le=LIFETIME_MAX_SECONDS)] = None


class TokenOut(AnswerModel):
    """A token, without its secret."""

    id: str
    name: str
    principal: str
    scopes: list[Scope]
    created_by: str
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None


class IssuedTokenOut(TokenOut):
    """A new token; its secret is shown this once."""

    secret: str


class CallerOut(AnswerModel):
    """Who calls, as the server knows them."""

    workspace_id: str
    principal: str
    scopes: list[Scope]
    token_id: str | None


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
