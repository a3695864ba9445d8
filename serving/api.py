"""Serving's routes: placements, bundles, deployments."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from fairlead.registry.access import MayDeploy, MayRead, MayWrite
from fairlead.registry.wire import MayRepeat, WantedPage
from fairlead.serving.bundles import Bundles
from fairlead.serving.deployments import DeploymentDraft, Deployments
from fairlead.serving.placements import Placements
from fairlead.serving.schemas import (
    BundleIn,
    BundleOut,
    BundlePage,
    DeploymentIn,
    DeploymentOut,
    DeploymentPage,
    DeploymentPlanOut,
    PlacementOut,
)


def serving_routers(placements: Placements, bundles: Bundles, deployments: Deployments) -> list[APIRouter]:
    """The routers of this package, to be mounted under `/api/v1`."""
    return [placements_router(placements), bundles_router(bundles), deployments_router(deployments)]


def placements_router(placements: Placements) -> APIRouter:
    """Routes of placements."""
    router = APIRouter(prefix="/placements", tags=["placements"])

    @router.post("", status_code=201)
    def create(caller: MayWrite, document: Annotated[dict[str, Any], Body()]) -> PlacementOut:
        """Solve a placement request; `reference` fills in what is known of a model version."""
        return PlacementOut.model_validate(placements.create(caller, document))

    @router.get("/{placement_id}")
    def get(caller: MayRead, placement_id: str) -> PlacementOut:
        """One placement."""
        return PlacementOut.model_validate(placements.get(caller, placement_id))

    return router


def bundles_router(bundles: Bundles) -> APIRouter:
    """Routes of bundles."""
    router = APIRouter(prefix="/bundles", tags=["bundles"])

    @router.post("", status_code=202)
    def request(caller: MayDeploy, body: BundleIn) -> BundleOut:
        """Ask for the bundle of a version; asking again gives the same one."""
        return BundleOut.model_validate(bundles.request(caller, body.reference))

    @router.get("/{bundle_id}")
    def get(caller: MayRead, bundle_id: str) -> BundleOut:
        """One bundle."""
        return BundleOut.model_validate(bundles.get(caller, bundle_id))

    @router.get("")
    def list_bundles(caller: MayRead, page: WantedPage, reference: str | None = None) -> BundlePage:
        """Bundles, oldest first."""
        found = bundles.list(caller, page, reference=reference).map(BundleOut.model_validate)
        return BundlePage(items=list(found.items), next_page_token=found.next_page_token)

    return router


def deployments_router(deployments: Deployments) -> APIRouter:
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
        )
        if body.dry_run:
            response.status_code = 200
            return DeploymentPlanOut.model_validate(deployments.plan(caller, draft))
        return DeploymentOut.model_validate(deployments.apply(caller, draft, key=repeat))

    @router.get("")
    def list_deployments(caller: MayRead, page: WantedPage) -> DeploymentPage:
        """Deployments by name."""
        found = deployments.list(caller, page).map(DeploymentOut.model_validate)
        return DeploymentPage(items=list(found.items), next_page_token=found.next_page_token)

    @router.get("/{name}")
    def get(caller: MayRead, name: str) -> DeploymentOut:
        """One deployment with its regions."""
        return DeploymentOut.model_validate(deployments.get(caller, name))

    @router.delete("/{name}", status_code=202)
    def delete(caller: MayDeploy, name: str) -> DeploymentOut:
        """Drain and stop every region, and forget the deployment."""
        return DeploymentOut.model_validate(deployments.delete(caller, name))

    return router
