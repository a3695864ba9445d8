"""Routes of deployments."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from fairlead.registry.access import MayDeploy, MayRead
from fairlead.registry.wire import Listing, MayRepeat, WantedPage, listing
from fairlead.serving.deployment_drift import DeploymentDrifts
from fairlead.serving.deployment_spec import ScalingDraft
from fairlead.serving.deployments import DeploymentDraft, Deployments
from fairlead.serving.replanning import Replanning
from fairlead.serving.schemas_deployments import (
    DeploymentIn,
    DeploymentOut,
    DeploymentPlanOut,
    ProposalOut,
    RegionDriftOut,
    RevisionOut,
    RollbackIn,
)
from fairlead.serving.schemas_targets import DocumentsOut
from fairlead.serving.strategy import strategy_from_json


def deployments_router(deployments: Deployments, drifts: DeploymentDrifts, replanning: Replanning) -> APIRouter:
    """Routes of deployments."""
    router = APIRouter(prefix="/deployments", tags=["deployments"])

    @router.post("", status_code=202)
    def apply(
        caller: MayDeploy, body: DeploymentIn, repeat: MayRepeat, response: Response
    ) -> DeploymentOut | DeploymentPlanOut:
        """Say what should run where; with `dry_run`, only what that would change and cost."""
        draft = DeploymentDraft(
            model=body.model,
            name=body.name,
            environment=body.environment,
            version=body.version,
            placement_id=body.placement_id,
            regions=None if body.regions is None else tuple(body.regions),
            targets=body.targets,
            scaling=ScalingDraft(**body.scaling.model_dump()),
            strategy=strategy_from_json(body.strategy),
        )
        if body.dry_run:
            response.status_code = 200
            return DeploymentPlanOut.model_validate(deployments.plan(caller, draft))
        applied = deployments.apply(caller, draft, plan_digest=body.plan_digest, key=repeat)
        return DeploymentOut.model_validate(applied)

    @router.get("", response_model=Listing[DeploymentOut])
    def list_deployments(caller: MayRead, page: WantedPage) -> Any:
        """Deployments by name."""
        return listing(DeploymentOut, deployments.list(caller, page))

    @router.get("/{name}", response_model=DeploymentOut)
    def get(caller: MayRead, name: str) -> Any:
        """One deployment with its regions, and the steps of its newest revision."""
        return deployments.get(caller, name)

    @router.delete("/{name}", status_code=202, response_model=DeploymentOut)
    def delete(caller: MayDeploy, name: str) -> Any:
        """Drain and stop every region, and forget the deployment."""
        return deployments.delete(caller, name)

    @router.post("/{name}/rollback", status_code=202, response_model=DeploymentOut)
    def roll_back(caller: MayDeploy, name: str, body: RollbackIn, repeat: MayRepeat) -> Any:
        """Make an earlier revision the newest, in all regions at once."""
        return deployments.roll_back(caller, name, to_revision=body.to_revision, reason=body.reason, key=repeat)

    @router.post("/{name}/replan", response_model=ProposalOut)
    def propose(caller: MayDeploy, name: str) -> Any:
        """Solve the deployment's placement anew, and plan the answer; the deployment is left as it is."""
        return replanning.propose(caller, name)

    @router.get("/{name}/revisions", response_model=Listing[RevisionOut])
    def list_revisions(caller: MayRead, name: str, page: WantedPage) -> Any:
        """The revisions of a deployment with their steps, oldest first."""
        return listing(RevisionOut, deployments.history(caller, name, page))

    @router.get("/{name}/drift", response_model=Listing[RegionDriftOut])
    def find_drift(caller: MayRead, name: str) -> Any:
        """How what runs in each region differs from what should, asked of the targets now; in one page."""
        items = [RegionDriftOut.model_validate(each) for each in drifts.find(caller, name)]
        return {"items": items, "next_page_token": None}

    @router.get("/{name}/documents", response_model=Listing[DocumentsOut])
    def render(
        caller: MayRead,
        name: str,
        target: Annotated[str | None, Query(max_length=300)] = None,
        region: Annotated[str | None, Query(max_length=300)] = None,
    ) -> Any:
        """What each region is in its target's words, or in those of another target; in one page."""
        found = drifts.render(caller, name, target=target, region=region)
        return {"items": [DocumentsOut.model_validate(each) for each in found], "next_page_token": None}

    return router
