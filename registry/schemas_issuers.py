"""The wire models of issuers and the token exchange."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from fairlead.registry.issuers import CLAIMS_MAX, RULES_MAX, TEXT_MAX_LENGTH
from fairlead.registry.permissions import PATTERNS_MAX, Scope
from fairlead.registry.token_exchange import TOKEN_MAX_LENGTH
from fairlead.registry.wire import AnswerModel, RequestModel, Time

Text = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_MAX_LENGTH)]

Limits = Annotated[list[Text] | None, Field(min_length=1, max_length=PATTERNS_MAX, description="None: to all.")]


class RuleIn(RequestModel):
    """Whom a token stands for whose claims all match; `*` and `?` are wild cards."""

    claims: Annotated[
        dict[Text, Text], Field(min_length=1, max_length=CLAIMS_MAX, examples=[{"repository": "acme/churn"}])
    ]
    principal: Annotated[Text, Field(description="`{claim}` stands for a claim.", examples=["ci/{repository}"])]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=7, description="The most that is given.")]
    by_roles: Annotated[bool, Field(description="Give what the roles of the principal and its groups give.")] = False
    models: Limits = None
    environments: Limits = None


class IssuerIn(RequestModel):
    """An issuer to believe."""

    issuer: Annotated[Text, Field(examples=["https://token.actions.githubusercontent.com"])]
    audience: Annotated[Text, Field(description="What its tokens must be made out to: this server's address.")]
    rules: Annotated[list[RuleIn], Field(min_length=1, max_length=RULES_MAX, description="The first that matches.")]
    jwks_url: Annotated[Text | None, Field(description="Where its keys are, if discovery does not say.")] = None
    client_id: Annotated[Text | None, Field(description="The public client that people log in with.")] = None
    groups_claim: Annotated[Text | None, Field(description="The claim that lists groups.", examples=["groups"])] = None


class RuleOut(AnswerModel):
    """Whom a token stands for whose claims all match."""

    claims: dict[str, str]
    principal: str
    scopes: list[Scope]
    by_roles: bool
    models: list[str] | None
    environments: list[str] | None


class IssuerOut(AnswerModel):
    """An issuer that is believed; `revision` is the answer's ETag."""

    name: str
    issuer: str
    audience: str
    rules: list[RuleOut]
    jwks_url: str | None
    client_id: str | None
    groups_claim: str | None
    revision: int
    updated_by: str
    updated_at: Time


class ExchangeIn(RequestModel):
    """An identity token of a configured issuer."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=TOKEN_MAX_LENGTH)]
    workspace: Annotated[Text | None, Field(description="Which one, where several believe the issuer.")] = None


class LoginOut(AnswerModel):
    """Where the people of a workspace log in, and as which public client."""

    workspace: str
    name: str
    issuer: str
    client_id: str
