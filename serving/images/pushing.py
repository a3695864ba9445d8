"""Brings an image to a registry and proves that it is there: blobs, then manifests, then the index, then the tag.

Whatever is there already is not sent again, so a push that was interrupted goes on where it ended. A base's layers go
from registry to registry as they are. At the end everything is read back: an image counts once every byte of it was
seen to be what its digest says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from fairlead.core.errors import IntegrityError, InvalidInput
from fairlead.core.ids import Digest, parse_digest
from fairlead.serving.images.client import Blob, BytesBlob, RegistryClient, RemoteBlob
from fairlead.serving.images.image import (
    INDEX_TYPE,
    MANIFEST_TYPE,
    Base,
    BundleImage,
    Descriptor,
    ImageReference,
    VariantImage,
)

_INDEX_TYPES = frozenset({INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json"})
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_LAYER_TYPES = {
    _DOCKER_LAYER: f"{_OCI_LAYER}+gzip",
    _OCI_LAYER: _OCI_LAYER,
    f"{_OCI_LAYER}+gzip": f"{_OCI_LAYER}+gzip",
    f"{_OCI_LAYER}+zstd": f"{_OCI_LAYER}+zstd",
}
_LAYERS_MAX = 100

Report = Callable[[int, int], None]
"""Told (bytes done, bytes in all)."""


def fetch_base(client: RegistryClient, reference: ImageReference, platform: str) -> Base:
    """The base for one platform: its manifest and config, and none of its layers.

    Raises:
        NotFound: if the registry does not have it.
        InvalidInput: if it is for another platform, or of a form that nothing can be laid on.
        IntegrityError: if it is not what its digest says.
    """
    media_type, content = client.read_manifest(reference.repository, reference.digest)
    manifest = _parse(content, reference)
    if media_type in _INDEX_TYPES or "manifests" in manifest:
        found = [each for each in manifest["manifests"] if _platform_of(each) == platform]
        if not found:
            raise InvalidInput(f"The base {reference} has no image for {platform}.", hint="Name one that has.")
        digest = parse_digest(str(found[0]["digest"]))
        manifest = _parse(client.read_manifest(reference.repository, digest)[1], reference)
    if not manifest.get("layers") or len(manifest["layers"]) > _LAYERS_MAX:
        raise InvalidInput(f"The base {reference} has no layers, or more than {_LAYERS_MAX}.")
    named = _descriptor(manifest["config"])
    if named.size > 2**22:
        raise InvalidInput(f"The config of the base {reference} is too large.")
    content = b"".join(client.read_blob(reference.repository, named.digest, named.size))
    if BytesBlob(content=content).digest != named.digest:
        raise IntegrityError(f"The config of the base {reference} is not what its digest says.")
    config = _parse(content, reference)
    if f"{config.get('os')}/{config.get('architecture')}" != platform:
        raise InvalidInput(f"The base {reference} is for {config.get('os')}/{config.get('architecture')}.")
    layers = tuple(_layer(each, reference) for each in manifest["layers"])
    if len(config.get("rootfs", {}).get("diff_ids", ())) != len(layers):
        raise InvalidInput(f"The base {reference} does not say what its layers unpack to.")
    return Base(reference=str(reference), config=config, layers=layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One image on its way to one repository. `mounts` are repositories of the registry that may share blobs."""

    client: RegistryClient
    repository: str
    tag: str
    image: BundleImage
    bases: Mapping[str, tuple[RegistryClient, str]]
    mounts: Sequence[str] = ()

    def run(self, report: Report = lambda _done, _total: None) -> int:
        """Bring all of it there; the bytes that were sent.

        Raises:
            Unavailable, PermissionDenied, NotFound: from the registries.
        """
        sent, total = 0, sum(each.size for each in self.image.variants)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            report(min(done, total), total)

        for variant in self.image.variants:
            for blob in self._blobs(variant):
                if self._mount(blob):
                    advance(blob.size)
                elif self.client.send(self.repository, blob, advance):
                    sent += blob.size
        for variant in self.image.variants:
            self.client.write_manifest(self.repository, variant.descriptor.digest, MANIFEST_TYPE, variant.manifest)
        self.client.write_manifest(self.repository, self.image.digest, INDEX_TYPE, self.image.index)
        self.client.write_manifest(self.repository, self.tag, INDEX_TYPE, self.image.index)
        return sent

    def _mount(self, blob: Blob) -> bool:
        if not self.mounts or self.client.blob_size(self.repository, blob.digest) == blob.size:
            return False
        for other in self.mounts:
            if self.client.blob_size(other, blob.digest) == blob.size:
                return self.client.mount(self.repository, blob.digest, other)
        return False

    def _blobs(self, variant: VariantImage) -> Iterable[Blob]:
        source, repository = self.bases[variant.variant.base]
        for each in variant.base_layers:
            yield RemoteBlob(client=source, repository=repository, digest=each.digest, size=each.size)
        yield from variant.layers
        yield BytesBlob(content=variant.config)


def check_pushed(
    client: RegistryClient,
    repository: str,
    digest: Digest,
    tag: str,
    report: Report = lambda _done, _total: None,
) -> None:
    """Read an image back: what the tag leads to, each manifest below it, and every blob to its last byte.

    Raises:
        IntegrityError: if the tag leads elsewhere, or anything is not what its digest says.
        NotFound: if anything is missing.
    """
    _, tagged = client.read_manifest(repository, tag)
    if BytesBlob(content=tagged).digest != digest:
        raise IntegrityError(
            f"The tag {tag} of {repository} leads to another image than {digest}.", hint="It is pushed again by itself."
        )
    index = json.loads(client.read_manifest(repository, digest)[1])
    blobs: dict[Digest, int] = {}
    for each in index["manifests"]:
        manifest = json.loads(client.read_manifest(repository, each["digest"])[1])
        for named in (manifest["config"], *manifest["layers"]):
            blobs[Digest(named["digest"])] = named["size"]
    done, total = 0, sum(blobs.values())
    for name, size in blobs.items():
        if client.blob_size(repository, name) != size:
            raise IntegrityError(f"The blob {name} of {repository} is missing, or of another size.", digest=name)
        client.check_blob(repository, name, size)
        done += size
        report(done, total)


def _parse(content: bytes, reference: ImageReference) -> dict[str, Any]:
    try:
        found: object = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(f"The base {reference} is no image of a known form.")
    return cast("dict[str, Any]", found)


def _platform_of(entry: Mapping[str, Any]) -> str:
    platform = cast("dict[str, Any]", entry.get("platform") or {})
    return f"{platform.get('os')}/{platform.get('architecture')}"


def _descriptor(value: Mapping[str, Any]) -> Descriptor:
    return Descriptor(
        media_type=str(value["mediaType"]), digest=parse_digest(str(value["digest"])), size=int(value["size"])
    )


def _layer(value: Mapping[str, Any], reference: ImageReference) -> Descriptor:
    found = _descriptor(value)
    if found.media_type not in _LAYER_TYPES or value.get("urls"):
        raise InvalidInput(
            f"The base {reference} has a layer of the type {found.media_type[:100]!r}, which may not be copied."
        )
    return Descriptor(media_type=_LAYER_TYPES[found.media_type], digest=found.digest, size=found.size)
