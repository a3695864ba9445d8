"""What crosses the wire about locations, uploads, artifacts and work."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from fairlead.core.clock import format_time
from fairlead.registry.locations import Location, LocationKind, LocationState
from fairlead.registry.replicas import Artifact, Replica
from fairlead.registry.uploads import DIGESTS_AT_ONCE, ArtifactKind, Upload, UploadState
from fairlead.sync.store.blocks import StoredBlock

Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]
ByteCount = Annotated[int, Field(ge=0, lt=2**63)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LocationRequest(_Body):
    """A bucket and prefix to add. Options go to the file system as they are, and hold no secret."""

    name: Annotated[str, Field(examples=["virginia"])]
    region: Annotated[str, Field(examples=["aws:us-east-1"])]
    url: Annotated[str, Field(examples=["s3://models-virginia/fairlead"])]
    options: dict[str, Any] = {}
    kind: LocationKind = "storage"
    settings: dict[str, Any] = {}


class LocationAnswer(BaseModel):
    """A location. `options` and `settings` are what was given; `client_options` is what a client opens the URL with.

    With `client_access` signed, a client asks for addresses instead.
    """

    id: str
    name: str
    region: str
    jurisdiction: str
    url: str
    options: dict[str, Any]
    kind: LocationKind
    state: LocationState
    settings: dict[str, Any]
    client_options: dict[str, Any]
    client_access: str
    created_at: Time

    @classmethod
    def of(cls, location: Location) -> LocationAnswer:
        """Render a record."""
        return cls(
            id=location.id,
            name=location.name,
            region=location.region,
            jurisdiction=location.jurisdiction,
            url=location.url,
            options=dict(location.options),
            kind=location.kind,
            state=location.state,
            settings=dict(location.settings),
            client_options=location.client_options,
            client_access=location.client_access,
            created_at=location.created_at,
        )


class LocationPage(BaseModel):
    """Some locations, by name."""

    items: list[LocationAnswer]
    next_page_token: str | None


class DomainAnswer(BaseModel):
    """The dedup domain: a part of every object's key, within which equal blocks are stored once."""

    workspace: str
    residency: str
    key_id: str


class UploadRequest(_Body):
    """What is to be uploaded. `region` says where the bytes are now; the nearest permitted location takes them."""

    kind: ArtifactKind
    residency: str = "unrestricted"
    regions: list[str] | None = None
    labels: dict[str, str] = {}
    region: str | None = None


class ErrorAnswer(BaseModel):
    """Why something failed."""

    code: str
    detail: str


class UploadAnswer(BaseModel):
    """An upload: where to write, until when, and what became of it."""

    id: str
    state: UploadState
    kind: ArtifactKind
    residency: str
    regions: list[str] | None
    labels: dict[str, str]
    location: LocationAnswer
    domain: DomainAnswer
    artifact_digest: str | None
    layout_key: str | None
    sent_bytes: int | None
    error: ErrorAnswer | None
    created_by: str
    created_at: Time
    expires_at: Time

    @classmethod
    def of(cls, upload: Upload, workspace_id: str) -> UploadAnswer:
        """Render a record."""
        error = None
        if upload.error_code is not None:
            error = ErrorAnswer(code=upload.error_code, detail=upload.error_detail or "")
        return cls(
            id=upload.id,
            state=upload.state,
            kind=upload.kind,
            residency=upload.residency,
            regions=None if upload.regions is None else list(upload.regions),
            labels=dict(upload.labels),
            location=LocationAnswer.of(upload.location),
            domain=DomainAnswer(workspace=workspace_id, residency=upload.residency, key_id=upload.key_id),
            artifact_digest=upload.artifact_digest,
            layout_key=upload.layout_key,
            sent_bytes=upload.sent_bytes,
            error=error,
            created_by=upload.created_by,
            created_at=upload.created_at,
            expires_at=upload.expires_at,
        )


