"""Files of artifacts on a local disk, named by their digests, for any number of processes at once.

    files/ab/HEX       a whole file; compared with its name while it is copied out, and fetched again if it differs
    manifests/HEX      the manifest of an artifact, so that what is here already needs no location to be found
    partial/HEX/HEX    the files of one artifact that are being fetched
    locks/HEX          held by the one process that fetches an artifact

Only the holder of an artifact's lock writes its partial files, and a file gets its name only once all its bytes are
there and have its digest. So two processes that want one artifact fetch it once, and one that was killed leaves a
beginning that the next one goes on from: blocks that are whole are kept. The folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.core.errors import FairleadError, IntegrityError
from fairlead.core.ids import Digest, digest_hex, sha256_digest
from fairlead.sync.store.fetch import BlockUse, iter_blocks
from fairlead.sync.store.local import translate_os_error
from fairlead.sync.store.manifest import FileEntry, Manifest

if TYPE_CHECKING:
    from hashlib import _Hash  # pyright: ignore[reportPrivateUsage]  (the type has no other name)

    from fairlead.sync.store.blocks import Progress
    from fairlead.sync.store.reader import ArtifactReader

ABANDONED_SECONDS = 7 * 24 * 3600
"""How long the beginning of a file is kept for somebody to go on from."""

_COPY_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A file to fetch, and how many of its blocks are here already."""

    entry: FileEntry
    blocks: int
    size: int
    hasher: _Hash


class FileCache:
    """A folder of files by digest. Safe to share between threads and processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def manifest(self, artifact: Digest) -> Manifest | None:
        """The manifest of an artifact, if it is here and whole."""
        path = self._manifest_path(artifact)
        try:
            return Manifest.parse(path.read_bytes(), digest=artifact)
        except OSError:
            return None
        except FairleadError:
            path.unlink(missing_ok=True)
            return None

    def keep_manifest(self, manifest: Manifest) -> None:
        """Keep the manifest of an artifact. One that cannot be kept is no loss."""
        path = self._manifest_path(manifest.digest)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        with contextlib.suppress(OSError):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(manifest.to_bytes())
                temporary.replace(path)

    def copy(self, entry: FileEntry, target: Path) -> bool:
        """Copy a file to `target`, which appears whole; False if it is not here, or is not what it should be.

        Raises:
            StorageFull, PermissionDenied, LocationUnavailable: from the local disk.
        """
        path = self._file_path(entry.digest)
        temporary = target.with_name(f".{target.name[:80]}.{secrets.token_hex(6)}.partial")
        try:
            with path.open("rb") as source:
                target.parent.mkdir(parents=True, exist_ok=True)
                hasher = hashlib.sha256()
                with temporary.open("xb") as copied:
                    while piece := source.read(_COPY_BYTES):
                        hasher.update(piece)
                        copied.write(piece)
                if f"sha256:{hasher.hexdigest()}" == entry.digest:
                    temporary.replace(target)
                    return True
                # Unless somebody has put a sound one there meanwhile.
                if path.stat().st_ino == os.fstat(source.fileno()).st_ino:
                    path.unlink()
                return False
        except FileNotFoundError:
            return False
        except OSError as error:
            raise translate_os_error(error, f"the file {target.name!r}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def fill(self, reader: ArtifactReader, entries: Sequence[FileEntry], progress: Progress | None = None) -> None:
        """Fetch those of an artifact's files that are not here; waits while another process fetches the same artifact.

        Raises:
            CorruptBlock, CorruptPack, CorruptLayout, ObjectNotFound: naming pack, block and file.
            StorageFull, PermissionDenied, LocationUnavailable: from the store or the local disk.
        """
        try:
            with self._locked(reader.digest):
                self.keep_manifest(reader.manifest)
                missing = [entry for entry in _distinct(entries) if not self._file_path(entry.digest).exists()]
                if missing:
                    folder = self._folder / "partial" / digest_hex(reader.digest)
                    folder.mkdir(parents=True, exist_ok=True)
                    self._fetch(reader, missing, folder, progress)
                    shutil.rmtree(folder, ignore_errors=True)
                    self._sweep()
        except OSError as error:
            raise translate_os_error(error, "the cache of files") from error

    def _fetch(
        self, reader: ArtifactReader, entries: Sequence[FileEntry], folder: Path, progress: Progress | None
    ) -> None:
        begun = [_find_begun(reader, entry, folder) for entry in entries]
        done, total = sum(file.size for file in begun), sum(entry.size for entry in entries)
        uses = (
            BlockUse(block, file.entry.path)
            for file in begun
            for block in reader.layout.files[file.entry.path][file.blocks :]
        )
        found = iter_blocks(
            reader.store,
            reader.domain,
            uses,
            is_decoded=True,
            blocks=reader.layout.blocks,
            is_stored_checked=False,
        )
        with contextlib.closing(found) as plain:
            for file in begun:
                partial = folder / digest_hex(file.entry.digest)
                with partial.open("ab") as written:
                    for _ in reader.layout.files[file.entry.path][file.blocks :]:
                        piece = next(plain)
                        file.hasher.update(piece)
                        done += written.write(piece)
                        if progress is not None:
                            progress(done, total)
                try:
                    reader.check_file(file.entry, file.hasher.hexdigest())
                except IntegrityError:
                    partial.unlink()
                    raise
                place = self._file_path(file.entry.digest)
                place.parent.mkdir(parents=True, exist_ok=True)
                partial.replace(place)

    @contextlib.contextmanager
    def _locked(self, artifact: Digest) -> Generator[None]:
        path = self._lock_path(digest_hex(artifact))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The system releases it with the process, however that ends.
        with path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _sweep(self) -> None:
        """Remove beginnings that nobody went on from, unless somebody just does."""
        limit = time.time() - ABANDONED_SECONDS
        for folder in (self._folder / "partial").iterdir():
            with contextlib.suppress(OSError):
                if folder.stat().st_mtime < limit:
                    with self._lock_path(folder.name).open("ab") as lock:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(folder)

    def _file_path(self, digest: Digest) -> Path:
        digits = digest_hex(digest)
        return self._folder / "files" / digits[:2] / digits

    def _manifest_path(self, artifact: Digest) -> Path:
        return self._folder / "manifests" / digest_hex(artifact)

    def _lock_path(self, digits: str) -> Path:
        return self._folder / "locks" / digits


def _distinct(entries: Iterable[FileEntry]) -> list[FileEntry]:
    """One entry for each content; equal files are fetched once."""
    return list({entry.digest: entry for entry in entries}.values())


def _find_begun(reader: ArtifactReader, entry: FileEntry, folder: Path) -> _Begun:
    """Read what an earlier attempt left of a file, and cut off whatever is no whole block of it."""
    hasher, size, blocks = hashlib.sha256(), 0, 0
    with contextlib.suppress(FileNotFoundError), (folder / digest_hex(entry.digest)).open("r+b") as partial:
        for block in reader.layout.files[entry.path]:
            piece = partial.read(block.plain_length)
            if sha256_digest(piece) != block.digest:
                break
            hasher.update(piece)
            size += len(piece)
            blocks += 1
        partial.truncate(size)
    return _Begun(entry=entry, blocks=blocks, size=size, hasher=hasher)
