"""A view's rows from a verified replica, as a local file.

Bytes come through the content store's reader, which gives the registered ones or an error, into a folder that is named
by workspace, residency class and digest. What lies there is compared with its digest again at each use. A replica that
turns out to be damaged is reported, so that it is mended, and another one is read.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import AlreadyExists, FairleadError, IntegrityError, ObjectNotFound, ReplicaUnavailable
from fairlead.core.ids import Digest, digest_hex
from fairlead.featurestore.rows import ROWS_FILE
from fairlead.registry.identity import system_caller
from fairlead.registry.locations import Location, StoreOpener, get_location
from fairlead.registry.replicas import Artifacts
from fairlead.registry.tables import ReplicaRow
from fairlead.sync.shelves import domain_of_layout, open_location
from fairlead.sync.store.reader import ArtifactReader


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactName:
    """An artifact within its workspace and residency class."""

    workspace_id: str
    residency: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDelta:
    """What is different between two artifacts' rows: Parquet files of whole rows, in canonical order.

    The rows of the one, without those `removed` and with those `added`, each as often as it is there, are the other's.
    """

    added: Path
    removed: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    location: Location
    layout_key: str | None


class ReplicaRows:
    """Brings the rows of snapshot artifacts to this machine, below `folder`."""

    @property
    def folder(self) -> Path:
        """Where they are kept."""
        return self._folder

    def __init__(self, database: Database, *, artifacts: Artifacts, open_store: StoreOpener, folder: Path) -> None:
        self._database = database
        self._artifacts = artifacts
        self._open_store = open_store
        self._folder = folder

    def fetch(self, name: ArtifactName, *, near: str | None = None, only: str | None = None) -> Path:
        """The Parquet file of an artifact: from a replica in the region `near` if there is one, or `only` in that one.

        Raises:
            ReplicaUnavailable: if no verified replica there can be read.
        """
        with self._database.read() as session:
            sources = [each for each in _verified(session, name, near) if only in {None, each.location.region}]
        problem: FairleadError | None = None
        for source in sources:
            try:
                return self._download(name, source)
            except (IntegrityError, ObjectNotFound) as error:
                problem = error
                caller = system_caller(name.workspace_id, "worker")
                self._artifacts.report(caller, name.digest, location=source.location.name, code=error.code)
            except FairleadError as error:
                problem = error
        raise ReplicaUnavailable(
            f"No verified replica of {name.digest} can be read in {only or 'any region'}.",
            hint="It is copied or mended by itself; see: fairlead work",
            digest=name.digest,
        ) from problem

    def fetch_delta(self, old: ArtifactName, new: ArtifactName, *, only: str | None = None) -> RowDelta | None:
        """What turns the rows of one artifact into those of another of the same view; None: take all of the new rows.

        Raises:
            ReplicaUnavailable: if no verified replica there can be read.
        """
        _ = old, new, only
        return None

    def _download(self, name: ArtifactName, source: _Source) -> Path:
        folder = self._folder / name.workspace_id / name.residency / digest_hex(Digest(name.digest))
        store = open_location(self._open_store, source.location)
        domain = domain_of_layout(source.layout_key, name.workspace_id, name.residency)
        reader = ArtifactReader.open(store, domain, Digest(name.digest), source.layout_key)
        try:
            reader.download(folder)
        except AlreadyExists:
            # What was kept here is damaged.
            shutil.rmtree(folder)
            reader.download(folder)
        return folder / ROWS_FILE


def verified_regions(session: Session, name: ArtifactName) -> set[str]:
    """The regions with a verified replica of an artifact."""
    return {source.location.region for source in _verified(session, name, None)}


def _verified(session: Session, name: ArtifactName, near: str | None) -> list[_Source]:
    query = select(ReplicaRow).where(
        ReplicaRow.workspace_id == name.workspace_id,
        ReplicaRow.residency == name.residency,
        ReplicaRow.artifact_digest == name.digest,
        ReplicaRow.state == "VERIFIED",
    )
    found = [
        _Source(location=get_location(session, row.workspace_id, row.location_id), layout_key=row.layout_key)
        for row in session.scalars(query)
    ]
    # Then folders of this machine before buckets.
    return sorted(
        found,
        key=lambda source: (
            not source.location.takes_traffic,
            source.location.region != near,
            not source.location.url.startswith("file:"),
            source.location.name,
        ),
    )