class KnownBlocksRequest(_Body):
    """The digests of the blocks that an upload is made of."""

    digests: Annotated[list[str], Field(max_length=DIGESTS_AT_ONCE)]


class BlockAnswer(BaseModel):
    """Where the location holds a block: the members of the content store's `StoredBlock`."""

    digest: str
    pack: str
    offset: int
    stored_length: int
    stored_digest: str
    plain_length: int
    codec: int
    base: str | None

    @classmethod
    def of(cls, block: StoredBlock) -> BlockAnswer:
        """Render a record."""
        return cls(
            digest=block.digest,
            pack=block.pack,
            offset=block.offset,
            stored_length=block.stored_length,
            stored_digest=block.stored_digest,
            plain_length=block.plain_length,
            codec=block.codec,
            base=block.base,
        )


class KnownBlocksAnswer(BaseModel):
    """Those of the blocks that need not be sent."""

    blocks: list[BlockAnswer]


class CompletionRequest(_Body):
    """What was written."""

    artifact_digest: str
    layout_key: str
    sent_bytes: ByteCount


class ReplicaAnswer(BaseModel):
    """An artifact at a location; only a VERIFIED one may be read, and one at an ACTIVE location sooner than others."""

    location: str
    location_state: LocationState
    region: str
    url: str
    options: dict[str, Any]
    client_access: str
    domain: DomainAnswer
    state: str
    layout_key: str | None
    stored_bytes: int | None
    moved_bytes: int | None
    source_region: str | None
    verified_at: Time | None
    error: str | None

    @classmethod
    def of(cls, replica: Replica, workspace_id: str) -> ReplicaAnswer:
        """Render a record."""
        return cls(
            location=replica.location.name,
            location_state=replica.location.state,
            region=replica.location.region,
            url=replica.location.url,
            options=replica.location.client_options,
            client_access=replica.location.client_access,
            domain=DomainAnswer(workspace=workspace_id, residency=replica.residency, key_id=replica.key_id),
            state=replica.state,
            layout_key=replica.layout_key,
            stored_bytes=replica.stored_bytes,
            moved_bytes=replica.moved_bytes,
            source_region=replica.source_region,
            verified_at=replica.verified_at,
            error=replica.error_code,
        )


class ArtifactAnswer(BaseModel):
    """What travels under one digest, and where it is."""

    digest: str
    kind: str
    residency: str
    size_bytes: int
    file_count: int
    created_at: Time
    replicas: list[ReplicaAnswer]

    @classmethod
    def of(cls, artifact: Artifact, workspace_id: str) -> ArtifactAnswer:
        """Render a record."""
        return cls(
            digest=artifact.digest,
            kind=artifact.kind,
            residency=artifact.residency,
            size_bytes=artifact.size_bytes,
            file_count=artifact.file_count,
            created_at=artifact.created_at,
            replicas=[ReplicaAnswer.of(replica, workspace_id) for replica in artifact.replicas],
        )


class ReportRequest(_Body):
    """A reader's word that a replica's bytes are wrong: the location's name and the error's code."""

    location: str
    code: Annotated[str, Field(examples=["corrupt-block"])]


class VerificationRequest(_Body):
    """Which replica to read again; every VERIFIED one where no location is named."""

    location: str | None = None


class WorkAnswer(BaseModel):
    """One piece of work that runs or waits."""

    model_config = ConfigDict(from_attributes=True)

    kind: str
    subject: str
    region: str
    residency: str
    state: str
    holder: str | None
    priority: int
    attempts: int
    phase: str | None
    progress_bytes: int | None
    total_bytes: int | None
    moved_bytes: int
    bytes_per_second: int | None
    eta_seconds: int | None
    source_region: str | None
    not_before: Time
    error_code: str | None
    error_detail: str | None
    created_at: Time


class WorkPage(BaseModel):
    """Some work, in the order it was asked for."""

    items: list[WorkAnswer]
    next_page_token: str | None
