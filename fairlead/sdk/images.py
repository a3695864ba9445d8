"""Container registries, the images that bundles have there, and what bundles were measured to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.core.ids import parse_name
from fairlead.sdk.artifacts import wait_until
from fairlead.sdk.records import JsonObject, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport

PUSH_SECONDS = 3600.0
PROFILE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRegistry(Record):
    """A container registry of a region."""

    name: str
    region: str
    jurisdiction: str
    url: str
    provider: str
    identity: JsonObject
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVariant(Record):
    """A variant that every image has; without accelerators it needs a CPU alone."""

    name: str
    platform: str
    accelerators: tuple[str, ...] = ()
    base: str
    updated_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantDigest(Record):
    """One of an image's variants, by the digest of its manifest."""

    name: str
    platform: str
    accelerators: tuple[str, ...] = ()
    base: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInRegistry(Record):
    """A bundle's image in one registry: WANTED, VERIFIED or DRIFTED."""

    registry: str
    region: str
    state: str
    image: str | None = None
    digest: str | None = None
    is_current: bool
    sent_bytes: int
    wanted_by: str
    verified_at: datetime | None = None
    error_code: str | None = None
    error_detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStatus(Record):
    """A bundle's image everywhere. `is_one`: every registry was seen to hold this very digest."""

    bundle_id: str
    reference: str
    bundle_digest: str
    residency: str
    digest: str | None = None
    size_bytes: int | None = None
    is_one: bool
    variants: tuple[VariantDigest, ...] = ()
    registries: tuple[ImageInRegistry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileLevel(Record):
    """What was measured with one number of callers."""

    concurrency: int
    requests: int
    errors: int
    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms_per_request: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(Record):
    """What one replica of a bundle does: PENDING, MEASURED or FAILED."""

    id: str
    reference: str
    bundle_id: str
    bundle_digest: str
    residency: str
    region: str
    state: str
    limits: JsonObject
    instance_type: str | None = None
    machine: JsonObject | None = None
    levels: tuple[ProfileLevel, ...] = ()
    requests_per_second: float | None = None
    p95_ms: float | None = None
    cpu_ms_per_request: float | None = None
    peak_memory_bytes: int | None = None
    start_seconds: float | None = None
    error_code: str | None = None
    error_detail: str | None = None
    created_by: str
    created_at: datetime
    finished_at: datetime | None = None


class Images:
    """Bundles as images: where they are pushed, what variants they have, and whether they are one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add_registry(
        self, name: str, region: str, url: str, *, provider: str, identity: Mapping[str, JsonValue] | None = None
    ) -> ContainerRegistry:
        """Add a container registry of a region: `ecr`, `artifact-registry`, `acr` or any other one, `oci`.

        Raises:
            UnknownRegion, InvalidInput, AlreadyExists.
        """
        body: dict[str, JsonValue] = {"name": name, "region": region, "url": url, "provider": provider}
        if identity:
            body["identity"] = dict(identity)
        return ContainerRegistry.from_json(self._transport.post("/api/v1/container-registries", body))

    def registries(self) -> Iterator[ContainerRegistry]:
        """All container registries by name."""
        return map(ContainerRegistry.from_json, self._transport.items("/api/v1/container-registries"))

    def remove_registry(self, name: str) -> None:
        """Forget a container registry; images stay in it.

        Raises:
            ContainerRegistryNotFound: if there is none of that name.
        """
        self._transport.request("DELETE", f"/api/v1/container-registries/{_quoted(name)}")

    def variants(self) -> Iterator[ImageVariant]:
        """The variants that every image has, by name."""
        return map(ImageVariant.from_json, self._transport.items("/api/v1/image-variants"))

    def set_variant(self, name: str, *, platform: str, base: str, accelerators: Sequence[str] = ()) -> ImageVariant:
        """Have every image made with a variant: for a platform, over a base that is named by its digest.

        Raises:
            InvalidInput: if the platform or the base is not one that images can be made for.
        """
        body: dict[str, JsonValue] = {"platform": platform, "base": base, "accelerators": list(accelerators)}
        path = f"/api/v1/image-variants/{_quoted(name)}"
        return ImageVariant.from_json(self._transport.request("PUT", path, body=body))

    def delete_variant(self, name: str) -> None:
        """Have images made without a variant from now on.

        Raises:
            ImageVariantNotFound: if there is none of that name.
        """
        self._transport.request("DELETE", f"/api/v1/image-variants/{_quoted(name)}")

    def list(self) -> Iterator[ImageStatus]:
        """The images of all bundles."""
        return map(ImageStatus.from_json, self._transport.items("/api/v1/images"))

    def status(self, bundle_id: str) -> ImageStatus:
        """Where a bundle's image is, and whether it is the same everywhere.

        Raises:
            BundleNotFound: if there is no such bundle.
        """
        return ImageStatus.from_json(self._transport.get(f"{_bundle(bundle_id)}/image"))

    def push(self, bundle_id: str, *, registries: Sequence[str] | None = None, wait: bool = False) -> ImageStatus:
        """Want a bundle's image in some registries, or wherever it may be; with `wait`, until it is one everywhere.

        Raises:
            BundleNotFound, ContainerRegistryNotFound, NotReady, ResidencyViolation, InvalidInput.
            TimeoutError: if it is not there after an hour.
        """
        body: dict[str, JsonValue] = {"registries": None if registries is None else list(registries)}
        status = ImageStatus.from_json(self._transport.post(f"{_bundle(bundle_id)}/image", body))
        if wait:
            wait_until(lambda: self.status(bundle_id).is_one, f"the image of {status.reference}", PUSH_SECONDS)
            return self.status(bundle_id)
        return status

    def check(self, bundle_id: str) -> ImageStatus:
        """Have a bundle's image read back everywhere now.

        Raises:
            BundleNotFound: if there is no such bundle.
        """
        return ImageStatus.from_json(self._transport.post(f"{_bundle(bundle_id)}/image/check", {}))


class Profiles:
    """What one replica of a bundle does."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def take(
        self,
        bundle_id: str,
        *,
        region: str | None = None,
        p95_ms: float | None = None,
        max_concurrency: int = 64,
        seconds: float = 3.0,
        progress: Callable[[Profile], None] | None = None,
    ) -> Profile:
        """Have a bundle measured by a worker of a region, and wait for it; `progress` is shown it meanwhile.

        Raises:
            BundleNotFound, NotReady, InvalidInput.
            TimeoutError: if it is not measured after half an hour.
        """
        body: dict[str, JsonValue] = {
            "region": region,
            "p95_ms": p95_ms,
            "max_concurrency": max_concurrency,
            "seconds": seconds,
        }
        asked = Profile.from_json(self._transport.post(f"{_bundle(bundle_id)}/profiles", body))

        def is_done() -> bool:
            nonlocal asked
            asked = self.get(bundle_id, asked.id)
            if progress is not None:
                progress(asked)
            return asked.state != "PENDING"

        if asked.state == "PENDING" and not self._transport.is_dry_run:
            wait_until(is_done, f"the profile of {asked.reference}", PROFILE_SECONDS)
        return asked

    def get(self, bundle_id: str, profile_id: str) -> Profile:
        """One profile.

        Raises:
            ProfileNotFound: if the bundle has no such profile.
        """
        return Profile.from_json(self._transport.get(f"{_bundle(bundle_id)}/profiles/{quote(profile_id, safe='')}"))

    def list(self, bundle_id: str) -> Iterator[Profile]:
        """The profiles of a bundle, newest first."""
        return map(Profile.from_json, self._transport.items(f"{_bundle(bundle_id)}/profiles"))


def _quoted(name: str) -> str:
    return quote(parse_name(name, what="name"), safe="")


def _bundle(bundle_id: str) -> str:
    return f"/api/v1/bundles/{quote(bundle_id, safe='')}"
