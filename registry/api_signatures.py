"""Routes of signers and of the signatures of versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Response
from pydantic import Field, StringConstraints

from fairlead.core.ids import NAME_MAX_LENGTH
from fairlead.registry.access import MayAdmin, MayRead, MayWrite
from fairlead.registry.api_models import Version
from fairlead.registry.gates import parse_moment
from fairlead.registry.limits import REASON_MAX_LENGTH
from fairlead.registry.signers import IDENTITY_MAX_LENGTH, PATTERNS_MAX, PUBLIC_KEY_MAX_LENGTH, SignerDraft
from fairlead.registry.wire import (
    AnswerModel,
    IfMatch,
    Listing,
    MayRepeat,
    RequestModel,
    Time,
    WantedPage,
    etag,
    listing,
)

if TYPE_CHECKING:
    from fairlead.registry.signers import Signers
    from fairlead.registry.version_signatures import VersionSignatures

_Pattern = Annotated[str, StringConstraints(min_length=1, max_length=NAME_MAX_LENGTH)]
_Moment = Annotated[str, StringConstraints(max_length=40), Field(examples=["2026-12-31T00:00:00Z"])]
_Identity = Annotated[str, StringConstraints(min_length=1, max_length=IDENTITY_MAX_LENGTH)]


class SignerIn(RequestModel):
    """Whose signatures count: a public key, or an identity with its issuer and the sigstore instance's trusted root."""

    public_key: Annotated[
        str | None,
        StringConstraints(max_length=PUBLIC_KEY_MAX_LENGTH),
        Field(description="PEM: Ed25519, or ECDSA over P-256."),
    ] = None
    identity: Annotated[
        _Identity | None, Field(description="An e-mail address or URI.", examples=["ana@acme.example"])
    ] = None
    issuer: Annotated[_Identity | None, Field(examples=["https://accounts.example"])] = None
    trusted_root: dict[str, Any] | None = None
    models: Annotated[list[_Pattern], Field(max_length=PATTERNS_MAX, description="Patterns; none: every model.")] = (
        Field(default_factory=list[str])
    )
    not_before: _Moment | None = None
    not_after: _Moment | None = None


class RevocationIn(RequestModel):
    """Why nothing of a signer counts any more."""

    reason: Annotated[str, StringConstraints(max_length=REASON_MAX_LENGTH)] = ""


class SignerOut(AnswerModel):
    """Whose signatures count; `revision` is the answer's ETag."""

    name: str
    public_key: str | None
    key_id: str | None
    identity: str | None
    issuer: str | None
    trusted_root: dict[str, Any] | None
    models: list[str]
    not_before: Time | None
    not_after: Time | None
    revoked_at: Time | None
    revision: int
    updated_by: str
    updated_at: Time


class StatementOut(AnswerModel):
    """What is to be signed next about a version."""

    model: str
    version: int
    digest: str
    sequence: int


class SignatureIn(RequestModel):
    """A DSSE envelope, or the sigstore bundle that holds one."""

    envelope: dict[str, Any]


class SignatureOut(AnswerModel):
    """A signature of a version; `refusal` says why it does not count now."""

    id: str
    reference: str
    sequence: int
    artifact_digest: str
    signer: str
    envelope: dict[str, Any]
    refusal: str | None
    created_by: str
    created_at: Time


def signers_router(signers: Signers) -> APIRouter:
    """Whose signatures count."""
    router = APIRouter(tags=["signatures"])

    @router.get("/signers", response_model=Listing[SignerOut])
    def list_signers(caller: MayRead, page: WantedPage) -> Any:
        """List the signers by name, revoked ones among them."""
        return listing(SignerOut, signers.list(caller, page))

    @router.get("/signers/{name}", response_model=SignerOut)
    def get_signer(name: str, caller: MayRead, response: Response) -> Any:
        """Show a signer; its revision is the ETag."""
        found = signers.get(caller, name)
        response.headers.update(etag(found.revision))
        return found

    @router.put("/signers/{name}", response_model=SignerOut)
    def put_signer(name: str, body: SignerIn, caller: MayAdmin, expected: IfMatch, response: Response) -> Any:
        """Trust a signer, or change for which models and how long. With `If-Match`, only from that revision."""
        draft = SignerDraft(
            public_key=body.public_key,
            identity=body.identity,
            issuer=body.issuer,
            trusted_root=body.trusted_root,
            models=body.models,
            not_before=None if body.not_before is None else parse_moment(body.not_before),
            not_after=None if body.not_after is None else parse_moment(body.not_after),
        )
        applied = signers.put(caller, name, draft, expected_revision=expected)
        response.headers.update(etag(applied.revision))
        return applied

    @router.post("/signers/{name}/revoke", response_model=SignerOut)
    def revoke_signer(name: str, body: RevocationIn, caller: MayAdmin, expected: IfMatch, response: Response) -> Any:
        """Let nothing count that a signer ever signed. Repeating it changes nothing."""
        revoked = signers.revoke(caller, name, reason=body.reason, expected_revision=expected)
        response.headers.update(etag(revoked.revision))
        return revoked

    return router


def version_signatures_router(signatures: VersionSignatures) -> APIRouter:
    """Signatures of versions."""
    router = APIRouter(tags=["signatures"])

    @router.get("/models/{name}/versions/{version}/statement", response_model=StatementOut)
    def get_statement(name: str, version: Version, caller: MayRead) -> Any:
        """Show what is to be signed next about a version."""
        return signatures.statement(caller, name, version)

    @router.post("/models/{name}/versions/{version}/signatures", status_code=201, response_model=SignatureOut)
    def sign_version(name: str, version: Version, body: SignatureIn, caller: MayWrite, key: MayRepeat) -> Any:
        """Hand in a signature; it is kept if it counts."""
        return signatures.record(caller, name, version, body.envelope, key=key)

    @router.get("/models/{name}/versions/{version}/signatures", response_model=Listing[SignatureOut])
    def list_signatures(name: str, version: Version, caller: MayRead, page: WantedPage) -> Any:
        """List a version's signatures, oldest first."""
        return listing(SignatureOut, signatures.list(caller, name, version, page))

    return router
