"""Routes of environments, promotions and roll-backs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from fairlead.registry.access import MayAdmin, MayApprove, MayPromote, MayRead
from fairlead.registry.environments import Environments
from fairlead.registry.gates import parse_moment
from fairlead.registry.history import History
from fairlead.registry.policy import MetricGate, Policy
from fairlead.registry.promotion import Promotions
from fairlead.registry.promotion_record import AWAITING_APPROVAL
from fairlead.registry.rollback import Rollbacks
from fairlead.registry.schemas_promotion import (
    DecisionIn,
    EnvironmentIn,
    EnvironmentOut,
    HoldingOut,
    PolicyIn,
    PromotionIn,
    PromotionOut,
    RollbackIn,
    RollbackOut,
)
from fairlead.registry.wire import (
    ExpectedRevision,
    IfMatch,
    Listing,
    MayRepeat,
    WantedPage,
    etag,
    listing,
    require_if_match,
)

_PROMOTION_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": PromotionOut, "description": "The plan of a dry run; nothing was kept."},
    202: {"model": PromotionOut, "description": "It waits for approval."},
}


def environments_router(environments: Environments) -> APIRouter:
    """Environments and their policies."""
    router = APIRouter(tags=["environments"])

    @router.get("/environments", response_model=Listing[EnvironmentOut])
    def list_environments(caller: MayRead, page: WantedPage) -> Any:
        """List environments in their order."""
        return listing(EnvironmentOut, environments.list(caller, page))

    @router.get("/environments/{environment}", response_model=EnvironmentOut)
    def get_environment(environment: str, caller: MayRead, response: Response) -> Any:
        """Show an environment; its policy's revision is the ETag."""
        found = environments.get(caller, environment)
        response.headers.update(etag(found.revision))
        return found

    @router.put("/environments/{environment}", response_model=EnvironmentOut)
    def put_environment(
        environment: str, body: EnvironmentIn, caller: MayAdmin, expected: ExpectedRevision, response: Response
    ) -> Any:
        """Create an environment, or replace its rank and policy."""
        changed = environments.put(
            caller, environment, rank=body.rank, wanted=_to_policy(body.policy), expected_revision=expected
        )
        response.headers.update(etag(changed.revision))
        return changed

    return router


def promotions_router(promotions: Promotions) -> APIRouter:
    """Promotions and approvals."""
    router = APIRouter(tags=["promotions"])

    @router.post(
        "/models/{name}/promotions", status_code=201, response_model=PromotionOut, responses=_PROMOTION_ANSWERS
    )
    def promote(  # noqa: PLR0917  (a route's parts)
        name: str, body: PromotionIn, caller: MayPromote, if_match: IfMatch, key: MayRepeat, response: Response
    ) -> Any:
        """Ask for an environment to point at a version; applied at once if every gate passes and none waits."""
        if body.dry_run:
            response.status_code = 200
            return promotions.plan(
                caller,
                name,
                body.version,
                body.environment,
                expected_revision=if_match,
                is_emergency=body.emergency,
            )
        asked = promotions.request(
            caller,
            name,
            body.version,
            body.environment,
            expected_revision=require_if_match(if_match),
            reason=body.reason,
            is_emergency=body.emergency,
            basis=body.basis,
            key=key,
        )
        response.status_code = 202 if asked.state == AWAITING_APPROVAL else 201
        response.headers.update(etag(asked.base_revision if asked.revision is None else asked.revision))
        return asked

    @router.get("/promotions", response_model=Listing[PromotionOut])
    def list_promotions(
        caller: MayRead,
        page: WantedPage,
        model: Annotated[str | None, Query()] = None,
        state: Annotated[str | None, Query(description="AWAITING_APPROVAL, APPLIED, REFUSED ...")] = None,
    ) -> Any:
        """List promotions, newest first."""
        return listing(PromotionOut, promotions.list(caller, page, model=model, state=state))

    @router.get("/promotions/{promotion}", response_model=PromotionOut)
    def get_promotion(promotion: str, caller: MayRead) -> Any:
        """Show a promotion with its plan and approvals."""
        return promotions.get(caller, promotion)

    @router.post("/promotions/{promotion}/approve", response_model=PromotionOut)
    def approve(promotion: str, body: DecisionIn, caller: MayApprove) -> Any:
        """Approve a promotion that someone else asked for; the last approval needed applies it."""
        return promotions.approve(caller, promotion, comment=body.comment)

    @router.post("/promotions/{promotion}/reject", response_model=PromotionOut)
    def reject(promotion: str, body: DecisionIn, caller: MayApprove) -> Any:
        """End a promotion that awaits approval."""
        return promotions.reject(caller, promotion, comment=body.comment)

    @router.post("/promotions/{promotion}/withdraw", response_model=PromotionOut)
    def withdraw(promotion: str, body: DecisionIn, caller: MayPromote) -> Any:
        """Take back a promotion that one asked for oneself and that awaits approval."""
        return promotions.withdraw(caller, promotion, comment=body.comment)

    return router


def history_router(history: History) -> APIRouter:
    """Answers for the past."""
    router = APIRouter(tags=["promotions"])

    @router.get("/models/{name}/history/{alias}/at", response_model=HoldingOut)
    def get_holding(
        name: str,
        alias: str,
        caller: MayRead,
        time: Annotated[str | None, Query(description="RFC 3339; none: now.")] = None,
    ) -> Any:
        """Which version held an alias or environment at a time, by whose word, through which gates, and what it was."""
        return history.held_at(caller, name, alias, None if time is None else parse_moment(time))

    return router


def rollbacks_router(rollbacks: Rollbacks) -> APIRouter:
    """Roll-backs."""
    router = APIRouter(tags=["promotions"])

    @router.post("/models/{name}/environments/{environment}/rollback", response_model=RollbackOut)
    def roll_back(  # noqa: PLR0917  (a route's parts)
        name: str,
        environment: str,
        body: RollbackIn,
        caller: MayPromote,
        expected: ExpectedRevision,
        response: Response,
    ) -> Any:
        """Move an environment back to a recent holder, at once; for the role `on-call`, and no gate is asked again."""
        done = rollbacks.move_back(
            caller, name, environment, expected_revision=expected, reason=body.reason, to_version=body.to_version
        )
        response.headers.update(etag(done.move.revision))
        return {**asdict(done.move), "not_rechecked": list(done.not_rechecked)}

    return router


def _to_policy(body: PolicyIn) -> Policy:
    return Policy(
        gates=tuple(
            MetricGate(metric=gate.metric, comparison=gate.comparison, limit=gate.limit) for gate in body.gates
        ),
        required_regions=tuple(dict.fromkeys(body.required_regions)),
        approvals=body.approvals,
        previous_environment=body.previous_environment,
        residency=tuple(dict.fromkeys(body.residency)),
    )
