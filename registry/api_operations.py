"""Routes of tokens, the audit log and the ledger."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fairlead.core.audit_chain import parse_anchor
from fairlead.registry.access import IsKnown, MayAdmin, MayRead
from fairlead.registry.audit import AuditLog
from fairlead.registry.identity import Reach, Tokens
from fairlead.registry.ledger import Ledger
from fairlead.registry.paging import Page
from fairlead.registry.schemas_operations import (
    AuditEventOut,
    CallerOut,
    IssuedTokenOut,
    LedgerEntryOut,
    LedgerSumOut,
    TokenIn,
    TokenOut,
    TokenRotationIn,
    VerificationOut,
)
from fairlead.registry.wire import Listing, MayRepeat, WantedPage, listing

NewestFirst = Annotated[bool, Query(description="Begin with the newest.")]


def tokens_router(tokens: Tokens) -> APIRouter:
    """API tokens, and who calls."""
    router = APIRouter(tags=["tokens"])

    @router.get("/whoami", response_model=CallerOut)
    def whoami(caller: IsKnown) -> Any:
        """Show who the token stands for, and what they may do."""
        grants = [{**grant._asdict(), "scopes": sorted(grant.scopes)} for grant in caller.grants]
        return {**asdict(caller), "scopes": sorted(caller.scopes), "grants": grants, "roles": tokens.roles(caller)}

    @router.post("/tokens", status_code=201, response_model=IssuedTokenOut)
    def create_token(body: TokenIn, caller: MayAdmin, key: MayRepeat) -> Any:
        """Issue a token; its secret is in this answer only."""
        lifetime = None if body.expires_in_seconds is None else timedelta(seconds=body.expires_in_seconds)
        reach = Reach(
            scopes=body.scopes,
            groups=body.groups,
            by_roles=body.by_roles,
            models=body.models,
            environments=body.environments,
        )
        issued = tokens.create(
            caller, name=body.name, principal=body.principal, reach=reach, expires_in=lifetime, key=key
        )
        return {**asdict(issued.token), "secret": issued.secret}

    @router.post("/tokens/{token}/rotate", status_code=201, response_model=IssuedTokenOut)
    def rotate_token(token: str, body: TokenRotationIn, caller: MayAdmin, key: MayRepeat) -> Any:
        """Issue a successor of a token; the old one ends after the overlap."""
        issued = tokens.rotate(caller, token, overlap=timedelta(seconds=body.overlap_seconds), key=key)
        return {**asdict(issued.token), "secret": issued.secret}

    @router.get("/tokens", response_model=Listing[TokenOut])
    def list_tokens(caller: MayAdmin, page: WantedPage) -> Any:
        """List tokens, without their secrets."""
        return listing(TokenOut, tokens.list(caller, page))

    @router.delete("/tokens/{token}", response_model=TokenOut)
    def revoke_token(token: str, caller: MayAdmin) -> Any:
        """End a token at once."""
        return tokens.revoke(caller, token)

    return router


def audit_router(log: AuditLog) -> APIRouter:
    """The audit log."""
    router = APIRouter(tags=["audit"])

    @router.get("/audit", response_model=Listing[AuditEventOut])
    def list_events(
        caller: MayRead,
        page: WantedPage,
        subject: Annotated[str | None, Query()] = None,
        action: Annotated[str | None, Query()] = None,
        *,
        newest_first: NewestFirst = False,
    ) -> Any:
        """List what happened, oldest first."""
        return listing(AuditEventOut, log.list(caller, page, subject=subject, action=action, newest_first=newest_first))

    @router.get("/audit/verification", response_model=VerificationOut)
    def verify_events(
        caller: MayRead,
        anchor: Annotated[str | None, Query(description="An anchor that was exported, as SEQUENCE:HASH.")] = None,
    ) -> Any:
        """Recompute the whole chain and say whether anyone changed it."""
        found = log.verify(caller, anchor=None if anchor is None else parse_anchor(anchor))
        return {**asdict(found), "anchor": None if found.head is None else str(found.head)}

    return router


def ledger_router(ledger: Ledger) -> APIRouter:
    """The ledger."""
    router = APIRouter(tags=["ledger"])

    @router.get("/ledger", response_model=Listing[LedgerEntryOut])
    def list_entries(
        caller: MayRead,
        page: WantedPage,
        subject: Annotated[str | None, Query()] = None,
        kind: Annotated[str | None, Query()] = None,
        *,
        newest_first: NewestFirst = False,
    ) -> Any:
        """List what moves and deployments cost, oldest first."""
        return listing(LedgerEntryOut, ledger.list(caller, page, subject=subject, kind=kind, newest_first=newest_first))

    @router.get("/ledger/summary", response_model=Listing[LedgerSumOut])
    def summarize(
        caller: MayRead,
        by: Annotated[str, Query(description="`kind`, `region`, or a label such as `team`.")] = "kind",
    ) -> Any:
        """Sum the ledger, exactly, by kind, by region or by a label."""
        sums = tuple(ledger.summarize(caller, by=by))
        return listing(LedgerSumOut, Page(items=sums, next_page_token=None))

    return router
