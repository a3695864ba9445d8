"""Artifacts in and out of a region's own locations, for the workers that build and run bundles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import IntegrityError, ObjectNotFound, ReplicaUnavailable
from fairlead.core.ids import Digest
from fairlead.core.ports import Clock
from fairlead.registry.identity import system_caller
from fairlead.registry.locations import Location, StoreOpener, to_location
from fairlead.registry.replicas import Artifacts
from fairlead.registry.tables import LocationRow, ReplicaRow
from fairlead.registry.uploads import Uploads
from fairlead.sync.shelves import domain_of_layout, open_location
from fairlead.sync.store.reader import ArtifactReader
from fairlead.sync.uploading import publish


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedArtifact:
    """What was handed over to be read back. `sent_bytes` went to the location; the rest of `size_bytes` was there."""

    upload_id: str
    digest: Digest
    size_bytes: int
    sent_bytes: int


class RegionArtifacts:
    """Downloads from, and publishes to, the locations of one region."""

    def __init__(self, database: Database, clock: Clock, *, uploads: Uploads, open_store: StoreOpener) -> None:
        self._database = database
        self._uploads = uploads
        self._open_store = open_store
        self._artifacts = Artifacts(database, clock)

    def download(self, workspace_id: str, residency: str, digest: Digest, region: str, destination: Path) -> None:
        """Write an artifact's files below `destination` from a VERIFIED replica in `region`, every byte checked again.

        A replica whose bytes turn out wrong is reported, so that it is mended from another region.

        Raises:
            ReplicaUnavailable: if the region has no VERIFIED replica.
            IntegrityError, ObjectNotFound: if the replica is damaged.
            LocationUnavailable, StorageFull, PermissionDenied: from the store or the local disk.
        """
        with self._database.read() as session:
            found = verified_replicas(session, workspace_id, residency, digest, region=region)
        if not found:
            raise ReplicaUnavailable(
                f"{region} has no VERIFIED replica of {digest}.",
                hint="It is copied by itself; see what is waited for: fairlead work",
                region=region,
                digest=digest,
            )
        location, layout_key = found[0]
        store = open_location(self._open_store, location)
        try:
            ArtifactReader.open(
                store, domain_of_layout(layout_key, workspace_id, residency), digest, layout_key
            ).download(destination)
        except (IntegrityError, ObjectNotFound) as error:
            self._artifacts.report(
                system_caller(workspace_id, "worker"), digest, location=location.name, code=error.code
            )
            raise

    def publish_bundle(
        self,
        workspace_id: str,
        folder: Path,
        *,
        residency: str,
        regions: Sequence[str] | None,
        labels: Mapping[str, str],
        region: str,
    ) -> PublishedArtifact:
        """Store a folder as a bundle in (or near) `region` and hand it over; blocks that are there are not sent again.

        Raises:
            ResidencyViolation, LocationNotFound: if no location may take it.
            LocationUnavailable, StorageFull, PermissionDenied: from the store.
        """
        caller = system_caller(workspace_id, "worker")
        upload = self._uploads.begin(
            caller, kind="bundle", residency=residency, regions=regions, labels=labels, region=region
        )

        published = publish(self._uploads, self._open_store, caller, upload, folder)
        written = published.written
        return PublishedArtifact(
            upload_id=upload.id,
            digest=written.digest,
            size_bytes=written.plain_bytes,
            sent_bytes=written.sent_bytes,
        )


def verified_replicas(
    session: Session, workspace_id: str, residency: str, digest: str, *, region: str | None = None
) -> list[tuple[Location, str | None]]:
    """The locations (of one region, or of all) with a VERIFIED replica, and the layout it was read back through."""
    query = (
        select(ReplicaRow, LocationRow)
        .join(
            LocationRow,
            and_(LocationRow.workspace_id == ReplicaRow.workspace_id, LocationRow.id == ReplicaRow.location_id),
        )
        .where(
            ReplicaRow.workspace_id == workspace_id,
            ReplicaRow.residency == residency,
            ReplicaRow.artifact_digest == digest,
            ReplicaRow.state == "VERIFIED",
        )
        .order_by(LocationRow.state != "ACTIVE", LocationRow.name)
    )
    if region is not None:
        query = query.where(LocationRow.region == region)
    return [(to_location(location), replica.layout_key) for replica, location in session.execute(query).all()]
