"""What the dialect needs of the content store, for `fairlead.sync` to give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fairlead.registry.identity import Caller
from fairlead.registry.models import Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file of an artifact: its path, its size in bytes, and the digest of its bytes."""

    path: str
    size: int
    digest: str


class VersionFiles(Protocol):
    """Reads the files of stored artifacts, and stores new ones."""

    def list(self, workspace_id: str, residency: str, digest: str) -> Sequence[StoredFile]:
        """The files of an artifact.

        Raises:
            ReplicaUnavailable: if no location has it verified.
        """
        ...

    def read(self, workspace_id: str, residency: str, digest: str, path: str) -> Iterator[bytes]:
        """The verified bytes of one file, in pieces.

        Raises:
            IntegrityError, ReplicaUnavailable: before the first piece, or between two.
        """
        ...

    def store(
        self, caller: Caller, folder: Path, *, residency: str, regions: Sequence[str] | None, labels: Labels
    ) -> str:
        """Begin to store a folder, and hand it over to be verified once it is; the id of its upload.

        What happens to the folder after this call changes nothing of what is stored.

        Raises:
            ResidencyViolation, LocationNotFound: if no location takes it.
        """
        ...
