"""The routes that let clients into locations by signed addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query

from fairlead.registry.access import MayRead, MayWrite
from fairlead.sync.schemas_storage_access import (
    AddressAnswer,
    AddressesAnswer,
    ObjectAnswer,
    ObjectsAnswer,
    ReadAddressesRequest,
    UploadAddressesRequest,
)

if TYPE_CHECKING:
    from fairlead.sync.storage_access import StorageAccess


def storage_access_router(access: StorageAccess) -> APIRouter:
    """Signed addresses."""
    router = APIRouter()

    @router.post("/artifacts/{digest}/addresses", tags=["artifacts"])
    def sign_artifact_addresses(caller: MayRead, digest: str, body: ReadAddressesRequest) -> AddressesAnswer:
        """Addresses to read every object of an artifact at a location whose clients hold no key of its cloud."""
        signed = access.read_artifact(caller, digest, location=body.location)
        return AddressesAnswer(addresses=[AddressAnswer.model_validate(each) for each in signed])

    @router.post("/uploads/{upload_id}/addresses", tags=["uploads"])
    def sign_upload_addresses(caller: MayWrite, upload_id: str, body: UploadAddressesRequest) -> AddressesAnswer:
        """Addresses to read or create objects of an upload, where clients hold no key of the location's cloud."""
        signed = access.reach_upload(caller, upload_id, verb=body.verb, keys=body.keys)
        return AddressesAnswer(addresses=[AddressAnswer.model_validate(each) for each in signed])

    @router.get("/uploads/{upload_id}/objects", tags=["uploads"])
    def list_upload_objects(
        caller: MayWrite,
        upload_id: str,
        prefix: Annotated[str, Query(max_length=900, description="That of one artifact's layouts.")],
    ) -> ObjectsAnswer:
        """The objects below a prefix of an upload's domain."""
        found = access.list_upload(caller, upload_id, prefix)
        return ObjectsAnswer(objects=[ObjectAnswer.model_validate(each) for each in found])

    return router
