"""Routes of promotion policies and evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response

from fairlead.registry.access import MayAdmin, MayRead, MayWrite
from fairlead.registry.promotion_policy import from_json, to_json
from fairlead.registry.schemas_promotion_policies import (
    EvaluationIn,
    EvaluationOut,
    PromotionPolicyIn,
    PromotionPolicyOut,
)
from fairlead.registry.wire import IfMatch, Listing, MayRepeat, VersionNumber, WantedPage, etag, listing

if TYPE_CHECKING:
    from fairlead.registry.evaluations import Evaluations
    from fairlead.registry.promotion_policies import AppliedPromotionPolicy, PromotionPolicies


def promotion_policies_router(policies: PromotionPolicies) -> APIRouter:
    """What the owners of models ask of a promotion."""
    router = APIRouter(tags=["promotion policies"])

    @router.get("/promotion-policies", response_model=Listing[PromotionPolicyOut])
    def list_promotion_policies(caller: MayRead, page: WantedPage) -> Any:
        """List the policies by name."""
        return listing(PromotionPolicyOut, policies.list(caller, page).map(_to_out))

    @router.get("/promotion-policies/{name}", response_model=PromotionPolicyOut)
    def get_promotion_policy(name: str, caller: MayRead, response: Response) -> Any:
        """Show a policy; its revision is the ETag."""
        found = policies.get(caller, name)
        response.headers.update(etag(found.revision))
        return _to_out(found)

    @router.put("/promotion-policies/{name}", response_model=PromotionPolicyOut)
    def put_promotion_policy(
        name: str, body: PromotionPolicyIn, caller: MayAdmin, expected: IfMatch, response: Response
    ) -> Any:
        """Apply a policy. With `If-Match`, only if it is still at that revision ("0": not there yet)."""
        wanted = from_json(body.model_dump(by_alias=True))
        applied = policies.put(caller, name, wanted, expected_revision=expected)
        response.headers.update(etag(applied.revision))
        return _to_out(applied)

    @router.delete("/promotion-policies/{name}", status_code=204)
    def delete_promotion_policy(name: str, caller: MayAdmin, expected: IfMatch) -> None:
        """Remove a policy; what it asked for is asked for no longer."""
        policies.delete(caller, name, expected_revision=expected)

    return router


def evaluations_router(evaluations: Evaluations) -> APIRouter:
    """What was measured of versions."""
    router = APIRouter(tags=["evaluations"])

    @router.post("/models/{name}/versions/{version}/evaluations", status_code=201, response_model=EvaluationOut)
    def record_evaluation(
        name: str, version: VersionNumber, body: EvaluationIn, caller: MayWrite, key: MayRepeat
    ) -> Any:
        """Record an evaluation of a version, for gates to ask."""
        return evaluations.record(
            caller, name, version, name=body.name, metrics=body.metrics, dataset=body.dataset, key=key
        )

    @router.get("/models/{name}/versions/{version}/evaluations", response_model=Listing[EvaluationOut])
    def list_evaluations(name: str, version: VersionNumber, caller: MayRead, page: WantedPage) -> Any:
        """List a version's evaluations, newest first."""
        return listing(EvaluationOut, evaluations.list(caller, name, version, page))

    return router


def _to_out(applied: AppliedPromotionPolicy) -> PromotionPolicyOut:
    return PromotionPolicyOut.model_validate(
        {
            "name": applied.name,
            **to_json(applied.policy),
            "revision": applied.revision,
            "updated_by": applied.updated_by,
            "updated_at": applied.updated_at,
        }
    )
