"""Routes of registered models, their versions and their aliases."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from fairlead.core.ids import VERSION_MAX
from fairlead.registry.access import MayRead, MayWrite
from fairlead.registry.aliases import Aliases
from fairlead.registry.models import Labels, ModelChange, Models, Shown
from fairlead.registry.schemas import (
    AliasIn,
    AliasMoveOut,
    AliasOut,
    ModelChangeIn,
    ModelIn,
    ModelOut,
    ResolvedOut,
    VersionChangeIn,
    VersionIn,
    VersionOut,
)
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from fairlead.registry.wire import ExpectedRevision, Listing, MayRepeat, WantedPage, etag, listing

ShownState = Annotated[Shown, Query(description="`archived` ones alone, or `deleted` ones, which can be restored.")]
Version = Annotated[int, Path(ge=1, le=VERSION_MAX)]


def models_router(models: Models) -> APIRouter:
    """Registered models."""
    router = APIRouter(tags=["models"])

    @router.post("/models", status_code=201, response_model=ModelOut)
    def create_model(body: ModelIn, caller: MayWrite, key: MayRepeat) -> Any:
        """Register a model."""
        return models.create(
            caller,
            name=body.name,
            labels=Labels(owner=body.labels.owner, team=body.labels.team, cost_centre=body.labels.cost_centre),
            residency=body.residency,
            regions=body.regions,
            description=body.description,
            tags=body.tags,
            key=key,
        )

    @router.get("/models", response_model=Listing[ModelOut])
    def list_models(
        caller: MayRead,
        page: WantedPage,
        name_prefix: Annotated[str, Query()] = "",
        state: ShownState = "active",
    ) -> Any:
        """List models by name."""
        return listing(ModelOut, models.list(caller, page, name_prefix=name_prefix, shown=state))

    @router.get("/models/{name}", response_model=ModelOut)
    def get_model(name: str, caller: MayRead) -> Any:
        """Show a model."""
        return models.get(caller, name)

    @router.patch("/models/{name}", response_model=ModelOut)
    def update_model(name: str, body: ModelChangeIn, caller: MayWrite) -> Any:
        """Change a model's description, labels or tags."""
        labels = body.labels
        change = ModelChange(
            description=body.description,
            owner=labels.owner if labels else None,
            team=labels.team if labels else None,
            cost_centre=labels.cost_centre if labels else None,
            tags=body.tags,
        )
        return models.update(caller, name, change)

    return router


def versions_router(versions: Versions) -> APIRouter:
    """Model versions."""
    router = APIRouter(tags=["versions"])

    @router.post("/models/{name}/versions", status_code=201, response_model=VersionOut)
    def register_version(name: str, body: VersionIn, caller: MayWrite, key: MayRepeat) -> Any:
        """Register the next version of a model on an upload."""
        draft = VersionDraft(**{field: getattr(body, field) for field in VersionIn.model_fields})
        return versions.register(caller, name, draft, key=key)

    @router.get("/models/{name}/versions", response_model=Listing[VersionOut])
    def list_versions(name: str, caller: MayRead, page: WantedPage, state: ShownState = "active") -> Any:
        """List a model's versions, newest first."""
        return listing(VersionOut, versions.list(caller, name, page, shown=state))

    @router.get("/models/{name}/versions/{version}", response_model=VersionOut)
    def get_version(name: str, version: Version, caller: MayRead) -> Any:
        """Show a version."""
        return versions.get(caller, name, version)

    @router.patch("/models/{name}/versions/{version}", response_model=VersionOut)
    def update_version(name: str, version: Version, body: VersionChangeIn, caller: MayWrite) -> Any:
        """Change a version's description or tags."""
        return versions.update(caller, name, version, description=body.description, tags=body.tags)

    @router.get("/resolve", response_model=ResolvedOut)
    def resolve(reference: Annotated[str, Query(examples=["churn@production"])], caller: MayRead) -> Any:
        """Find the version that `churn/3` or `churn@production` names."""
        found = versions.resolve(caller, reference)
        answer = ResolvedOut.model_validate(found.version)
        return answer.model_copy(update={"resolved_revision": found.revision})

    return router


def aliases_router(aliases: Aliases) -> APIRouter:
    """Aliases, and the history of every pointer."""
    router = APIRouter(tags=["aliases"])

    @router.get("/models/{name}/aliases", response_model=Listing[AliasOut])
    def list_aliases(name: str, caller: MayRead, page: WantedPage) -> Any:
        """List where a model's aliases and environments point."""
        return listing(AliasOut, aliases.list(caller, name, page))

    @router.get("/models/{name}/aliases/{alias}", response_model=AliasOut)
    def get_alias(name: str, alias: str, caller: MayRead, response: Response) -> Any:
        """Show where an alias or environment points; its revision is the ETag."""
        found = aliases.get(caller, name, alias)
        response.headers.update(etag(found.revision))
        return found

    @router.put("/models/{name}/aliases/{alias}", response_model=AliasMoveOut)
    def set_alias(  # noqa: PLR0917  (a route's parts)
        name: str, alias: str, body: AliasIn, caller: MayWrite, expected: ExpectedRevision, response: Response
    ) -> Any:
        """Point an alias at a version. An environment is moved by a promotion."""
        move = aliases.set(caller, name, alias, body.version, expected_revision=expected)
        response.headers.update(etag(move.revision))
        return move

    @router.delete("/models/{name}/aliases/{alias}", response_model=AliasMoveOut)
    def delete_alias(name: str, alias: str, caller: MayWrite, expected: ExpectedRevision, response: Response) -> Any:
        """Delete an alias; its history stays."""
        move = aliases.delete(caller, name, alias, expected_revision=expected)
        response.headers.update(etag(move.revision))
        return move

    @router.get("/models/{name}/history/{alias}", response_model=Listing[AliasMoveOut])
    def list_moves(name: str, alias: str, caller: MayRead, page: WantedPage) -> Any:
        """List the moves of an alias or environment, newest first."""
        return listing(AliasMoveOut, aliases.history(caller, name, alias, page))

    return router
