"""Routes of versions that are imported from another registry."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from fairlead.registry.access import MayAdmin, MayRead
from fairlead.registry.imports import Imports
from fairlead.registry.schemas_imports import ImportIn, ImportOut, KnownImportOut
from fairlead.registry.version_registration import Origin, VersionDraft
from fairlead.registry.wire import Listing, MayRepeat, WantedPage, listing


def imports_router(imports: Imports) -> APIRouter:
    """Versions of other registries."""
    router = APIRouter(tags=["versions"])

    @router.post("/models/{name}/imports", response_model=ImportOut)
    def import_version(name: str, body: ImportIn, caller: MayAdmin, key: MayRepeat) -> Any:
        """Import a version of another registry, or bring the one that came from there before up to date."""
        draft = VersionDraft(**{field: getattr(body, field) for field in ImportIn.model_fields if field != "origin"})
        was = body.origin
        origin = Origin(key=was.key, number=was.version, created_at=was.created_at, stage=was.stage)
        return imports.bring(caller, name, draft, origin, key=key)

    @router.get("/models/{name}/imports", response_model=Listing[KnownImportOut])
    def list_imports(name: str, caller: MayRead, page: WantedPage) -> Any:
        """List what was imported into a model before, by number."""
        return listing(KnownImportOut, imports.list(caller, name, page))

    return router
