"""The routes of feature servers: which there are, and which of them a caller is sent to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, status

from fairlead.featurestore.online_engines import NEWEST
from fairlead.featurestore.schemas_servers import (
    FeatureServerAnswer,
    FeatureServerPage,
    FeatureServerRequest,
    OnlineRoutesAnswer,
)
from fairlead.registry.access import MayAdmin, MayRead, MayWrite
from fairlead.registry.wire import WantedPage

if TYPE_CHECKING:
    from fairlead.featurestore.feature_servers import FeatureServers
    from fairlead.featurestore.online_routes import OnlineRouting


def feature_servers_router(servers: FeatureServers, routing: OnlineRouting) -> APIRouter:
    """Feature servers, and routes to them."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.put("/servers")
    def register_server(caller: MayAdmin, body: FeatureServerRequest) -> FeatureServerAnswer:
        """List a feature server, so that clients find it and send it their tokens."""
        return FeatureServerAnswer.of(servers.register(caller, region=body.region, url=body.url))

    @router.get("/servers")
    def list_servers(caller: MayRead, page: WantedPage) -> FeatureServerPage:
        """Feature servers, in the order in which they were listed."""
        found = servers.list(caller, page).map(FeatureServerAnswer.of)
        return FeatureServerPage(items=list(found.items), next_page_token=found.next_page_token)

    @router.post("/servers/{server}/heartbeat")
    def hear_server(caller: MayWrite, server: str) -> FeatureServerAnswer:
        """Say that a listed server answers."""
        return FeatureServerAnswer.of(servers.hear(caller, server))

    @router.delete("/servers/{server}", status_code=status.HTTP_204_NO_CONTENT)
    def remove_server(caller: MayAdmin, server: str) -> None:
        """Take a server off the list."""
        servers.remove(caller, server)

    @router.get("/services/{name}/routes")
    def find_routes(
        caller: MayRead,
        name: str,
        near: Annotated[str | None, Query(max_length=63, description="The region that the caller is in.")] = None,
        snapshot: Annotated[str, Query(max_length=80, description="A pinned snapshot's digest.")] = NEWEST,
    ) -> OnlineRoutesAnswer:
        """Where a service may be read online, nearest first, and which regions may not answer this caller."""
        return OnlineRoutesAnswer.of(routing.find(caller, name, near=near, slot=snapshot))

    return router
