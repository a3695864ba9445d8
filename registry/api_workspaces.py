"""Routes of workspaces."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from fairlead.registry.access import IsKnown, MayRunServer
from fairlead.registry.schemas import Name
from fairlead.registry.schemas_operations import IssuedTokenOut
from fairlead.registry.wire import AnswerModel, Listing, MayRepeat, RequestModel, Time, WantedPage, listing

if TYPE_CHECKING:
    from fairlead.registry.workspaces import Workspaces


class WorkspaceIn(RequestModel):
    """A workspace to make, and whom it belongs to."""

    name: Annotated[Name, Field(description="Lower-case letters, digits and dashes.", examples=["risk"])]
    owner: Annotated[Name, Field(description="Principal of its first token.")] = "owner"


class WorkspaceOut(AnswerModel):
    """A workspace; `jurisdiction` is that of the database that holds its record."""

    name: str
    jurisdiction: str | None
    created_at: Time


class NewWorkspaceOut(WorkspaceOut):
    """A workspace that was just made; its owner's secret is shown this once."""

    owner: IssuedTokenOut


def workspaces_router(workspaces: Workspaces) -> APIRouter:
    """The workspaces of a server."""
    router = APIRouter(tags=["workspaces"])

    @router.post("/workspaces", status_code=201, response_model=NewWorkspaceOut)
    def create_workspace(body: WorkspaceIn, caller: MayRunServer, key: MayRepeat) -> Any:
        """Make a workspace; the token of its owner is in this answer only."""
        made = workspaces.create(caller, body.name, owner=body.owner, key=key)
        owner = {**asdict(made.owner.token), "secret": made.owner.secret}
        return {**asdict(made.workspace), "owner": owner}

    @router.get("/workspaces", response_model=Listing[WorkspaceOut])
    def list_workspaces(caller: MayRunServer, page: WantedPage) -> Any:
        """List the workspaces of the server."""
        return listing(WorkspaceOut, workspaces.list(caller, page))

    @router.get("/workspaces/{workspace}", response_model=WorkspaceOut)
    def get_workspace(workspace: str, caller: IsKnown) -> Any:
        """Show the caller's own workspace, or any to whoever runs the server."""
        return workspaces.get(caller, workspace)

    return router
