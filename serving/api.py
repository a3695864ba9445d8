"""Serving's routes: placements, bundles, deployments."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from fairlead.registry.access import MayRead, MayWrite
from fairlead.serving.api_deployments import deployments_router
from fairlead.serving.deployment_drift import DeploymentDrifts
from fairlead.serving.deployments import Deployments
from fairlead.serving.placements import Placements
from fairlead.serving.replanning import Replanning
from fairlead.serving.schemas import (
    FleetPlacementOut,
    PlacementOut,
)


def serving_routers(
    placements: Placements, deployments: Deployments, drifts: DeploymentDrifts, replanning: Replanning
) -> list[APIRouter]:
    """The routers of this package, to be mounted under `/api/v1`."""
    return [placements_router(placements), deployments_router(deployments, drifts, replanning)]


def placements_router(placements: Placements) -> APIRouter:
    """Routes of placements."""
    router = APIRouter(prefix="/placements", tags=["placements"])

    @router.post("", status_code=201)
    def create(caller: MayWrite, document: Annotated[dict[str, Any], Body()]) -> PlacementOut:
        """Solve a placement request; `reference` fills in what is known of a model version.

        `what_if` changes the request and compares; `include` asks for `explanation`, `pareto` and `sensitivity`.
        """
        return PlacementOut.model_validate(placements.create(caller, document))

    @router.post("/fleet", status_code=201)
    def create_fleet(caller: MayWrite, document: Annotated[dict[str, Any], Body()]) -> FleetPlacementOut:
        """Place many models under the quotas that they share; each model's placement is kept under its own id."""
        return FleetPlacementOut.model_validate(placements.create_fleet(caller, document))

    @router.get("/{placement_id}")
    def get(caller: MayRead, placement_id: str) -> PlacementOut:
        """One placement."""
        return PlacementOut.model_validate(placements.get(caller, placement_id))

    return router
