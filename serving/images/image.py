"""What a bundle's image is: layers of its own over those of a base, a config, a manifest, and an index of variants.

    base's layers                      as they are, never unpacked
    opt/fairlead/site-packages/...     the locked wheels
    opt/fairlead/bundle/src/model/...  the version's files
    opt/fairlead/bundle/...            the service, its environment and its papers

So two versions with the same requirements share all but the last two layers, and another release of the service with
the same model shares all but the last. Nothing in an image is of the moment or of the machine that makes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.core.ids import Digest, sha256_digest
from fairlead.serving.images.layers import LAYER_TYPE, Layer, files_below
from fairlead.serving.workload import PORT

IMAGE_FORMAT = 1
"""Grows whenever equal bundles over equal bases get other images."""

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
PLATFORMS = ("linux/amd64", "linux/arm64")
CREATED = "1970-01-01T00:00:00Z"
USER = "65532:65532"
BUNDLE_FOLDER = "opt/fairlead/bundle"
PACKAGES_FOLDER = "opt/fairlead/site-packages"
MODEL_FOLDER = "src/model"
_ACCELERATORS = "org.fairlead.accelerators"
_VARIANT = "org.fairlead.variant"
_REFERENCE = re.compile(
    r"(?P<host>[a-z0-9.-]+(?::\d{1,5})?|\[[0-9a-f:]+\](?::\d{1,5})?)/(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::[\w.-]{1,128})?@(?P<digest>sha256:[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """An image that is named by its digest: `HOST[:PORT]/REPOSITORY@sha256:...`; a tag is read over."""

    host: str
    repository: str
    digest: Digest

    @staticmethod
    def parse(text: str) -> ImageReference:
        """Read a reference.

        Raises:
            InvalidInput: if it names no host, or no digest.
        """
        found = _REFERENCE.fullmatch(text)
        if found is None or len(text) > 500:
            raise InvalidInput(
                f"{text[:200]!r} names no image by its digest.",
                hint="Write HOST/REPOSITORY@sha256:..., such as registry-1.docker.io/library/python@sha256:...",
            )
        return ImageReference(host=found["host"], repository=found["repository"], digest=Digest(found["digest"]))

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}@{self.digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A blob or manifest as others name it."""

    media_type: str
    digest: Digest
    size: int

    def to_json(self) -> dict[str, JsonValue]:
        """The descriptor as the image specification writes it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What one of a bundle's images runs on. `accelerators` are boards of the catalog; none: it needs a CPU alone."""

    name: str
    platform: str
    accelerators: tuple[str, ...]
    base: str

    def facts(self) -> dict[str, JsonValue]:
        """The variant as a part of an image's recipe."""
        return {
            "name": self.name,
            "platform": self.platform,
            "accelerators": list(self.accelerators),
            "base": self.base,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The image below a bundle's layers: for one platform, with the layers as descriptors."""

    reference: str
    config: Mapping[str, Any]
    layers: tuple[Descriptor, ...]

    @property
    def python(self) -> str | None:
        """The Python that it says it has, such as `3.11`."""
        version = _environment(self.config).get("PYTHON_VERSION")
        return None if version is None else ".".join(version.split(".")[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantImage:
    """A bundle for one variant: the manifest's bytes, the config's, and the layers that are not the base's."""

    variant: Variant
    manifest: bytes
    config: bytes
    layers: tuple[Layer, ...]
    base_layers: tuple[Descriptor, ...]

    @property
    def descriptor(self) -> Descriptor:
        """The manifest as the index names it."""
        return Descriptor(media_type=MANIFEST_TYPE, digest=sha256_digest(self.manifest), size=len(self.manifest))

    @property
    def size(self) -> int:
        """The bytes of all its blobs."""
        return len(self.config) + sum(each.size for each in (*self.base_layers, *self.layers))


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleImage:
    """A bundle's image: the index of its variants, which stand in it by name."""

    index: bytes
    variants: tuple[VariantImage, ...]

    @property
    def digest(self) -> Digest:
        """The name of the image, in every registry."""
        return sha256_digest(self.index)


def recipe_digest(variants: Sequence[Variant]) -> Digest:
    """Names how an image is made of a bundle; equal recipes make equal images of equal bundles."""
    return sha256_digest(
        canonical_json(
            {
                "format": IMAGE_FORMAT,
                "variants": [each.facts() for each in sorted(variants, key=lambda each: each.name)],
            }
        )
    )


def bundle_layers(folder: Path) -> tuple[Layer, Layer]:
    """The layers of a bundle's model and of the rest of it, the same for every variant."""
    model = Layer(files_below(folder / MODEL_FOLDER, f"{BUNDLE_FOLDER}/{MODEL_FOLDER}"))
    return model, Layer(files_below(folder, BUNDLE_FOLDER, skip=[MODEL_FOLDER]))


def packages_layer(folder: Path) -> Layer:
    """The layer of unpacked wheels. What an installer writes of itself beside them is left out."""
    return Layer(
        each
        for each in files_below(folder, PACKAGES_FOLDER, skip=["bin"])
        if not _OF_INSTALLER.search(each.path) and "__pycache__" not in each.path.split("/")
    )


_OF_INSTALLER = re.compile(
    rf"^{PACKAGES_FOLDER}/(\.lock|[^/]+\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json|uv_(cache|build)\.json))$"
)


def assemble(
    variant: Variant,
    base: Base,
    *,
    layers: Sequence[tuple[str, Layer]],
    bundle_digest: Digest,
    labels: Mapping[str, str],
) -> VariantImage:
    """The image of a variant; `layers` are its own from the lowest up, each with what its history says of it."""
    config = canonical_json(_config(variant, base, layers, bundle_digest, labels))
    descriptors = [
        *base.layers,
        *(Descriptor(media_type=LAYER_TYPE, digest=each.digest, size=each.size) for _, each in layers),
    ]
    manifest: dict[str, JsonValue] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": Descriptor(media_type=CONFIG_TYPE, digest=sha256_digest(config), size=len(config)).to_json(),
        "layers": [each.to_json() for each in descriptors],
        "annotations": {
            "org.opencontainers.image.base.name": base.reference.partition("@")[0],
            "org.opencontainers.image.base.digest": base.reference.partition("@")[2],
            "org.opencontainers.image.created": CREATED,
            "org.fairlead.bundle": bundle_digest,
        },
    }
    return VariantImage(
        variant=variant,
        manifest=canonical_json(manifest),
        config=config,
        layers=tuple(layer for _, layer in layers),
        base_layers=base.layers,
    )


def index_of(images: Sequence[VariantImage], bundle_digest: Digest) -> BundleImage:
    """The index of a bundle's variants, one without accelerators first: what knows nothing of them takes that."""
    ordered = sorted(images, key=lambda each: (bool(each.variant.accelerators), each.variant.name))
    manifests: list[JsonValue] = []
    for each in ordered:
        system, _, architecture = each.variant.platform.partition("/")
        annotations: dict[str, JsonValue] = {_VARIANT: each.variant.name}
        if each.variant.accelerators:
            annotations[_ACCELERATORS] = ",".join(each.variant.accelerators)
        manifests.append(
            {
                **each.descriptor.to_json(),
                "platform": {"os": system, "architecture": architecture},
                "annotations": annotations,
            }
        )
    index: dict[str, JsonValue] = {
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": manifests,
        "annotations": {"org.fairlead.bundle": bundle_digest},
    }
    return BundleImage(index=canonical_json(index), variants=tuple(ordered))


def _config(
    variant: Variant,
    base: Base,
    layers: Sequence[tuple[str, Layer]],
    bundle_digest: Digest,
    labels: Mapping[str, str],
) -> dict[str, JsonValue]:
    system, _, architecture = variant.platform.partition("/")
    environment = _environment(base.config) | {
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_HOME": "/tmp/bentoml",  # noqa: S108  (of a container, where nobody else is)
        "FAIRLEAD_BUNDLE_DIGEST": bundle_digest,
        "HOME": "/tmp",  # noqa: S108
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"/{PACKAGES_FOLDER}",
    }
    ours: list[JsonValue] = [
        {"created": CREATED, "created_by": "fairlead", "comment": comment} for comment, _ in layers
    ]
    history: list[JsonValue] = list(base.config.get("history") or ())
    diffs: list[JsonValue] = list(base.config["rootfs"]["diff_ids"])
    return {
        "architecture": architecture,
        "os": system,
        "created": CREATED,
        "config": {
            "Env": [f"{name}={value}" for name, value in environment.items()],
            "Entrypoint": [
                "python3",
                "-m",
                "bentoml",
                "serve",
                f"/{BUNDLE_FOLDER}",
                "--host",
                "0.0.0.0",  # noqa: S104  (of a container)
                "--port",
                str(PORT),
            ],
            "ExposedPorts": {f"{PORT}/tcp": {}},
            "Labels": {
                **labels,
                "org.opencontainers.image.base.digest": base.reference.partition("@")[2],
                "org.opencontainers.image.base.name": base.reference.partition("@")[0],
                "org.opencontainers.image.created": CREATED,
                "org.fairlead.bundle": bundle_digest,
                "org.fairlead.variant": variant.name,
            },
            "StopSignal": "SIGTERM",
            "User": USER,
            "WorkingDir": "/tmp",  # noqa: S108
        },
        "rootfs": {"type": "layers", "diff_ids": [*diffs, *(layer.digest for _, layer in layers)]},
        "history": [*history, *ours],
    }


def _environment(config: Mapping[str, Any]) -> dict[str, str]:
    lines = cast("list[object]", (config.get("config") or {}).get("Env") or [])
    return dict(str(line).split("=", 1) for line in lines if "=" in str(line))
