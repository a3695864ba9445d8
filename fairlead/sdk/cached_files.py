"""Single files of artifacts, by way of a cache of files that all processes of this machine share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlead.core.errors import IntegrityError
from fairlead.sync.store.file_cache import FileCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fairlead.core.ids import Digest
    from fairlead.sdk.artifacts import Artifacts
    from fairlead.sync.store.blocks import Progress
    from fairlead.sync.store.manifest import FileEntry, Manifest
    from fairlead.sync.store.reader import ArtifactReader

ROUNDS = 3
"""How often files are fetched whose cached copies turn out damaged, before the disk is blamed."""


class CachedFiles:
    """Files of artifacts, from the cache or else from the best verified replica; every byte compared either way."""

    def __init__(self, artifacts: Artifacts, cache: Path) -> None:
        self._artifacts = artifacts
        self._cache = FileCache(cache)

    def manifest(self, artifact: Digest) -> Manifest:
        """Which files an artifact has.

        Raises:
            ArtifactNotFound: if the server knows none of that digest.
            ReplicaUnavailable: if no VERIFIED replica can be read; names what each one answered.
        """
        kept = self._cache.manifest(artifact)
        if kept is not None:
            return kept

        def read(reader: ArtifactReader) -> Manifest:
            self._cache.keep_manifest(reader.manifest)
            return reader.manifest

        return self._artifacts.read(artifact, read)

    def bring(self, artifact: Digest, targets: Mapping[Path, FileEntry], *, progress: Progress | None = None) -> None:
        """Write files of one artifact to these paths. Each appears whole; one that is there is replaced.

        What was fetched before an interruption is not fetched again. A replica whose bytes are wrong is reported,
        mended by the server, and passed over for the next one.

        Raises:
            ArtifactNotFound: if the server knows none of that digest.
            ReplicaUnavailable: if no VERIFIED replica can be read; names what each one answered.
            IntegrityError: if this machine's disk does not give back what was written.
            StorageFull, PermissionDenied, LocationUnavailable: from the local disk.
        """
        wanted = self._copy(targets)
        for _ in range(ROUNDS):
            if not wanted:
                return
            self._fill(artifact, wanted.values(), progress)
            wanted = self._copy(wanted)
        if wanted:
            raise IntegrityError(
                "Files in the cache are damaged as soon as they are written.", hint="Check the disk of FAIRLEAD_HOME."
            )

    def _copy(self, targets: Mapping[Path, FileEntry]) -> dict[Path, FileEntry]:
        """Copy what the cache has; what it has not, or not any longer."""
        return {path: entry for path, entry in targets.items() if not self._cache.copy(entry, path)}

    def _fill(self, artifact: Digest, missing: Iterable[FileEntry], progress: Progress | None) -> None:
        entries = list(missing)
        self._artifacts.read(artifact, lambda reader: self._cache.fill(reader, entries, progress))
