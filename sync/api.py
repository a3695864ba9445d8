"""The routes of locations, uploads, artifacts and work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, status

from fairlead.catalog import load_catalog
from fairlead.core.ids import Digest
from fairlead.registry.access import MayRead, MayWrite
from fairlead.registry.location_losses import Losses
from fairlead.registry.wire import MayRepeat
from fairlead.sync.api_budgets import budgets_router
from fairlead.sync.api_locations import locations_router
from fairlead.sync.api_losses import losses_router
from fairlead.sync.api_replications import replications_router
from fairlead.sync.api_storage_access import storage_access_router
from fairlead.sync.api_upkeep import upkeep_router
from fairlead.sync.api_work import work_router
from fairlead.sync.budgets import Budgets
from fairlead.sync.schemas import (
    ArtifactAnswer,
    BlockAnswer,
    CompletionRequest,
    KnownBlocksAnswer,
    KnownBlocksRequest,
    ReportRequest,
    UploadAnswer,
    UploadRequest,
    VerificationRequest,
)
from fairlead.sync.schemas_bases import BaseAnswer, BasesAnswer, BasesRequest
from fairlead.sync.shelves import to_block
from fairlead.sync.upkeep import Upkeeps

if TYPE_CHECKING:
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock
    from fairlead.registry.locations import Locations
    from fairlead.registry.replicas import Artifacts
    from fairlead.registry.retirement import Retirements
    from fairlead.registry.uploads import Uploads
    from fairlead.sync.backfill import Backfills
    from fairlead.sync.plans import ReplicationPlans
    from fairlead.sync.storage_access import StorageAccess

Wake = Callable[[], None]
"""Tells the worker of this process, if there is one, that the desired state has changed."""


def sync_routers(
    *,
    locations: Locations,
    backfills: Backfills,
    retirements: Retirements,
    uploads: Uploads,
    artifacts: Artifacts,
    storage_access: StorageAccess,
    database: Database,
    clock: Clock,
    plans: ReplicationPlans,
    wake: Wake,
) -> list[APIRouter]:
    """Every router of this package, without the API's prefix."""
    return [
        locations_router(locations, backfills, retirements, wake),
        losses_router(Losses(database, clock), wake),
        uploads_router(uploads, wake),
        artifacts_router(artifacts, wake),
        storage_access_router(storage_access),
        work_router(database, clock),
        upkeep_router(Upkeeps(database, clock), wake),
        replications_router(plans),
        budgets_router(Budgets(database, clock, catalog=load_catalog()), wake),
    ]


def uploads_router(uploads: Uploads, wake: Wake) -> APIRouter:
    """Uploads."""
    router = APIRouter(prefix="/uploads", tags=["uploads"])

    @router.post("", status_code=status.HTTP_201_CREATED)
    def begin_upload(caller: MayWrite, body: UploadRequest, key: MayRepeat) -> UploadAnswer:
        """Choose the location that takes the bytes, and open it for an hour."""
        upload = uploads.begin(
            caller,
            kind=body.kind,
            residency=body.residency,
            regions=body.regions,
            labels=body.labels,
            region=body.region,
            key=key,
        )
        return UploadAnswer.of(upload, caller.workspace_id)

    @router.get("/{upload_id}")
    def get_upload(caller: MayRead, upload_id: str) -> UploadAnswer:
        """One upload."""
        return UploadAnswer.of(uploads.get(caller, upload_id), caller.workspace_id)

    @router.post("/{upload_id}/known-blocks")
    def find_known_blocks(caller: MayWrite, upload_id: str, body: KnownBlocksRequest) -> KnownBlocksAnswer:
        """Which blocks the location holds already; asking prolongs the upload's time by an hour from now."""
        known = uploads.known_blocks(caller, upload_id, [Digest(digest) for digest in body.digests])
        return KnownBlocksAnswer(blocks=[BlockAnswer.of(to_block(place)) for place in known])

    @router.post("/{upload_id}/bases")
    def find_bases(caller: MayWrite, upload_id: str, body: BasesRequest) -> BasesAnswer:
        """What the location holds that the files may be stored as a difference to, the likeliest first."""
        found = uploads.bases(
            caller,
            upload_id,
            model=body.model,
            parent_version=body.parent_version,
            tensor_signature=body.tensor_signature,
        )
        location = uploads.get(caller, upload_id).location.name
        return BasesAnswer(bases=[BaseAnswer.of(candidate, location) for candidate in found])

    @router.post("/{upload_id}/complete")
    def complete_upload(caller: MayWrite, upload_id: str, body: CompletionRequest) -> UploadAnswer:
        """Hand over what was written; a worker reads every byte back. Repeating the call changes nothing."""
        upload = uploads.complete(
            caller,
            upload_id,
            artifact_digest=body.artifact_digest,
            layout_key=body.layout_key,
            sent_bytes=body.sent_bytes,
        )
        wake()
        return UploadAnswer.of(upload, caller.workspace_id)

    return router


def artifacts_router(artifacts: Artifacts, wake: Wake) -> APIRouter:
    """Artifacts and their replicas."""
    router = APIRouter(prefix="/artifacts", tags=["artifacts"])

    @router.get("/{digest}")
    def get_artifact(caller: MayRead, digest: str) -> ArtifactAnswer:
        """An artifact, and where it is."""
        return ArtifactAnswer.of(artifacts.get(caller, digest), caller.workspace_id)

    @router.post("/{digest}/reports", status_code=status.HTTP_202_ACCEPTED)
    def report_replica(caller: MayRead, digest: str, body: ReportRequest) -> ArtifactAnswer:
        """Report damaged bytes: the replica is not served again until it was read back or mended."""
        artifacts.report(caller, digest, location=body.location, code=body.code)
        wake()
        return ArtifactAnswer.of(artifacts.get(caller, digest), caller.workspace_id)

    @router.post("/{digest}/verify", status_code=status.HTTP_202_ACCEPTED)
    def verify_artifact(
        caller: MayWrite, digest: str, body: Annotated[VerificationRequest | None, Body()] = None
    ) -> ArtifactAnswer:
        """Have every byte of the VERIFIED replicas (or of one) read again by workers of their regions."""
        found = artifacts.verify(caller, digest, location=None if body is None else body.location)
        wake()
        return ArtifactAnswer.of(found, caller.workspace_id)

    return router
