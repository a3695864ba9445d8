"""The files of versions for MLflow's clients: read from verified replicas, and stored when they were uploaded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, select

from fairlead.core.errors import (
    FairleadError,
    IntegrityError,
    LocationUnavailable,
    ObjectNotFound,
    ReplicaUnavailable,
)
from fairlead.core.ids import Digest
from fairlead.registry.identity import Caller, system_caller
from fairlead.registry.locations import Location, to_location
from fairlead.registry.mlflow.ports import StoredFile
from fairlead.registry.tables import LocationRow, ReplicaRow
from fairlead.sync.shelves import domain_of_layout, open_location
from fairlead.sync.store.reader import ArtifactReader

if TYPE_CHECKING:
    from pathlib import Path

    from fairlead.core.db import Database
    from fairlead.registry.locations import StoreOpener
    from fairlead.registry.models import Labels
    from fairlead.registry.replicas import Artifacts
    from fairlead.registry.uploads import Uploads
    from fairlead.sync.staged_storing import StagedStoring

_KEPT = 64
_THREADS = 2


class StoredVersionFiles:
    """Reads from whichever replica holds; a replica that turns out damaged is reported, and the next one goes on."""

    def __init__(
        self,
        database: Database,
        *,
        uploads: Uploads,
        artifacts: Artifacts,
        open_store: StoreOpener,
        storing: StagedStoring,
    ) -> None:
        self._database = database
        self._storing = storing
        self._uploads = uploads
        self._artifacts = artifacts
        self._open_store = open_store
        self._guard = threading.Lock()
        self._manifests: OrderedDict[tuple[str, str, str], tuple[StoredFile, ...]] = OrderedDict()

    def list(self, workspace_id: str, residency: str, digest: str) -> Sequence[StoredFile]:
        """The files of an artifact.

        Raises:
            ReplicaUnavailable: if no location has it verified.
            IntegrityError, ObjectNotFound, LocationUnavailable: if none of them can be read.
        """
        key = (workspace_id, residency, digest)
        with self._guard:
            kept = self._manifests.get(key)
        if kept is not None:
            return kept
        for reader in self._readers(workspace_id, residency, digest):
            files = tuple(
                StoredFile(path=file.path, size=file.size, digest=file.digest) for file in reader.opened.manifest.files
            )
            with self._guard:
                self._manifests[key] = files
                while len(self._manifests) > _KEPT:
                    self._manifests.popitem(last=False)
            return files
        raise AssertionError

    def read(self, workspace_id: str, residency: str, digest: str, path: str) -> Iterator[bytes]:
        """The verified bytes of one file, in pieces; where a replica fails, the next one goes on from there.

        Raises:
            ReplicaUnavailable: if no location has it verified.
            IntegrityError, ObjectNotFound, LocationUnavailable: if none of them can be read on.
        """
        sent = 0
        for reader in self._readers(workspace_id, residency, digest):
            skipped = 0
            try:
                for piece in reader.opened.iter_file(path):
                    rest = piece[max(0, sent - skipped) :]
                    skipped += len(piece)
                    if rest:
                        yield rest
                        sent += len(rest)
            except (IntegrityError, ObjectNotFound, LocationUnavailable) as error:
                reader.error = error
                continue
            return

    def store(
        self, caller: Caller, folder: Path, *, residency: str, regions: Sequence[str] | None, labels: Labels
    ) -> str:
        """Begin to store a folder, and hand it over to be verified once it is; the id of its upload.

        Raises:
            ResidencyViolation, LocationNotFound: if no location takes it.
        """
        upload = self._uploads.begin(
            caller,
            kind="model",
            residency=residency,
            regions=regions,
            labels={"owner": labels.owner, "team": labels.team, "cost_centre": labels.cost_centre},
        )
        self._storing.begin(caller.workspace_id, upload, folder)
        return upload.id

    def _readers(self, workspace_id: str, residency: str, digest: str) -> Iterator[_Reader]:
        """The replicas one after the other; after the last one that failed, what it failed of is raised."""
        last: FairleadError | None = None
        for location, layout_key in self._replicas(workspace_id, residency, digest):
            try:
                store = open_location(self._open_store, location)
                domain = domain_of_layout(layout_key, workspace_id, residency)
                reader = _Reader(ArtifactReader.open(store, domain, Digest(digest), layout_key, threads=_THREADS))
                yield reader
                last = reader.error
            except (IntegrityError, ObjectNotFound, LocationUnavailable) as error:
                last = error
            if isinstance(last, (IntegrityError, ObjectNotFound)):
                self._artifacts.report(
                    system_caller(workspace_id, "worker"), digest, location=location.name, code=last.code
                )
        raise last or ReplicaUnavailable(
            f"No location has a verified replica of {digest}.", hint="See what is waited for: fairlead work"
        )

    def _replicas(self, workspace_id: str, residency: str, digest: str) -> list[tuple[Location, str | None]]:
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
            .order_by(LocationRow.kind != "storage", LocationRow.state != "ACTIVE", LocationRow.name)
        )
        with self._database.read() as session:
            return [(to_location(location), replica.layout_key) for replica, location in session.execute(query).all()]


@dataclass(slots=True)
class _Reader:
    """A replica that is open, and what it failed of."""

    opened: ArtifactReader
    error: FairleadError | None = None
