"""A view's rows from a verified replica, as a local file.

Bytes come through the content store's reader, which gives the registered ones or an error, into a folder that is named
by workspace, residency class and digest. A base with deltas is flattened into one file beside it. What lies there is
compared with its digest again at each use, and may be deleted at any time. A replica that turns out to be damaged is
reported, so that it is mended, and another one is read.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.errors import (
    AlreadyExists,
    CorruptSnapshot,
    FairleadError,
    IntegrityError,
    ObjectNotFound,
    ReplicaUnavailable,
)
from fairlead.core.ids import Digest, digest_hex
from fairlead.featurestore.duck import load_arrow
from fairlead.featurestore.stored_rows import StoredRows, flatten, follows, read_stored, write_row_delta
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

    def __init__(self, database: Database, *, artifacts: Artifacts, open_store: StoreOpener, folder: Path) -> None:
        self._database = database
        self._artifacts = artifacts
        self._open_store = open_store
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where they are kept."""
        return self._folder

    def fetch(self, name: ArtifactName, *, near: str | None = None, only: str | None = None) -> Path:
        """The rows of an artifact as one Parquet file in canonical order, whatever base and deltas they are stored as.

        They come from a replica in the region `near` if there is one, or `only` in that one.

        Raises:
            ReplicaUnavailable: if no verified replica there can be read.
            CorruptSnapshot: if what was registered is not in a form that is known here.
        """
        return self._flat(name, self.fetch_stored(name, near=near, only=only))

    def fetch_stored(self, name: ArtifactName, *, near: str | None = None, only: str | None = None) -> StoredRows:
        """The base and deltas of an artifact, as they are stored.

        Raises:
            ReplicaUnavailable, CorruptSnapshot: as `fetch`.
        """
        with self._database.read() as session:
            sources = [each for each in _verified(session, name, near) if only in {None, each.location.region}]
        problem: FairleadError | None = None
        for source in sources:
            try:
                self._download(name, source)
                return read_stored(self._place(name))
            except CorruptSnapshot:
                raise  # as it was registered
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

    def block_digests(self, name: ArtifactName, *, near: str | None = None) -> set[Digest]:
        """The names of the blocks that an artifact's files are stored in, where it was last fetched from.

        Raises:
            ReplicaUnavailable: if there is no verified replica.
        """
        with self._database.read() as session:
            source = next(iter(_verified(session, name, near)), None)
        if source is None:
            raise ReplicaUnavailable(f"{name.digest} has no verified replica.", hint="See: fairlead work")
        store = open_location(self._open_store, source.location)
        domain = domain_of_layout(source.layout_key, name.workspace_id, name.residency)
        layout = ArtifactReader.open(store, domain, Digest(name.digest), source.layout_key).layout
        return {block.digest for blocks in layout.files.values() for block in blocks}

    def fetch_delta(self, old: ArtifactName, new: ArtifactName, *, only: str | None = None) -> RowDelta | None:
        """What turns the rows of one artifact into those of another of the same sub-view; None: take all new rows.

        Quick where the new one is the old one with one more delta; else the rows of both are compared in a stream.

        Raises:
            ReplicaUnavailable, CorruptSnapshot: as `fetch`.
        """
        stored = self.fetch_stored(old, only=only), self.fetch_stored(new, only=only)
        before, after = self._flat(old, stored[0]), self._flat(new, stored[1])
        schemas = [load_arrow().parquet.read_schema(path) for path in (before, after)]
        if not schemas[0].equals(schemas[1]):
            return None
        stem = f"{digest_hex(Digest(old.digest))[:32]}-{digest_hex(Digest(new.digest))[:32]}"
        folder = self._place(new).parent
        found = RowDelta(added=folder / f"{stem}.added.parquet", removed=folder / f"{stem}.removed.parquet")
        if not (_is_kept(found.added) and _is_kept(found.removed)):
            is_next = follows(*stored)
            written = [path.with_name(f".{path.name}.{secrets.token_hex(6)}") for path in (found.added, found.removed)]
            write_row_delta(before, stored[1] if is_next else None, after, added=written[0], removed=written[1])
            for temporary, path in zip(written, (found.added, found.removed), strict=True):
                _keep(temporary, path)
        return found

    def keep(self, name: ArtifactName, files: Mapping[str, Path], flat: Path) -> None:
        """Keep what this process has just written as an artifact, so that its rows need not be fetched.

        Args:
            name: the artifact.
            files: its files, by their names in it.
            flat: its flat rows. It is gone afterwards, unless it is one of the files.
        """
        folder = self._place(name)
        temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.partial")
        temporary.mkdir(parents=True)
        try:
            for each, path in files.items():
                _link(path, temporary / each)
            if not folder.exists():
                temporary.replace(folder)
        except OSError:
            return  # It is fetched when it is needed.
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if flat not in files.values():
            _keep(flat, self._flat_path(name))

    def _place(self, name: ArtifactName) -> Path:
        return self._folder / name.workspace_id / name.residency / digest_hex(Digest(name.digest))

    def _flat_path(self, name: ArtifactName) -> Path:
        folder = self._place(name)
        return folder.with_name(f"{folder.name}.flat.parquet")

    def _flat(self, name: ArtifactName, stored: StoredRows) -> Path:
        if not stored.deltas:
            return stored.base
        path = self._flat_path(name)
        if not _is_kept(path):
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
            try:
                flatten(stored, temporary)
                _keep(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        return path

    def _download(self, name: ArtifactName, source: _Source) -> None:
        folder = self._place(name)
        store = open_location(self._open_store, source.location)
        domain = domain_of_layout(source.layout_key, name.workspace_id, name.residency)
        reader = ArtifactReader.open(store, domain, Digest(name.digest), source.layout_key)
        try:
            reader.download(folder)
        except AlreadyExists:
            # What was kept here is damaged.
            shutil.rmtree(folder)
            reader.download(folder)


def _keep(written: Path, path: Path) -> None:
    """Put a file to its place, with its digest beside it."""
    with written.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    noted = written.with_name(f"{written.name}.sha256")
    noted.write_text(digest)
    written.replace(path)
    noted.replace(_note(path))


def _is_kept(path: Path) -> bool:
    """Whether a file is there, as it was put there."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == _note(path).read_text()
    except OSError:
        return False


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _link(path: Path, destination: Path) -> None:
    try:
        os.link(path, destination)
    except OSError:
        shutil.copyfile(path, destination)


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
