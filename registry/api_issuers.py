"""Routes of issuers and the token exchange."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Response

from fairlead.registry.access import MayAdmin
from fairlead.registry.issuers import Rule
from fairlead.registry.paging import Page
from fairlead.registry.schemas_issuers import ExchangeIn, IssuerIn, IssuerOut, LoginOut
from fairlead.registry.schemas_operations import IssuedTokenOut
from fairlead.registry.wire import IfMatch, Listing, WantedPage, etag, listing

if TYPE_CHECKING:
    from fairlead.registry.issuers import Issuers
    from fairlead.registry.token_exchange import TokenExchange


def issuers_router(issuers: Issuers) -> APIRouter:
    """Whose identity tokens are believed."""
    router = APIRouter(tags=["issuers"])

    @router.get("/issuers", response_model=Listing[IssuerOut])
    def list_issuers(caller: MayAdmin, page: WantedPage) -> Any:
        """List the issuers by name."""
        return listing(IssuerOut, issuers.list(caller, page))

    @router.get("/issuers/{name}", response_model=IssuerOut)
    def get_issuer(name: str, caller: MayAdmin, response: Response) -> Any:
        """Show an issuer; its revision is the ETag."""
        found = issuers.get(caller, name)
        response.headers.update(etag(found.revision))
        return found

    @router.put("/issuers/{name}", response_model=IssuerOut)
    def put_issuer(name: str, body: IssuerIn, caller: MayAdmin, expected: IfMatch, response: Response) -> Any:
        """Believe an issuer. With `If-Match`, only if it is still at that revision ("0": not there yet)."""
        rules = [
            Rule(
                claims=each.claims,
                principal=each.principal,
                scopes=tuple(each.scopes),
                by_roles=each.by_roles,
                models=None if each.models is None else tuple(each.models),
                environments=None if each.environments is None else tuple(each.environments),
            )
            for each in body.rules
        ]
        applied = issuers.put(
            caller,
            name,
            issuer=body.issuer,
            audience=body.audience,
            rules=rules,
            jwks_url=body.jwks_url,
            client_id=body.client_id,
            groups_claim=body.groups_claim,
            expected_revision=expected,
        )
        response.headers.update(etag(applied.revision))
        return applied

    @router.delete("/issuers/{name}", status_code=204)
    def delete_issuer(name: str, caller: MayAdmin, expected: IfMatch) -> None:
        """Believe an issuer no longer."""
        issuers.delete(caller, name, expected_revision=expected)

    return router


def token_exchange_router(exchange: TokenExchange, issuers: Issuers) -> APIRouter:
    """What is asked without an API token: for one, and where to log in for one."""
    router = APIRouter(tags=["tokens"])

    @router.post("/tokens/exchange", status_code=201, response_model=IssuedTokenOut)
    def exchange_token(body: ExchangeIn) -> Any:
        """Exchange an identity token of a configured issuer for an API token of at most 15 minutes."""
        issued = exchange.exchange(body.token, workspace=body.workspace)
        return {**asdict(issued.token), "secret": issued.secret}

    @router.get("/login", response_model=Listing[LoginOut])
    def list_logins(workspace: Annotated[str | None, Query(max_length=63)] = None) -> Any:
        """List where people log in, of one workspace or of all."""
        found = tuple(issuers.logins(workspace=workspace))
        return listing(LoginOut, Page(items=found, next_page_token=None))

    return router
