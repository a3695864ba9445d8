"""Puts serving together from what the composition root has: one call, one object with everything it offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.db import Database
from fairlead.core.ids import Digest
from fairlead.core.ports import Clock
from fairlead.registry.locations import StoreOpener
from fairlead.registry.uploads import Uploads
from fairlead.registry.work import LeasedWork
from fairlead.serving.artifacts import RegionArtifacts
from fairlead.serving.bundle_assembly import BundleParts, assemble_bundles
from fairlead.serving.bundle_images import image_for
from fairlead.serving.bundles import Bundles
from fairlead.serving.deploy_targets import DeployTargets, TargetBook
from fairlead.serving.deployer import Deployer
from fairlead.serving.deployment_drift import DeploymentDrifts
from fairlead.serving.deployment_spec import RegionSpec
from fairlead.serving.deployments import Deployments
from fairlead.serving.gateway_process import GatewayProcess
from fairlead.serving.image_assembly import ImageParts, assemble_images
from fairlead.serving.image_rules import ImageRules
from fairlead.serving.local_target import LocalTarget
from fairlead.serving.placements import Placements
from fairlead.serving.recipe import BundleRules
from fairlead.serving.replanning import Replanning
from fairlead.serving.rollout import DEPLOY, OnlineStoreOf, RolloutDeriver
from fairlead.serving.route_book import RouteBook
from fairlead.serving.targets import EndpointSpec, TargetRules
from fairlead.sync.scratch import Scratch

if TYPE_CHECKING:
    from fastapi import APIRouter


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Serving's use cases, its part of the worker, and the processes it runs."""

    database: Database
    placements: Placements
    bundles: Bundles
    bundle_parts: BundleParts
    image_parts: ImageParts
    deployments: Deployments
    drifts: DeploymentDrifts
    targets: DeployTargets
    handlers: Mapping[str, Callable[[LeasedWork], None]]
    derivers: Sequence[Callable[[Session, datetime], None]]
    target: LocalTarget
    book: TargetBook
    routes: RouteBook
    gateway: GatewayProcess

    def start_gateway(self) -> str:
        """Publish the routing table and make the gateway answer; its address.

        Raises:
            Unavailable: if it does not start.
        """
        self.routes.publish()
        return self.gateway.ensure()

    def tend_gateway(self) -> None:
        """Start the gateway if something runs or is about to and it does not; cheap to ask where nothing is to do.

        Endpoints take longer to start than the gateway does, so it answers by the time they are RUNNING.

        Raises:
            Unavailable: if it does not start.
        """
        if (self.target.is_used or self.routes.has_endpoints) and self.gateway.address is None:
            self.start_gateway()

    def routers(self) -> list[APIRouter]:
        """The routes, to be mounted under `/api/v1`."""
        # FastAPI costs a second that a worker need not wait for.
        from fairlead.serving.api import serving_routers
        from fairlead.serving.api_targets import targets_router

        return [
            *serving_routers(
                self.placements,
                self.deployments,
                self.drifts,
                Replanning(self.database, self.placements, self.deployments),
            ),
            *self.bundle_parts.routers(),
            *self.image_parts.routers(),
            targets_router(self.targets),
        ]


def image_of(session: Session, workspace_id: str, bundle_digest: str, spec: RegionSpec) -> str | None:
    """The image of a bundle that a region's registry holds for what runs there, or None until one is verified."""
    needs = spec.resources
    return image_for(
        session,
        workspace_id,
        bundle_digest,
        spec.region,
        architecture=needs.architecture,
        accelerator=needs.accelerator,
    )


def assemble_serving(
    *,
    database: Database,
    clock: Clock,
    catalog: Catalog,
    uploads: Uploads,
    open_store: StoreOpener,
    folder: Path,
    online_store: OnlineStoreOf,
    bundle_rules: BundleRules | None = None,
    signing_key: bytes | None = None,
    target_rules: TargetRules | None = None,
    image_rules: ImageRules | None = None,
    wake: Callable[[], None] = lambda: None,
    gateway_port: int = 0,
) -> Serving:
    """Build serving with the local deploy target; what it runs lives below `folder`.

    `online_store` says where a region's online features are; `wake` tells the worker that there may be work;
    `signing_key` are the 32 bytes that sign where a bundle is from.
    """
    artifacts = RegionArtifacts(database, clock, uploads=uploads, open_store=open_store)

    def download(spec: EndpointSpec, destination: Path) -> None:
        digest = Digest(spec.bundle_digest)
        artifacts.download(spec.workspace_id, spec.residency, digest, spec.region, destination)

    target = LocalTarget(folder / "deployments", download)
    book = TargetBook(database, target, folder / "targets", rules=target_rules)
    routes = RouteBook(database, folder / "routes.json")
    gateway = GatewayProcess(folder, routes.path, port=gateway_port)
    bundles = assemble_bundles(
        database=database,
        clock=clock,
        artifacts=artifacts,
        scratch=Scratch(folder / "scratch"),
        rules=bundle_rules,
        signing_key=signing_key,
        wake=wake,
    )
    images = assemble_images(
        database=database,
        clock=clock,
        catalog=catalog,
        artifacts=artifacts,
        scratch=Scratch(folder / "scratch"),
        rules=image_rules,
        wake=wake,
    )
    return Serving(
        database=database,
        placements=Placements(database, clock, catalog=catalog),
        bundles=bundles.bundles,
        bundle_parts=bundles,
        image_parts=images,
        deployments=Deployments(
            database, clock, catalog=catalog, local=target, gateway_url=lambda: gateway.address, wake=wake
        ),
        drifts=DeploymentDrifts(database, book.open),
        targets=DeployTargets(database, clock, catalog=catalog, rules=target_rules),
        handlers={
            **bundles.handlers,
            **images.handlers,
            DEPLOY: Deployer(database, clock, catalog=catalog, open_target=book.open, routes=routes),
        },
        derivers=(
            *bundles.derivers,
            *images.derivers,
            RolloutDeriver(
                database,
                book.open,
                online_store,
                measure=gateway.measure,
                bundle_rules=bundles.rules,
                image_of=image_of,
                follow_routes=routes.follow,
            ),
        ),
        target=target,
        book=book,
        routes=routes,
        gateway=gateway,
    )
