"""Routes of deploy targets."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from fairlead.registry.access import MayAdmin, MayRead
from fairlead.registry.wire import IfMatch, Listing, WantedPage, etag, listing
from fairlead.serving.deploy_targets import DeployTargets, TargetDraft
from fairlead.serving.schemas_targets import TargetIn, TargetOut


def targets_router(targets: DeployTargets) -> APIRouter:
    """Where deployments may run."""
    router = APIRouter(prefix="/targets", tags=["deploy targets"])

    @router.get("", response_model=Listing[TargetOut])
    def list_targets(caller: MayRead, page: WantedPage) -> Any:
        """List deploy targets by name; `local` is always there, and not among them."""
        return listing(TargetOut, targets.list(caller, page))

    @router.get("/{name}", response_model=TargetOut)
    def get_target(name: str, caller: MayRead, response: Response) -> Any:
        """Show a deploy target; its revision is the ETag."""
        found = targets.get(caller, name)
        response.headers.update(etag(found.revision))
        return found

    @router.put("/{name}", response_model=TargetOut)
    def put_target(name: str, body: TargetIn, caller: MayAdmin, expected: IfMatch, response: Response) -> Any:
        """Apply a deploy target. With `If-Match`, only if it is still at that revision ("0": not there yet)."""
        draft = TargetDraft(
            kind=body.kind,
            delivery=body.delivery,
            regions=None if body.regions is None else tuple(body.regions),
            settings=body.settings,
            delivery_settings=body.delivery_settings,
        )
        applied = targets.put(caller, name, draft, expected_revision=expected)
        response.headers.update(etag(applied.revision))
        return applied

    @router.delete("/{name}", status_code=204)
    def delete_target(name: str, caller: MayAdmin, expected: IfMatch) -> None:
        """Remove a deploy target that no deployment uses."""
        targets.delete(caller, name, expected_revision=expected)

    return router
