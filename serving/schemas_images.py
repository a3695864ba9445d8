"""Container registries, images and profiles as JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fairlead.registry.wire import AnswerModel, RequestModel, Time
from fairlead.serving.profiling import CONCURRENCY_MAX, ProfileLimits


class ContainerRegistryIn(RequestModel):
    """A container registry."""

    name: str = Field(max_length=63, examples=["ecr-virginia"])
    region: str = Field(max_length=63, examples=["aws:us-east-1"])
    url: str = Field(max_length=500, examples=["https://123456789012.dkr.ecr.us-east-1.amazonaws.com/fairlead"])
    provider: Literal["ecr", "artifact-registry", "acr", "oci"]
    identity: dict[str, Any] | None = Field(default=None, description="Who a worker is there, as of locations.")


class ContainerRegistryOut(AnswerModel):
    """A container registry of a region; it keeps no secret."""

    name: str
    region: str
    jurisdiction: str
    url: str
    provider: str
    identity: dict[str, Any]
    created_by: str
    created_at: Time


class ImageVariantIn(RequestModel):
    """What a variant of every image runs on."""

    platform: str = Field(max_length=32, examples=["linux/amd64"])
    accelerators: list[str] = Field(default_factory=list[str], max_length=32, examples=[["L4"]])
    base: str = Field(max_length=500, description="HOST/REPOSITORY@sha256:...")


class ImageVariantOut(AnswerModel):
    """A variant that every image has."""

    name: str
    platform: str
    accelerators: list[str]
    base: str
    updated_by: str
    updated_at: Time


class ImagePushIn(RequestModel):
    """Where an image is wanted."""

    registries: list[str] | None = Field(default=None, max_length=200, description="None: wherever it may be.")


class VariantDigestOut(AnswerModel):
    """One of an image's variants."""

    name: str
    platform: str
    accelerators: list[str]
    base: str
    digest: str
    size_bytes: int


class ImageInRegistryOut(AnswerModel):
    """A bundle's image in one registry."""

    registry: str
    region: str
    state: str
    image: str | None
    digest: str | None
    is_current: bool
    sent_bytes: int
    wanted_by: str
    verified_at: Time | None
    error_code: str | None
    error_detail: str | None


class ImageStatusOut(AnswerModel):
    """A bundle's image everywhere; `is_one`: each registry was seen to hold this very digest."""

    bundle_id: str
    reference: str
    bundle_digest: str
    residency: str
    digest: str | None
    size_bytes: int | None
    is_one: bool
    variants: list[VariantDigestOut]
    registries: list[ImageInRegistryOut]


class ProfileIn(RequestModel):
    """How a profile is taken."""

    region: str | None = Field(default=None, max_length=63, description="None: one that has the bundle.")
    p95_ms: float | None = Field(default=None, gt=0, le=600_000, description="None: until saturation.")
    max_concurrency: int = Field(default=64, ge=1, le=CONCURRENCY_MAX)
    seconds: float = Field(default=3.0, ge=0.2, le=60, description="Of each step.")

    @property
    def limits(self) -> ProfileLimits:
        """The limits that this says."""
        return ProfileLimits(p95_ms=self.p95_ms, max_concurrency=self.max_concurrency, seconds=self.seconds)


class LevelOut(AnswerModel):
    """What was measured with one number of callers."""

    concurrency: int
    requests: int
    errors: int
    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms_per_request: float


class ProfileOut(AnswerModel):
    """A profile: PENDING, MEASURED or FAILED."""

    id: str
    reference: str
    bundle_id: str
    bundle_digest: str
    residency: str
    region: str
    state: str
    limits: dict[str, Any]
    instance_type: str | None
    machine: dict[str, Any] | None
    levels: list[LevelOut]
    requests_per_second: float | None
    p95_ms: float | None
    cpu_ms_per_request: float | None
    peak_memory_bytes: int | None
    start_seconds: float | None
    error_code: str | None
    error_detail: str | None
    created_by: str
    created_at: Time
    finished_at: Time | None
