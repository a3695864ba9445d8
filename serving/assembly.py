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
from fairlead.serving.bundles import BUILD_BUNDLE, BundleBuilder, Bundles, derive_bundles
from fairlead.serving.deployments import Deployments
from fairlead.serving.gateway_process import GatewayProcess
from fairlead.serving.local_target import LocalTarget
from fairlead.serving.placements import Placements
from fairlead.serving.rollout import DEPLOY, Deployer, OnlineStoreOf, RolloutDeriver, RouteBook
from fairlead.serving.targets import EndpointSpec
from fairlead.sync.scratch import Scratch

if TYPE_CHECKING:
    from fastapi import APIRouter


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Serving's use cases, its part of the worker, and the processes it runs."""

    placements: Placements
    bundles: Bundles
    deployments: Deployments
    handlers: Mapping[str, Callable[[LeasedWork], None]]
    derivers: Sequence[Callable[[Session, datetime], None]]
    target: LocalTarget
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
        if self.target.is_used and self.gateway.address is None:
            self.start_gateway()

    def routers(self) -> list[APIRouter]:
        """The routes, to be mounted under `/api/v1`."""
        # FastAPI costs a second that a worker need not wait for.
        from fairlead.serving.api import serving_routers

        return serving_routers(self.placements, self.bundles, self.deployments)


def assemble_serving(
    *,
    database: Database,
    clock: Clock,
    catalog: Catalog,
    uploads: Uploads,
    open_store: StoreOpener,
    folder: Path,
    online_store: OnlineStoreOf,
    wake: Callable[[], None] = lambda: None,
    gateway_port: int = 0,
) -> Serving:
    """Build serving with the local deploy target; what it runs lives below `folder`.

    `online_store` says where a region's online features are; `wake` tells the worker that there may be work.
    """
    artifacts = RegionArtifacts(database, clock, uploads=uploads, open_store=open_store)

    def download(spec: EndpointSpec, destination: Path) -> None:
        digest = Digest(spec.bundle_digest)
        artifacts.download(spec.workspace_id, spec.residency, digest, spec.region, destination)

    target = LocalTarget(folder / "deployments", download)
    routes = RouteBook(database, folder / "routes.json")
    gateway = GatewayProcess(folder, routes.path, port=gateway_port)
    return Serving(
        placements=Placements(database, clock, catalog=catalog),
        bundles=Bundles(database, clock, wake=wake),
        deployments=Deployments(
            database, clock, catalog=catalog, target=target, gateway_url=lambda: gateway.address, wake=wake
        ),
        handlers={
            BUILD_BUNDLE: BundleBuilder(database, clock, artifacts, Scratch(folder / "scratch")),
            DEPLOY: Deployer(database, clock, catalog=catalog, target=target, routes=routes),
        },
        derivers=(derive_bundles, RolloutDeriver(target, online_store)),
        target=target,
        routes=routes,
        gateway=gateway,
    )
