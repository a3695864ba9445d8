"""What this process itself makes and stores: written into an upload's location, and handed over to be read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairlead.registry.uploads import DIGESTS_AT_ONCE
from fairlead.sync.shelves import by_digest, domain_of_upload, open_for_writing
from fairlead.sync.store.writer import WrittenArtifact, write_artifact

if TYPE_CHECKING:
    from fairlead.core.ids import Digest
    from fairlead.registry.blocks import BlockPlace
    from fairlead.registry.identity import Caller
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.uploads import Upload, Uploads
    from fairlead.sync.store.blocks import KnownBlocks, StoredBlock
    from fairlead.sync.store.manifest import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """An upload that was handed over, and what was written for it."""

    upload: Upload
    written: WrittenArtifact


def publish(uploads: Uploads, open_store: StoreOpener, caller: Caller, upload: Upload, source: Source) -> Published:
    """Write files into the location of an upload that the caller has begun; what is there already is not sent again.

    Raises:
        InvalidManifest, InvalidInput: if the files cannot be an artifact.
        ResidencyViolation: if the location may not hold them any more.
        LeaseLost: if the upload's time is over.
        LocationUnavailable, StorageFull, PermissionDenied: from the store.
    """
    written = write_artifact(
        open_for_writing(open_store, upload.location, residency=upload.residency),
        domain_of_upload(upload, caller.workspace_id),
        source,
        known_blocks=known_to(uploads, caller, upload.id),
    )
    handed = uploads.complete(
        caller,
        upload.id,
        artifact_digest=written.digest,
        layout_key=written.layout_key,
        sent_bytes=written.sent_bytes,
    )
    return Published(upload=handed, written=written)


def known_to(uploads: Uploads, caller: Caller, upload_id: str) -> KnownBlocks:
    """What the record knows of the upload's location."""

    def ask(digests: Sequence[Digest]) -> Mapping[Digest, StoredBlock]:
        places: list[BlockPlace] = []
        for start in range(0, len(digests), DIGESTS_AT_ONCE):
            places += uploads.known_blocks(caller, upload_id, digests[start : start + DIGESTS_AT_ONCE])
        return by_digest(places)

    return ask
