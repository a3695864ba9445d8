"""Routes of tracking servers, below `/api/v1`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from fairlead.registry.access import MayAdmin, MayRead
from fairlead.registry.mlflow.tracking_servers import TrackingServers
from fairlead.registry.schemas import Name
from fairlead.registry.wire import AnswerModel, Listing, MayRepeat, RequestModel, Time, WantedPage, listing


class TrackingServerIn(RequestModel):
    """A tracking server to name."""

    name: Name
    url: Annotated[str, Field(max_length=500, examples=["https://mlflow.example.org"])]
    credentials_env: Annotated[
        str | None,
        Field(
            max_length=128,
            description="Variable of the worker's environment, FAIRLEAD_TRACKING_..., with `user:password` or a token.",
        ),
    ] = None


class TrackingServerOut(AnswerModel):
    """A tracking server that versions may be brought from."""

    name: str
    url: str
    credentials_env: str | None
    created_by: str
    created_at: Time


def tracking_servers_router(servers: TrackingServers) -> APIRouter:
    """Tracking servers."""
    router = APIRouter(prefix="/tracking-servers", tags=["tracking servers"])

    @router.post("", status_code=201, response_model=TrackingServerOut)
    def add_tracking_server(body: TrackingServerIn, caller: MayAdmin, key: MayRepeat) -> Any:
        """Name an MLflow tracking server that versions may be brought from."""
        return servers.add(caller, name=body.name, url=body.url, credentials_env=body.credentials_env, key=key)

    @router.get("", response_model=Listing[TrackingServerOut])
    def list_tracking_servers(caller: MayRead, page: WantedPage) -> Any:
        """List tracking servers by name."""
        return listing(TrackingServerOut, servers.list(caller, page))

    @router.delete("/{name}", status_code=204)
    def remove_tracking_server(name: str, caller: MayAdmin) -> None:
        """Forget a tracking server; what was brought from it stays."""
        servers.remove(caller, name)

    return router
