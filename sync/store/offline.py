"""Reading back everything that a location, an archive or a folder holds, with no server to ask."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from fairlead.core.errors import (
    CorruptManifest,
    EncryptionKeyNotFound,
    IntegrityError,
    InvalidName,
    KeyUnavailable,
    ObjectNotFound,
)
from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.blocks import Progress
from fairlead.sync.store.domain import PLAIN_KEY_ID, DedupDomain
from fairlead.sync.store.encryption import EncryptedStore
from fairlead.sync.store.manifest import Source, build_manifest
from fairlead.sync.store.reader import ArtifactReader

_MANIFEST_KEY = re.compile(r"([^/]+)/([^/]+)/([^/]+)/manifests/([0-9a-f]{64})\.json")

VERIFIED = "verified"
ENCRYPTED = "encrypted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactVerdict:
    """What reading an artifact back came to: `verified`, `encrypted` (not read), or the code of an error.

    Plain files are in no domain.
    """

    digest: Digest
    domain: DedupDomain | None
    verdict: str
    detail: str | None = None
    files: int = 0
    plain_bytes: int = 0
    stored_bytes: int = 0


def list_artifacts(store: ObjectStore) -> list[tuple[DedupDomain, Digest]]:
    """Every artifact that a location holds a manifest of, in order of key.

    Raises:
        LocationUnavailable, PermissionDenied: from the store.
    """
    found: list[tuple[DedupDomain, Digest]] = []
    for item in store.list(""):
        match = _MANIFEST_KEY.fullmatch(item.key)
        if match is not None:
            try:
                domain = DedupDomain(match[1], match[2], match[3])
            except InvalidName:
                continue
            found.append((domain, Digest(f"sha256:{match[4]}")))
    return found


def verify_artifact(
    store: ObjectStore, domain: DedupDomain, digest: Digest, progress: Progress | None = None
) -> ArtifactVerdict:
    """Read every byte of one artifact through its newest layout; an encrypted one, if the store decrypts.

    Raises:
        LocationUnavailable, PermissionDenied: from the store; that says nothing about the bytes.
    """
    hidden = ArtifactVerdict(
        digest=digest, domain=domain, verdict=ENCRYPTED, detail="It is encrypted, and its key is not here."
    )
    if domain.key_id != PLAIN_KEY_ID and not isinstance(store, EncryptedStore):
        return hidden
    try:
        read = ArtifactReader.open(store, domain, digest).verify(progress)
    except (KeyUnavailable, EncryptionKeyNotFound) as error:
        return replace(hidden, detail=str(error))
    except (IntegrityError, ObjectNotFound) as error:
        return ArtifactVerdict(digest=digest, domain=domain, verdict=error.code, detail=error.detail)
    return ArtifactVerdict(
        digest=digest,
        domain=domain,
        verdict=VERIFIED,
        files=read.files,
        plain_bytes=read.plain_bytes,
        stored_bytes=read.stored_bytes,
    )


def verify_files(source: Source, wanted: Digest | None = None) -> ArtifactVerdict:
    """Read plain files and name the artifact that they are; with `wanted`, say whether they are that one.

    Raises:
        InvalidInput, InvalidManifest: if they cannot be an artifact.
    """
    manifest = build_manifest(source)
    is_right = wanted in {None, manifest.digest}
    return ArtifactVerdict(
        digest=manifest.digest,
        domain=None,
        verdict=VERIFIED if is_right else CorruptManifest.code,
        detail=None if is_right else f"The files are not those of {wanted}.",
        files=len(manifest.files),
        plain_bytes=manifest.plain_bytes,
    )
