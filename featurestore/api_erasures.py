"""Routes of erasures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, status

from fairlead.featurestore.schemas_erasures import CertificateOut, ErasureIn, ErasureOut
from fairlead.registry.access import MayAdmin
from fairlead.registry.wire import Listing, MayRepeat, WantedPage, listing

if TYPE_CHECKING:
    from fairlead.featurestore.erasures import Erasures
    from fairlead.sync.api import Wake


def erasures_router(erasures: Erasures, wake: Wake) -> APIRouter:
    """Subjects whose rows leave every region."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.post("/erasures", status_code=status.HTTP_202_ACCEPTED, response_model=ErasureOut)
    def request_erasure(caller: MayAdmin, body: ErasureIn, key: MayRepeat) -> Any:
        """Ask that a subject's rows leave every snapshot, log and online store; workers go on."""
        erasure = erasures.request(
            caller,
            entities=body.entities,
            salt=body.salt,
            subject_hash=body.subject_hash,
            reason=body.reason,
            key=key,
        )
        wake()
        return erasure

    @router.get("/erasures", response_model=Listing[ErasureOut])
    def list_erasures(caller: MayAdmin, page: WantedPage) -> Any:
        """List the erasures, newest first."""
        return listing(ErasureOut, erasures.list(caller, page))

    @router.get("/erasures/{erasure}", response_model=ErasureOut)
    def get_erasure(caller: MayAdmin, erasure: str) -> Any:
        """Show an erasure, and what it still lacks."""
        return erasures.get(caller, erasure)

    @router.get("/erasures/{erasure}/certificate")
    def get_certificate(caller: MayAdmin, erasure: str) -> CertificateOut:
        """Show the signed certificate of an erasure that is done."""
        return CertificateOut.of(erasures.certificate(caller, erasure))

    return router
