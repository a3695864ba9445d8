"""Between the record and the content store: which store and domain a location's rows mean, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fairlead.catalog import Residency, check
from fairlead.core.errors import ResidencyViolation
from fairlead.core.ids import Digest, digest_hex
from fairlead.registry.blocks import BlockPlace, BlockShelf
from fairlead.sync.store.blocks import StoredBlock
from fairlead.sync.store.domain import DedupDomain, domain_of_key

if TYPE_CHECKING:
    from fairlead.core.ports import ObjectStore
    from fairlead.registry.locations import Location, StoreOpener
    from fairlead.registry.uploads import Upload


def domain_of(shelf: BlockShelf) -> DedupDomain:
    """The dedup domain of a shelf."""
    return DedupDomain(shelf.workspace_id, shelf.residency, shelf.key_id)


def shelf_of(domain: DedupDomain, location_id: str) -> BlockShelf:
    """The shelf of a dedup domain at a location."""
    return BlockShelf(
        workspace_id=domain.workspace, residency=domain.residency, location_id=location_id, key_id=domain.key_id
    )


def packs_by_shelf(keys: Iterable[str], location_id: str) -> Mapping[BlockShelf, set[str]]:
    """The packs (hex digests) among objects of a location, by the shelf that they are of."""
    found: dict[BlockShelf, set[str]] = {}
    for key in keys:
        domain = domain_of_key(key)
        pack = None if domain is None else domain.parse_pack_key(key)
        if domain is not None and pack is not None:
            found.setdefault(shelf_of(domain, location_id), set()).add(digest_hex(pack))
    return found


def domain_of_upload(upload: Upload, workspace_id: str) -> DedupDomain:
    """The dedup domain that an upload writes to."""
    return DedupDomain(workspace_id, upload.residency, upload.key_id)


def domain_of_layout(layout_key: str | None, workspace_id: str, residency: str) -> DedupDomain:
    """The dedup domain that a replica was written to, by the key of its layout."""
    return (layout_key and domain_of_key(layout_key)) or DedupDomain(workspace_id, residency)


def address_of(location: Location) -> tuple[str, dict[str, Any]]:
    """The URL and options that a location's store is opened with, for another process to open it."""
    return location.url, dict(location.store_options)


def open_location(open_store: StoreOpener, location: Location) -> ObjectStore:
    """The store of a location, to read from."""
    return open_store(location.url, location.store_options)


def open_for_writing(open_store: StoreOpener, location: Location, *, residency: str) -> ObjectStore:
    """The store of a location, to write data of a residency class to: refused before it is opened.

    Both the catalog and what the location was added as must permit it.

    Raises:
        ResidencyViolation: if either does not.
    """
    check(Residency(residency), location.region)
    if not location.permits(residency, None):
        raise ResidencyViolation(
            f"Data of residency class {residency!r} may not go to {location.name!r} in {location.jurisdiction}.",
            hint="Choose a region inside, or register the data under another residency class.",
            residency=residency,
            region=location.region,
        )
    return open_location(open_store, location)


def to_place(block: StoredBlock) -> BlockPlace:
    """A stored block as the block index keeps it."""
    return BlockPlace(
        digest=block.digest,
        pack=digest_hex(block.pack),
        offset=block.offset,
        stored_length=block.stored_length,
        stored_sha256=digest_hex(block.stored_digest),
        plain_length=block.plain_length,
        codec=str(block.codec),
        base=block.base,
    )


def to_block(place: BlockPlace) -> StoredBlock:
    """A row of the block index as the content store knows it."""
    return StoredBlock(
        digest=Digest(place.digest),
        pack=Digest(f"sha256:{place.pack}"),
        offset=place.offset,
        stored_length=place.stored_length,
        stored_digest=Digest(f"sha256:{place.stored_sha256}"),
        plain_length=place.plain_length,
        codec=int(place.codec),
        base=None if place.base is None else Digest(place.base),
    )


def by_digest(places: Iterable[BlockPlace]) -> Mapping[Digest, StoredBlock]:
    """Rows of the block index by the block they are about."""
    return {Digest(place.digest): to_block(place) for place in places}
