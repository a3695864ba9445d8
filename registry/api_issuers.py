"""Routes of issuers and the token exchange."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response

from fairlead.registry.access import MayAdmin
from fairlead.registry.issuers import Rule
from fairlead.registry.schemas_issuers import ExchangeIn, IssuerIn, IssuerOut
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
        rules = [Rule(claims=each.claims, principal=each.principal, scopes=tuple(each.scopes)) for each in body.rules]
        applied = issuers.put(
            caller,
            name,
            issuer=body.issuer,
            audience=body.audience,
            rules=rules,
            jwks_url=body.jwks_url,
            expected_revision=expected,
        )
        response.headers.update(etag(applied.revision))
        return applied

    @router.delete("/issuers/{name}", status_code=204)
    def delete_issuer(name: str, caller: MayAdmin, expected: IfMatch) -> None:
        """Believe an issuer no longer."""
        issuers.delete(caller, name, expected_revision=expected)

    return router


def token_exchange_router(exchange: TokenExchange) -> APIRouter:
    """The one route that asks for no API token, since it gives one."""
    router = APIRouter(tags=["tokens"])

    @router.post("/tokens/exchange", status_code=201, response_model=IssuedTokenOut)
    def exchange_token(body: ExchangeIn) -> Any:
        """Exchange an identity token of a configured issuer for an API token of at most 15 minutes."""
        issued = exchange.exchange(body.token)
        return {**asdict(issued.token), "secret": issued.secret}

    return router
